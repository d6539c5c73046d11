/// \file  Timing an engine: how soon a prompt is answered, how fast a batch goes on.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/engine/engine.hpp>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <thread>
#include <utility>
#include <vector>

#include "interrupt.hpp"
#include "measuring.hpp"
#include "statistics.hpp"

namespace lmd::apps {

struct LatencyCase {
  int prompt_len = 512;
  int gen_len = 256;
  int batch = 1;
};

/// Seconds to the first token of one prompt: medians.
struct PrefillTimes {
  double single_shot_s = 0.0;  ///< after half a second of idleness
  double sustained_s = 0.0;    ///< back to back, for a second at least
};

[[nodiscard]] inline PrefillTimes measure_prefill(engine::Engine& engine,
                                                  int prompt_len,
                                                  int repeat) {
  constexpr auto kIdle = std::chrono::milliseconds(500);
  constexpr double kSustained = 1.0;  // seconds
  int n_prompts = 0;
  const auto once = [&] {
    return first_token_s(
        engine, random_prompt(prompt_len, engine.model().vocab_size, {prompt_len, 0, n_prompts++}));
  };
  (void)once();
  std::vector<double> single_shot;
  for (int i = 0; i < repeat; ++i) {
    std::this_thread::sleep_for(kIdle);
    single_shot.push_back(once());
  }
  std::vector<double> sustained;
  const Stopwatch watch;
  while (static_cast<int>(sustained.size()) < repeat || watch.seconds() < kSustained)
    sustained.push_back(once());
  return {median(single_shot), median(sustained)};
}

/// How many steps before the last sequence of a batch each one has its first token, when all are
/// handed in together and a step reads prompts oldest first, `prefill_tokens` with those that decode.
///
/// Source:  the rule of engine/scheduler.hpp.
[[nodiscard]] inline std::vector<int> decode_leads(const LatencyCase& c, int prefill_tokens) {
  std::vector<int> pending(static_cast<std::size_t>(c.batch), c.prompt_len);
  std::vector<int> first_step(pending.size(), 0);
  int step = 0;
  while (pending.back() > 0) {
    ++step;
    // Those whose first token is there bring one token, as those do that have one left to read.
    const auto n_decode = std::ranges::count_if(pending, [](int n) { return n <= 1; });
    int budget = engine::prompt_share(prefill_tokens, static_cast<int>(n_decode));
    for (std::size_t i = 0; i < pending.size(); ++i) {
      if (pending[i] == 0) continue;
      const int n = pending[i] == 1 ? 1 : std::min(pending[i], budget);
      if (pending[i] > 1) budget -= n;
      pending[i] -= n;
      if (pending[i] == 0) first_step[i] = step;
    }
  }
  for (int& first : first_step)
    first = step - first;
  return first_step;
}

/// One batch, handed in together. Its steady state lies between the last first token and the first
/// last token.
struct BatchRun {
  double first_token_s = 0.0;      ///< until the last sequence has its first token
  double decode_s = 0.0;           ///< of the steady state
  int decode_steps = 0;            ///< in it
  std::int64_t decode_tokens = 0;  ///< drawn in it
  std::uint64_t answer_hash = 0;   ///< FNV-1a over the first gen_len tokens of each sequence
};

[[nodiscard]] inline std::uint64_t hash_of(const std::vector<std::vector<int>>& answers, int n) {
  std::uint64_t hash = 0xcbf29ce484222325u;
  for (const std::vector<int>& answer : answers) {
    for (int i = 0; i < n; ++i)
      hash = (hash ^ static_cast<std::uint64_t>(answer.at(static_cast<std::size_t>(i)))) *
             0x100000001b3u;
  }
  return hash;
}

/// Sequences that start early get as many tokens more, so that all end in one step and gen_len
/// tokens of each lie at or behind the steady state's beginning.
/// \throws Interrupted.
[[nodiscard]] inline BatchRun run_batch(engine::Engine& engine, const LatencyCase& c, int run) {
  const std::vector<int> leads = decode_leads(c, prefill_tokens(engine.plan()));
  std::vector<std::vector<int>> answers(static_cast<std::size_t>(c.batch));
  std::vector<engine::Request> requests;
  for (int i = 0; i < c.batch; ++i) {
    requests.push_back(greedy_request(
        random_prompt(c.prompt_len, engine.model().vocab_size, {c.prompt_len, c.batch, run, i}),
        c.gen_len + leads[static_cast<std::size_t>(i)]));
  }
  int n_started = 0;
  int n_ended = 0;
  std::int64_t n_tokens = 0;
  const Stopwatch watch;
  for (std::size_t i = 0; i < requests.size(); ++i) {
    (void)engine.submit(std::move(requests[i]), [&, i](const engine::TokenEvent& event) {
      require_token(event);
      n_started += answers[i].empty() ? 1 : 0;
      n_ended += event.finish != engine::FinishReason::kNone ? 1 : 0;
      ++n_tokens;
      answers[i].push_back(event.token);
    });
  }
  BatchRun result;
  std::int64_t tokens_before = 0;
  while (engine.step()) {
    throw_if_interrupted();
    const double now = watch.seconds();
    if (result.first_token_s > 0.0 && result.decode_s == 0.0) {
      ++result.decode_steps;
      if (n_ended == 0) continue;
      result.decode_s = now - result.first_token_s;
      result.decode_tokens = n_tokens - tokens_before;
    } else if (result.first_token_s == 0.0 && n_started == c.batch) {
      LMD_REQUIRE(n_ended == 0, ErrorCode::kInternal, "the batch never ran as a whole");
      result.first_token_s = now;
      tokens_before = n_tokens;
    }
  }
  result.answer_hash = hash_of(answers, c.gen_len);
  return result;
}

}  // namespace lmd::apps
