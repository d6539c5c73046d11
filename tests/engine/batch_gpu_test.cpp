/// \file  Answers on the GPU do not depend on who else is in the batch, nor on the graph that its size takes:
///        bit by bit where that is promised, else up to the order of additions.
// SPDX-License-Identifier: Apache-2.0
#include <lmd/kernels/sample/sampler.hpp>

#include <cmath>
#include <cstring>

#include "engine/gpu_case.hpp"

using namespace lmd;
using test::has_gpu;
using test::make_engine;
using test::request_of;
using test::Setup;

namespace {

/// Prompts of many lengths, none alike.
constexpr int kRequests = 200;
constexpr int kAnswer = 24;

engine::Request request(int i) {
  engine::Request r = request_of(1 + i * 7 % 90, i % 97, static_cast<unsigned>(1000 + i));
  r.max_new_tokens = kAnswer;
  r.n_logprobs = 0;
  return r;
}

struct Answer {
  std::vector<int> tokens;
  std::vector<float> logprobs;  ///< of the tokens

  [[nodiscard]] bool has_bits_of(const Answer& other) const {
    return tokens == other.tokens && logprobs.size() == other.logprobs.size() &&
           std::memcmp(logprobs.data(), other.logprobs.data(), logprobs.size() * sizeof(float)) ==
               0;
  }
};

/// Answers to the first `n` requests, as many at a time as the batch takes.
std::vector<Answer> answers(const Setup& s, int n) {
  engine::Engine engine = make_engine(s, cases::tiny_weights(cases::tiny_config(), 1));
  std::vector<Answer> all(static_cast<std::size_t>(n));
  for (int i = 0; i < n; ++i) {
    (void)engine.submit(request(i),
                        [&answer = all[static_cast<std::size_t>(i)]](const engine::TokenEvent& e) {
                          REQUIRE(e.token >= 0);
                          answer.tokens.push_back(e.token);
                          answer.logprobs.push_back(e.logprobs->chosen);
                        });
  }
  while (engine.step()) {
  }
  return all;
}

/// RMS of the logits behind a prompt.
double logit_size() {
  engine::Engine engine = make_engine({.batch = 1}, cases::tiny_weights(cases::tiny_config(), 1));
  const std::vector<int> ids = request(40).prompt;
  std::vector<float> logits(ids.size() * 97);
  const std::vector<std::int32_t> pages = {0, 1};
  engine.executor().logits({.slot = 0,
                            .position = 0,
                            .ids = ids,
                            .rope_base = cases::tiny_config().rope.base,
                            .page_ids = pages},
                           logits.data());
  double squares = 0.0;
  for (const float x : logits)
    squares += double{x} * x;
  return std::sqrt(squares / static_cast<double>(logits.size()));
}

}  // namespace

// 8, 64 and 200 sequences fill buckets of 8, 64 and 224; the last is beyond what wgmma's kernels take,
// so that its graph holds cuBLASLt's.
TEST_CASE(
    "a batch of any size gives the answers of single sequences, up to the order of additions") {
  if (!has_gpu()) return;
  for (const auto activations :
       {engine::ActivationType::kFloat16, engine::ActivationType::kBFloat16}) {
    const std::vector<Answer> alone =
        answers({.batch = 1, .is_deterministic = false, .activations = activations}, kRequests);
    const bool is_half = activations == engine::ActivationType::kFloat16;
    // The RMS that goals.md allows a run's logits; two runs are off independently. No logit is off by more
    // than kNoiseFactor times that, in either run.
    const double allowed = (is_half ? 2e-3 : 1e-2) * logit_size();
    const double noise = std::sqrt(2.0) * allowed;
    const double tolerance = 2.0 * test::kNoiseFactor * allowed;
    for (const int batch : {3, 8, 64, 200}) {
      CAPTURE(batch);
      const std::vector<Answer> together =
          answers({.batch = batch, .is_deterministic = false, .activations = activations},
                  std::min(kRequests, 4 * batch));
      int n_parted = 0;
      int n = 0;
      double squares = 0.0;
      double worst = 0.0;
      for (std::size_t i = 0; i < together.size(); ++i) {
        REQUIRE(together[i].tokens.size() == kAnswer);
        std::size_t t = 0;
        for (; t < kAnswer && together[i].tokens[t] == alone[i].tokens[t]; ++t) {
          const double distance = std::abs(together[i].logprobs[t] - alone[i].logprobs[t]);
          worst = std::max(worst, distance);
          squares += distance * distance;
          ++n;
        }
        if (t == kAnswer) continue;
        // Two tokens were nearly as good: each run took the better of its own.
        ++n_parted;
        worst =
            std::max<double>(worst, std::abs(together[i].logprobs[t] - alone[i].logprobs[t]) / 2);
      }
      CHECK(std::sqrt(squares / n) <= noise);
      CHECK(worst <= tolerance);
      CHECK(n_parted <= static_cast<int>(together.size()) / (is_half ? 4 : 1));
    }
  }
}

