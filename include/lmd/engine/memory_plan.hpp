/// \file  How memory will be used, decided before anything is allocated.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/cache/geometry.hpp>
#include <lmd/cache/page_table.hpp>
#include <lmd/core/named_bytes.hpp>
#include <lmd/engine/config.hpp>
#include <lmd/model/config.hpp>

#include <algorithm>
#include <cstdio>
#include <fstream>
#include <string>
#include <vector>

namespace lmd::engine {

/// All sizes in bytes unless named otherwise.
struct MemoryPlan {
  std::int64_t weights = 0;
  std::int64_t open_pages = 0;             ///< 16-bit pages being filled, one per sequence
  std::vector<NamedBytes> workspace = {};  ///< activations, logits and what kernels need
  std::int64_t page_bytes = 0;             ///< one sealed page in all layers
  std::int64_t n_pages = 0;                ///< sealed pages
  std::int64_t available = 0;              ///< what the machine has left for all of these
  int session_len = 0;                     ///< tokens of one sequence
  int max_batch_size = 0;
  int max_rows = 0;  ///< tokens of one step

  [[nodiscard]] std::int64_t sealed_pages() const { return n_pages * page_bytes; }
  [[nodiscard]] std::int64_t workspace_bytes() const { return total_bytes(workspace); }
  [[nodiscard]] std::int64_t total() const {
    return weights + open_pages + workspace_bytes() + sealed_pages();
  }
};

namespace detail {

/// "96.6 MB" with 1 MB = 1e6 bytes.
[[nodiscard]] inline std::string bytes_text(std::int64_t bytes) {
  const char* unit = "B";
  auto value = static_cast<double>(bytes);
  for (const char* next : {"KB", "MB", "GB", "TB"}) {
    if (value < 1000.0) break;
    value /= 1000.0;
    unit = next;
  }
  char text[32];
  std::snprintf(text, sizeof text, value < 10.0 ? "%.2f %s" : "%.1f %s", value, unit);
  return text;
}

inline void plan_line(std::string& to,
                      const char* name,
                      std::int64_t bytes,
                      const std::string& note) {
  char line[160];
  std::snprintf(line, sizeof line, "  %-14s %10s", name, bytes_text(bytes).c_str());
  to += line;
  if (!note.empty()) to += "   " + note;
  to += '\n';
}

/// The first number of the line that begins with `key` in a /proc or cgroup file; -1 if absent.
[[nodiscard]] inline std::int64_t number_in_file(const char* path, const std::string& key) {
  std::ifstream file(path);
  for (std::string line; std::getline(file, line);) {
    if (line.compare(0, key.size(), key) != 0) continue;
    const std::size_t at = line.find_first_of("0123456789", key.size());
    if (at == std::string::npos) return -1;
    return std::strtoll(line.c_str() + at, nullptr, 10);
  }
  return -1;
}

}  // namespace detail

/// Bytes that a new process may take: what Linux calls available, within its control group's limit.
[[nodiscard]] inline std::int64_t available_host_memory() {
  std::int64_t available = detail::number_in_file("/proc/meminfo", "MemAvailable:") * 1024;
  const std::int64_t limit = detail::number_in_file("/sys/fs/cgroup/memory.max", "");
  const std::int64_t used = detail::number_in_file("/sys/fs/cgroup/memory.current", "");
  if (limit > 0 && used >= 0)
    available = std::min(available, std::max<std::int64_t>(limit - used, 0));
  return available;
}

/// The plan as a small table, one line per use.
[[nodiscard]] inline std::string to_text(const MemoryPlan& p) {
  std::string text = "memory plan\n";
  detail::plan_line(text, "weights", p.weights, "");
  detail::plan_line(
      text, "open pages", p.open_pages,
      std::to_string(p.max_batch_size) + " sequences, the last page of each at 16 bit");
  detail::plan_line(text, "sealed pages", p.sealed_pages(),
                    std::to_string(p.n_pages) +
                        " pages = " + std::to_string(p.n_pages * cache::kPageTokens) +
                        " tokens of " + std::to_string(p.page_bytes / cache::kPageTokens) + " B");
  detail::plan_line(text, "workspace", p.workspace_bytes(),
                    std::to_string(p.max_rows) + " tokens a step, of it");
  for (const NamedBytes& use : p.workspace) {
    if (use.bytes > 0) detail::plan_line(text, "", use.bytes, use.name);
  }
  detail::plan_line(text, "total", p.total(),
                    "of " + detail::bytes_text(p.available) + " available");
  return text;
}

/// Tokens of one sequence at most.
[[nodiscard]] inline int session_length(const model::ModelConfig& model,
                                        const EngineConfig& config) {
  return config.session_len > 0 ? config.session_len : model.max_position;
}

/// Tokens of a step at most: prompts, and one of each sequence that decodes.
[[nodiscard]] inline int step_rows(const model::ModelConfig& model, const EngineConfig& config) {
  return static_cast<int>(
      std::min<std::int64_t>(config.max_prefill_tokens,
                             std::int64_t{session_length(model, config)} * config.max_batch_size) +
      config.max_batch_size);
}

/// What a backend allocates beside the cache of its sequences.
struct BackendNeeds {
  std::int64_t weights = 0;  ///< bytes
  std::vector<NamedBytes> workspace = {};
  int idle_slots = 0;  ///< open pages that no sequence has
};

/// Of the Host and Cpu backends, whose activations are f32.
[[nodiscard]] inline BackendNeeds host_needs(const model::ModelConfig& model,
                                             const EngineConfig& config,
                                             std::int64_t weight_bytes) {
  const std::int64_t row = 2 * std::int64_t{model.hidden_size} + model.qkv_size() + model.q_size() +
                           3 * std::int64_t{model.intermediate_size} + model.head_dim;
  return {.weights = weight_bytes,
          .workspace = {{"activations", 4 * row * step_rows(model, config)},
                        {"logits", 4 * std::int64_t{config.max_batch_size} * model.vocab_size}}};
}

/// Sealed pages get `cache_max_entry_count` of what is left beside weights, open pages and
/// workspace, but no more than all sequences at full length could fill.
///
/// Errors:  \throws Error(kConfig) for bad settings; Error(kCapacity) with the plan and a way out
///          when not even one sequence of `session_len` tokens fits.
[[nodiscard]] inline MemoryPlan plan_memory(const model::ModelConfig& model,
                                            const EngineConfig& config,
                                            const cache::CacheGeometry& geometry,
                                            const BackendNeeds& needs,
                                            std::int64_t available) {
  validate(config);
  MemoryPlan p;
  p.weights = needs.weights;
  p.workspace = needs.workspace;
  p.available = available;
  p.session_len = session_length(model, config);
  p.max_batch_size = config.max_batch_size;
  p.max_rows = step_rows(model, config);
  p.open_pages = (config.max_batch_size + needs.idle_slots) * geometry.open_elements() * 2;
  p.page_bytes = geometry.page_bytes();
  const std::int64_t pages_of_one = cache::sealed_pages(p.session_len);
  const std::int64_t useful = config.max_batch_size * pages_of_one;
  const std::int64_t left = p.available - p.weights - p.open_pages - p.workspace_bytes();
  const auto share = static_cast<std::int64_t>(
      static_cast<double>(std::max<std::int64_t>(left, 0)) * config.cache_max_entry_count);
  p.n_pages = std::min(share / p.page_bytes, useful);
  if (left >= 0 && p.n_pages >= pages_of_one) return p;
  const std::int64_t fits = p.n_pages * cache::kPageTokens;
  const std::string way_out =
      left >= 0 && fits > 0 ? "use --session-len " + std::to_string(fits) +
                                  ", a larger --cache-max-entry-count or a smaller --quant-policy"
                            : "use a smaller --max-batch-size or --max-prefill-token-num, a "
                              "smaller model or quantised "
                              "weights";
  throw Error(ErrorCode::kCapacity, to_text(p) + "a sequence of " + std::to_string(p.session_len) +
                                        " tokens does not fit: " + way_out);
}

/// The same for the Host and Cpu backends.
[[nodiscard]] inline MemoryPlan plan_memory(const model::ModelConfig& model,
                                            const EngineConfig& config,
                                            const cache::CacheGeometry& geometry,
                                            std::int64_t weight_bytes,
                                            std::int64_t available) {
  return plan_memory(model, config, geometry, host_needs(model, config, weight_bytes), available);
}

}  // namespace lmd::engine
