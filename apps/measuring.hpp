/// \file  What every measurement of an engine does: random prompts, greedy requests, a clock.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/engine/engine.hpp>

#include <chrono>
#include <cstdint>
#include <initializer_list>
#include <random>
#include <utility>
#include <vector>

#include "interrupt.hpp"

namespace lmd::apps {

/// Ids that depend on the numbers in `key` alone. No two prompts of a measurement share a key, so
/// that no prefix of one is in the cache when another is read.
[[nodiscard]] inline std::vector<int> random_prompt(int n_tokens,
                                                    int vocab_size,
                                                    std::initializer_list<int> key) {
  std::seed_seq seed(key);
  std::mt19937 random(seed);
  std::vector<int> prompt(static_cast<std::size_t>(n_tokens));
  for (int& id : prompt)
    id = static_cast<int>(random() % static_cast<std::uint32_t>(vocab_size));
  return prompt;
}

/// Greedy, and on after any token.
[[nodiscard]] inline engine::Request greedy_request(std::vector<int> prompt, int n_tokens) {
  engine::Request request;
  request.prompt = std::move(prompt);
  request.sampling.temperature = 0.0f;
  request.max_new_tokens = n_tokens;
  return request;
}

/// \throws Error(kInternal) for the event of a model that has lost its numbers.
inline void require_token(const engine::TokenEvent& event) {
  LMD_REQUIRE(event.finish != engine::FinishReason::kError, ErrorCode::kInternal,
              engine::kNotANumber);
}

/// Since its construction.
class Stopwatch {
 public:
  [[nodiscard]] double seconds() const {
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count();
  }

 private:
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
};

/// Seconds from handing in one prompt to its first token. \throws Interrupted.
[[nodiscard]] inline double first_token_s(engine::Engine& engine, std::vector<int> prompt) {
  double seconds = 0.0;
  engine::Request request = greedy_request(std::move(prompt), 1);
  const Stopwatch watch;
  (void)engine.submit(std::move(request), [&](const engine::TokenEvent& event) {
    require_token(event);
    seconds = watch.seconds();
  });
  while (engine.step())
    throw_if_interrupted();
  return seconds;
}

/// Prompt tokens that a step of this engine reads.
[[nodiscard]] inline int prefill_tokens(const engine::MemoryPlan& plan) {
  return plan.max_rows - plan.max_batch_size;
}

}  // namespace lmd::apps