TEST_CASE("deterministic: tokens and log probabilities have the same bits in a batch of any size") {
  if (!has_gpu()) return;
  for (const auto activations :
       {engine::ActivationType::kFloat16, engine::ActivationType::kBFloat16}) {
    for (const int policy : {0, 4}) {
      const auto with = [&](int batch) {
        return Setup{.quant_policy = policy, .batch = batch, .activations = activations};
      };
      const std::vector<Answer> alone = answers(with(1), kRequests);
      CHECK_FALSE(alone[0].has_bits_of(alone[1]));
      for (const int batch : {2, 3, 8, 64, 65, 200}) {
        CAPTURE(batch);
        const std::vector<Answer> together = answers(with(batch), std::min(kRequests, 4 * batch));
        int n_different = 0;
        for (std::size_t i = 0; i < together.size(); ++i)
          n_different += together[i].has_bits_of(alone[i]) ? 0 : 1;
        CHECK(n_different == 0);
      }
    }
  }
}

TEST_CASE("penalties are of a sequence's own tokens, whoever had its slot before") {
  if (!has_gpu()) return;
  constexpr int kVocab = 97;
  const auto weights = [] { return cases::tiny_weights(cases::tiny_config(), 1); };
  const auto penalised = [](int i) {
    engine::Request r = request(i);
    r.max_new_tokens = kAnswer;
    r.sampling.repetition_penalty = i % 4 == 0 ? 1.4f : 1.0f;
    r.sampling.presence_penalty = i % 4 == 1 ? 1.1f : 0.0f;
    r.sampling.frequency_penalty = i % 4 >= 1 ? 0.6f : 0.0f;
    return r;
  };
  constexpr int kPenalised = 24;
  engine::Engine engine = make_engine({.batch = 5}, weights());
  std::vector<std::vector<int>> tokens(kPenalised);
  for (int i = 0; i < kPenalised; ++i) {
    tokens[static_cast<std::size_t>(i)] = penalised(i).prompt;
    (void)engine.submit(penalised(i), [&to = tokens[static_cast<std::size_t>(i)]](
                                          const engine::TokenEvent& e) { to.push_back(e.token); });
  }
  while (engine.step()) {
  }
  // The same logits, outside any batch, and the sampler of the definition.
  engine::Engine other = make_engine({.batch = 1}, weights());
  const std::vector<std::int32_t> pages = {0, 1, 2};
  int n_changed = 0;
  for (int i = 0; i < kPenalised; ++i) {
    CAPTURE(i);
    const engine::Request r = penalised(i);
    const std::span<const int> sequence(tokens[static_cast<std::size_t>(i)]);
    const std::size_t n_prompt = r.prompt.size();
    REQUIRE(sequence.size() == n_prompt + kAnswer);
    std::vector<float> logits(sequence.size() * kVocab);
    other.executor().logits({.slot = 0,
                             .position = 0,
                             .ids = sequence,
                             .rope_base = cases::tiny_config().rope.base,
                             .page_ids = pages},
                            logits.data());
    kernels::Sampler sampler;
    for (std::size_t n = n_prompt; n < sequence.size(); ++n) {
      const std::span<float> row(logits.data() + (n - 1) * kVocab, kVocab);
      const int unchanged = kernels::argmax(row);
      const int expected = sampler.sample(
          row, r.sampling, {.tokens = sequence.first(n), .n_prompt = static_cast<int>(n_prompt)});
      CHECK(sequence[n] == expected);
      n_changed += expected != unchanged;
    }
  }
  CHECK(n_changed > kPenalised);  // penalties matter here
}
