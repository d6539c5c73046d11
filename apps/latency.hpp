/// \file  Timing an engine: random prompts in, tokens per second out.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/engine/engine.hpp>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <random>
#include <vector>

#include "interrupt.hpp"

namespace lmd::apps {

struct LatencyCase {
  int prompt_len = 512;
  int gen_len = 128;
  int batch = 1;
};

/// Seconds of one run, all sequences together.
struct LatencyRun {
  double first_token_s = 0.0;  ///< until the last sequence has its first token
  double decode_s = 0.0;       ///< from there to the end

  [[nodiscard]] double prefill_tokens_per_s(const LatencyCase& c) const {
    return c.batch * static_cast<double>(c.prompt_len) / first_token_s;
  }
  [[nodiscard]] double decode_tokens_per_s(const LatencyCase& c) const {
    return decode_s > 0.0 ? c.batch * static_cast<double>(c.gen_len - 1) / decode_s : 0.0;
  }
};

/// Prompts of random ids that are the same in every run and differ within a batch.
[[nodiscard]] inline std::vector<std::vector<int>> random_prompts(const LatencyCase& c,
                                                                  int vocab_size) {
  constexpr std::uint32_t kSeed = 1234;
  std::mt19937 random(kSeed);
  std::vector<std::vector<int>> prompts(static_cast<std::size_t>(c.batch));
  for (std::vector<int>& prompt : prompts) {
    for (int i = 0; i < c.prompt_len; ++i)
      prompt.push_back(static_cast<int>(random() % static_cast<std::uint32_t>(vocab_size)));
  }
  return prompts;
}

/// Generates greedily to the end, whatever the tokens. \throws Interrupted.
[[nodiscard]] inline LatencyRun run_once(engine::Engine& engine,
                                         const LatencyCase& c,
                                         const std::vector<std::vector<int>>& prompts) {
  using Clock = std::chrono::steady_clock;
  const auto start = Clock::now();
  const auto seconds = [start] {
    return std::chrono::duration<double>(Clock::now() - start).count();
  };
  int n_started = 0;
  LatencyRun run;
  for (const std::vector<int>& prompt : prompts) {
    engine::Request request;
    request.prompt = prompt;
    request.sampling.temperature = 0.0f;
    request.max_new_tokens = c.gen_len;
    bool is_first = true;
    (void)engine.submit(std::move(request), [&, is_first](const engine::TokenEvent& event) mutable {
      LMD_REQUIRE(event.finish != engine::FinishReason::kError, ErrorCode::kInternal,
                  "the model's output is not a number");
      if (!is_first) return;
      is_first = false;
      if (++n_started == c.batch) run.first_token_s = seconds();
    });
  }
  while (engine.step())
    throw_if_interrupted();
  run.decode_s = seconds() - run.first_token_s;
  return run;
}

[[nodiscard]] inline double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  const std::size_t middle = values.size() / 2;
  return values.size() % 2 == 1 ? values[middle] : (values[middle - 1] + values[middle]) / 2.0;
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

}  // namespace lmd::apps
