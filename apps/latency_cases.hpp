/// \file  One case of `lmd bench latency`: whether it fits, and its medians.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/engine/engine.hpp>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <numeric>
#include <string>
#include <vector>

#include "bench_model.hpp"
#include "latency.hpp"
#include "latency_report.hpp"

namespace lmd::apps {

/// Tokens of the longest sequence: the first one goes on while the others' prompts are read.
[[nodiscard]] inline int longest_sequence(const LatencyCase& c, int prefill_tokens) {
  return c.prompt_len + c.gen_len + decode_leads(c, prefill_tokens).front();
}

/// Bytes that one sequence of `n_tokens` in the cache makes a step read: sealed pages, and the open
/// one at 16 bit.
[[nodiscard]] inline double cache_bytes(const cache::CacheGeometry& geometry, double n_tokens) {
  const double pages = std::floor(n_tokens / cache::kPageTokens);
  const double open = n_tokens - pages * cache::kPageTokens;
  const double open_token =
      2.0 * static_cast<double>(geometry.open_elements()) / cache::kPageTokens;
  return pages * static_cast<double>(geometry.page_bytes()) + open * open_token;
}

/// Weights are read once a step for the whole batch, each sequence's cache for itself; the cache
/// counts at its mean length in the steady state.
[[nodiscard]] inline double bytes_per_token(engine::Engine& engine, const LatencyCase& c) {
  const std::vector<int> leads = decode_leads(c, prefill_tokens(engine.plan()));
  const double mean_lead = std::accumulate(leads.begin(), leads.end(), 0.0) / c.batch;
  const auto weights = static_cast<double>(engine.executor().step_weight_bytes(c.batch));
  return weights / c.batch +
         cache_bytes(engine.executor().geometry(), c.prompt_len + mean_lead + c.gen_len / 2.0);
}

/// Why the whole batch cannot run at the same time; empty where it can.
[[nodiscard]] inline std::string why_not(const LatencyCase& c, const engine::MemoryPlan& plan) {
  const int tokens = longest_sequence(c, prefill_tokens(plan));
  const std::int64_t pages = std::int64_t{c.batch} * cache::sealed_pages(tokens - 1);
  const std::string what =
      "--prompt-len " + std::to_string(c.prompt_len) + " --batch " + std::to_string(c.batch);
  if (c.batch > plan.max_batch_size)
    return what + ": --max-batch-size is " + std::to_string(plan.max_batch_size);
  if (tokens > plan.session_len) {
    return what + ": the first sequence has " + std::to_string(tokens) +
           " tokens when the last one ends, --session-len is " + std::to_string(plan.session_len);
  }
  if (pages > plan.n_pages) {
    return what + ": needs " + std::to_string(pages) + " pages of the cache, there are " +
           std::to_string(plan.n_pages) + "; use a smaller --batch or --quant-policy 8 or 4";
  }
  return {};
}

/// The medians of `repeat` runs after one to warm up. \throws Interrupted.
[[nodiscard]] inline LatencyRow measure(const BenchModel& model,
                                        const LatencyCase& c,
                                        const PrefillTimes& prefill,
                                        int repeat) {
  constexpr int kWarmUpTokens = 8;
  engine::Engine& engine = *model.runtime.engine;
  (void)run_batch(engine, {c.prompt_len, std::min(kWarmUpTokens, c.gen_len), c.batch}, 0);
  std::vector<double> first_token;
  std::vector<double> decode;
  std::vector<double> step;
  LatencyRow row{.size = c, .prefill = prefill};
  for (int i = 1; i <= repeat; ++i) {
    const BatchRun run = run_batch(engine, c, i);
    first_token.push_back(run.first_token_s);
    decode.push_back(static_cast<double>(run.decode_tokens) / run.decode_s);
    step.push_back(run.decode_s / run.decode_steps);
    if (i == 1) row.answer_hash = run.answer_hash;
  }
  row.first_token_s = median(first_token);
  row.decode_tokens_per_s = median(decode);
  row.step_s = median(step);
  row.bytes_per_token = bytes_per_token(engine, c);
  if (model.read_bandwidth > 0.0)
    row.bandwidth_fraction = row.decode_tokens_per_s * row.bytes_per_token / model.read_bandwidth;
  return row;
}

}  // namespace lmd::apps
