/// \file  lmd plan: the memory that a model would take, without loading it.
// SPDX-License-Identifier: Apache-2.0
#include <cstdio>
#include <memory>
#include <string>

#include "commands.hpp"
#include "engine_flags.hpp"

namespace lmd::apps {

namespace {

struct PlanFlags {
  std::string model;
  RuntimeOptions runtime;
};

ExitCode run_plan(const PlanFlags& flags) {
  const DevicePlan plan = plan_model(find_model(flags.model), flags.runtime);
  std::printf("device: %s\n%s", plan.device.c_str(), engine::to_text(plan.memory).c_str());
  return ExitCode::kOk;
}

}  // namespace

void add_plan(CLI::App& root, Action& action) {
  const auto flags = std::make_shared<PlanFlags>();
  CLI::App& app =
      *root.add_subcommand("plan", "Show the memory that a model would take, without loading it");
  add_model(app, flags->model)->required();
  add_engine_flags(app, flags->runtime);
  app.footer(
      "Examples:\n"
      "  lmd plan SmolLM2-135M-Instruct\n"
      "  lmd plan ./internlm2_5-7b-chat-4bit --quant-policy 4 --session-len 32768\n"
      "  lmd plan ./internlm2_5-7b-chat-4bit --device cuda --gpu-memory-limit 24GiB\n"
      "\nExit status 3 says that it does not fit, and what would.\n");
  app.callback([&action, flags] { action = [flags] { return run_plan(*flags); }; });
}

}  // namespace lmd::apps
