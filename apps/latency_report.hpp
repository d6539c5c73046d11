/// \file  What `lmd bench latency` prints.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/json/json.hpp>

#include <cstdio>
#include <string>

#include "bench_model.hpp"
#include "latency.hpp"
#include "units.hpp"

namespace lmd::apps {

/// Medians of one case.
struct LatencyRow {
  LatencyCase size;
  PrefillTimes prefill = {};
  double first_token_s = 0.0;  ///< until the last sequence of the batch has its first token
  double decode_tokens_per_s = 0.0;
  double step_s = 0.0;
  double bytes_per_token = 0.0;
  double bandwidth_fraction = 0.0;  ///< of the measured read bandwidth
  std::uint64_t answer_hash = 0;
  std::string problem = {};  ///< why the case was not measured; else empty

  [[nodiscard]] double batch_prefill_tokens_per_s() const {
    return static_cast<double>(size.batch) * size.prompt_len / first_token_s;
  }
  [[nodiscard]] double single_shot_tokens_per_s() const {
    return size.prompt_len / prefill.single_shot_s;
  }
  [[nodiscard]] double sustained_tokens_per_s() const {
    return size.prompt_len / prefill.sustained_s;
  }
};

inline std::string hash_text(std::uint64_t hash) {
  char text[17];
  std::snprintf(text, sizeof text, "%016llx", static_cast<unsigned long long>(hash));
  return text;
}

inline json::Json row_json(const LatencyRow& r) {
  json::Json row = {
      {"prompt_len", r.size.prompt_len}, {"gen_len", r.size.gen_len}, {"batch", r.size.batch}};
  if (!r.problem.empty()) {
    row["skipped"] = r.problem;
    return row;
  }
  row.update({{"single_shot_prefill_tokens_per_s", r.single_shot_tokens_per_s()},
              {"single_shot_first_token_ms", 1e3 * r.prefill.single_shot_s},
              {"sustained_prefill_tokens_per_s", r.sustained_tokens_per_s()},
              {"sustained_first_token_ms", 1e3 * r.prefill.sustained_s},
              {"prefill_tokens_per_s", r.batch_prefill_tokens_per_s()},
              {"first_token_ms", 1e3 * r.first_token_s},
              {"decode_tokens_per_s", r.decode_tokens_per_s},
              {"step_ms", 1e3 * r.step_s},
              {"bytes_per_token", r.bytes_per_token},
              {"bandwidth_fraction", r.bandwidth_fraction},
              {"answer_hash", hash_text(r.answer_hash)}});
  return row;
}

/// "smollm2-135m (random w4): cpu, avx2, 2 threads, KV scheme 16"
inline std::string model_text(const BenchModel& model) {
  return model.name + ": " + model.runtime.backend + ", KV scheme " + model.kv;
}

inline std::string row_text(const BenchModel& model, const LatencyRow& r) {
  const LatencyCase& c = r.size;
  const std::string loading = loading_text(model);
  return model_text(model) + ", batch " + std::to_string(c.batch) + ", " +
         std::to_string(c.prompt_len) + " + " + std::to_string(c.gen_len) + " tokens\n" +
         (loading.empty() ? "" : "  start        " + loading + '\n') +  //
         "  prefill      " + number_text(r.single_shot_tokens_per_s(), 1) +
         " tokens/s single shot (" + number_text(1e3 * r.prefill.single_shot_s, 1) + " ms), " +
         number_text(r.sustained_tokens_per_s(), 1) + " sustained, " +
         number_text(r.batch_prefill_tokens_per_s(), 1) + " of the whole batch\n" +
         "  first token  " + number_text(1e3 * r.first_token_s, 1) + " ms for the last sequence\n" +
         "  decode       " + number_text(r.decode_tokens_per_s, 1) + " tokens/s, " +
         number_text(1e3 * r.step_s, 2) + " ms a step\n" +  //
         "  memory       " + bytes_text(r.bytes_per_token) + " per token, " +
         number_text(100.0 * r.bandwidth_fraction, 0) + " % of the " +
         number_text(model.read_bandwidth / 1e9, 1) + " GB/s that this machine reads\n";
}

/// What stands above the rows of several cases.
inline std::string table_head(const BenchModel& model, int gen_len) {
  const std::string loading = loading_text(model);
  char columns[128];
  std::snprintf(columns, sizeof columns, "%7s %6s %12s %12s %12s %12s %10s %6s\n", "prompt",
                "batch", "single shot", "sustained", "whole batch", "decode", "ms a step", "read");
  return model_text(model) + ", " + std::to_string(gen_len) + " tokens each" +
         (loading.empty() ? "" : "; " + loading) +
         "\nprefill and decode in tokens/s; read: part of " +
         number_text(model.read_bandwidth / 1e9, 1) + " GB/s\n" + columns;
}

inline std::string table_row(const LatencyRow& r) {
  char text[160];
  const int n = std::snprintf(text, sizeof text, "%7d %6d ", r.size.prompt_len, r.size.batch);
  if (!r.problem.empty()) return std::string(text) + "not measured: " + r.problem + '\n';
  std::snprintf(text + n, sizeof text - static_cast<std::size_t>(n),
                "%12.1f %12.1f %12.1f %12.1f %10.2f %5.0f%%\n", r.single_shot_tokens_per_s(),
                r.sustained_tokens_per_s(), r.batch_prefill_tokens_per_s(), r.decode_tokens_per_s,
                1e3 * r.step_s, 100.0 * r.bandwidth_fraction);
  return text;
}

}  // namespace lmd::apps
