/// \file  lmd check_env: what a report of a problem should begin with.
// SPDX-License-Identifier: Apache-2.0
#include <lmd/core/config.hpp>
#include <lmd/core/cpu_features.hpp>
#include <lmd/engine/memory_plan.hpp>

#include <cstdio>
#include <filesystem>
#include <fstream>
#include <string>

#include "commands.hpp"
#include "cuda_runtime.hpp"
#include "runtime.hpp"
#include "units.hpp"
#include <sched.h>
#include <sys/utsname.h>

namespace lmd::apps {

namespace {

void row(const char* name, const std::string& value) {
  std::printf("%-14s %s\n", name, value.c_str());
}

std::string compiler() {
#if defined(__clang__)
  return std::string("clang ") + __clang_version__;
#elif defined(__GNUC__)
  return std::string("g++ ") + __VERSION__;
#else
  return "unknown";
#endif
}

/// The value behind "key : " in /proc/cpuinfo, of the first processor.
std::string cpu_line(const std::string& key) {
  std::ifstream file("/proc/cpuinfo");
  for (std::string line; std::getline(file, line);) {
    const std::size_t colon = line.find(": ");
    if (line.starts_with(key) && colon != std::string::npos) return line.substr(colon + 2);
  }
  return "unknown";
}

/// Those of the processor's features that kernels may use.
std::string features() {
  const std::string all = ' ' + cpu_line("flags") + ' ';
  std::string found;
  for (const char* name : {"avx2", "fma", "f16c", "avx512f", "avx512bw", "avx512dq", "avx512vl",
                           "avx512_vnni", "avx512_bf16", "avx_vnni", "amx_tile"}) {
    if (all.find(' ' + std::string(name) + ' ') != std::string::npos)
      found += (found.empty() ? "" : " ") + std::string(name);
  }
  return found.empty() ? "none that kernels use" : found;
}

std::string cores() {
  cpu_set_t set;
  CPU_ZERO(&set);
  std::string text = ::sched_getaffinity(0, sizeof set, &set) == 0
                         ? std::to_string(CPU_COUNT(&set)) + " usable by this process"
                         : "unknown";
  std::ifstream quota("/sys/fs/cgroup/cpu.max");
  double used = 0.0;
  double period = 0.0;
  if (quota >> used >> period && period > 0.0)
    text += ", the control group allows " + number_text(used / period, 1);
  return text;
}

std::string system_name() {
  utsname names{};
  if (::uname(&names) != 0) return "unknown";
  return std::string(names.sysname) + ' ' + names.release + ' ' + names.machine;
}

std::string gpu() {
  const GpuFacts facts = query_gpu();
  if (!facts.is_there) return "none: " + facts.problem;
  if (!facts.is_usable) return "not used: " + facts.problem;
  const int capability = facts.compute_capability;
  const auto text = [](std::int64_t bytes) { return bytes_text(static_cast<double>(bytes)); };
  return facts.name + ", compute capability " + std::to_string(capability / 10) + '.' +
         std::to_string(capability % 10) + ", " + std::to_string(facts.multiprocessors) +
         " multiprocessors, " + text(facts.free_bytes) + " of " + text(facts.total_bytes) + " free";
}

std::string models() {
  std::error_code error;
  const std::string folder = models_folder();
  const bool is_there = std::filesystem::is_directory(folder, error);
  return folder + (is_there ? "" : " (not there yet: scripts/quickstart makes it)");
}

ExitCode run_check_env() {
  row("lmd", kVersion);
  row("compiler", compiler());
#ifdef NDEBUG
  row("build", "release");
#else
  row("build", "with assertions");
#endif
  row("system", system_name());
  row("processor", cpu_line("model name"));
  row("features", features());
  row("kernels for", to_string(best_cpu_isa()));
  row("cores", cores());
  row("memory", bytes_text(static_cast<double>(engine::available_host_memory())) + " available");
#ifdef LMD_WITH_LIBEDIT
  row("libedit", "built in: chat has line editing and history");
#else
  row("libedit", "not built in: chat has no history (install libedit-dev and build again)");
#endif
  row("CUDA", is_cuda_built_in() ? "built in" : "not built in: models run on the processor");
  row("GPU", gpu());
  row("models", models());
  return ExitCode::kOk;
}

}  // namespace

void add_check_env(CLI::App& root, Action& action) {
  CLI::App& app = *root.add_subcommand(
      "check_env", "Show what lmd was built with and what it finds on this machine");
  app.alias("check-env");
  app.callback([&action] { action = run_check_env; });
}

}  // namespace lmd::apps
