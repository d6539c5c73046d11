/// \file  Sampling: by hand on few logits, and the Cpu backend against the Host definition.
// SPDX-License-Identifier: Apache-2.0
#include <lmd/kernels/sample/sampler.hpp>
#include <lmd/kernels/sample/sampler_cpu.hpp>

#include <cmath>
#include <limits>
#include <vector>

#include "cases/instruction_sets.hpp"
#include "cases/random.hpp"
#include <doctest/doctest.h>

namespace {

using namespace lmd;
using kernels::CpuSampler;
using kernels::Sampler;
using kernels::SamplingContext;
using kernels::SamplingParams;

constexpr float kInf = std::numeric_limits<float>::infinity();

template <class S>
int sample(std::vector<float> logits, const SamplingParams& p, const SamplingContext& c = {}) {
  return S{}.sample(logits, p, c);
}

/// How often each token comes up over positions 0 .. draws - 1.
template <class S>
std::vector<int> histogram(const std::vector<float>& logits, const SamplingParams& p, int draws) {
  std::vector<int> counts(logits.size());
  const std::vector<int> tokens(static_cast<std::size_t>(draws), 0);
  for (int i = 0; i < draws; ++i) {
    SamplingContext c;
    c.tokens = std::span(tokens).first(static_cast<std::size_t>(i));
    c.n_prompt = i;
    ++counts[static_cast<std::size_t>(sample<S>(logits, p, c))];
  }
  return counts;
}

TEST_CASE_TEMPLATE("greedy takes the lowest id of the largest", S, Sampler, CpuSampler) {
  const SamplingParams greedy{.temperature = 0.0f};
  CHECK(sample<S>({1, 3, 2, 3}, greedy) == 1);
  CHECK(sample<S>({1, 3, 2, 5}, {.top_k = 1}) == 3);
  CHECK(sample<S>({-kInf, -7, -kInf}, greedy) == 1);
  std::vector<float> far(1000, 0.0f);
  far[640] = far[999] = 1.0f;
  CHECK(sample<S>(far, greedy) == 640);
}

TEST_CASE_TEMPLATE("logits without an answer give -1", S, Sampler, CpuSampler) {
  const SamplingParams greedy{.temperature = 0.0f};
  CHECK(sample<S>({1, NAN, 2}, greedy) == -1);
  CHECK(sample<S>({-kInf, -kInf}, greedy) == -1);
  CHECK(sample<S>({1, kInf, 2}, greedy) == -1);
  std::vector<float> late(777, 0.0f);
  late[776] = NAN;
  CHECK(sample<S>(late, {}) == -1);
}

TEST_CASE_TEMPLATE("penalties by hand", S, Sampler, CpuSampler) {
  const std::vector<int> tokens = {0, 1, 2, 2, 2};
  SamplingContext c;
  c.tokens = tokens;
  c.n_prompt = 2;
  std::vector<float> logits = {4, -4, 8, 1};
  S{}.sample(logits, {.temperature = 0.0f, .repetition_penalty = 2.0f}, c);
  CHECK(logits == std::vector<float>{2, -8, 4, 1});  // prompt and answer, each id once
  logits = {4, -4, 8, 1};
  S{}.sample(logits, {.temperature = 0.0f, .presence_penalty = 0.5f, .frequency_penalty = 1.0f}, c);
  CHECK(logits == std::vector<float>{4, -4, 4.5f, 1});  // the answer alone, 3 times token 2
  logits = {4, -4, 8, 1};
  S{}.sample(logits, {.temperature = 0.0f, .logit_bias = {{3, 9.0f}}}, c);
  CHECK(logits[3] == 10.0f);
}

TEST_CASE_TEMPLATE("a repetition penalty of 1e-7 gives numbers", S, Sampler, CpuSampler) {
  const std::vector<int> tokens = {0, 1, 2, 3};
  SamplingContext c;
  c.tokens = tokens;
  std::vector<float> logits = {20, -20, 0, 1e-3f, 5};
  const int token = S{}.sample(logits, {.temperature = 0.7f, .repetition_penalty = 1e-7f}, c);
  CHECK(token == 0);
  for (const float x : logits)
    CHECK(std::isfinite(x));
}

TEST_CASE_TEMPLATE("frequencies follow the softmax", S, Sampler, CpuSampler) {
  // Probabilities 1/2, 1/4, 1/8, 1/8 in places that are not their order.
  const std::vector<float> logits = {std::log(0.125f), std::log(0.5f), std::log(0.125f),
                                     std::log(0.25f)};
  constexpr int kDraws = 4000;
  const std::vector<int> counts = histogram<S>(logits, {.seed = 5}, kDraws);
  for (std::size_t i = 0; i < 4; ++i) {
    const double share = std::exp(double{logits[i]});
    // Five deviations of a binomial distribution.
    CHECK(std::fabs(counts[i] - kDraws * share) < 5.0 * std::sqrt(kDraws * share * (1.0 - share)));
  }
  const std::vector<int> sharp = histogram<S>(logits, {.temperature = 0.5f, .seed = 5}, kDraws);
  const double share = 0.25 / (0.25 + 0.0625 + 2 * 0.015625);
  CHECK(std::fabs(sharp[1] - kDraws * share) < 5.0 * std::sqrt(kDraws * share * (1.0 - share)));
}

TEST_CASE_TEMPLATE("filters leave out what they should", S, Sampler, CpuSampler) {
  const std::vector<float> logits = {std::log(0.125f), std::log(0.5f), std::log(0.125f),
                                     std::log(0.25f)};
  const auto is_drawn = [&](const SamplingParams& p) {
    std::vector<bool> drawn;
    for (const int count : histogram<S>(logits, p, 400))
      drawn.push_back(count > 0);
    return drawn;
  };
  using Drawn = std::vector<bool>;
  CHECK(is_drawn({}) == Drawn{true, true, true, true});
  CHECK(is_drawn({.top_k = 2}) == Drawn{false, true, false, true});
  CHECK(is_drawn({.top_k = 3}) == Drawn{true, true, false, true});  // of equals the lower id
  CHECK(is_drawn({.top_p = 0.7f}) == Drawn{false, true, false, true});
  CHECK(is_drawn({.top_p = 0.8f}) == Drawn{true, true, false, true});
  CHECK(is_drawn({.top_p = 1e-10f}) == Drawn{false, true, false, false});
  CHECK(is_drawn({.min_p = 0.3f}) == Drawn{false, true, false, true});
  CHECK(is_drawn({.min_p = 1.0f}) == Drawn{false, true, false, false});
  // Of three, the best holds 4/7 alone.
  CHECK(is_drawn({.top_k = 3, .top_p = 0.55f}) == Drawn{false, true, false, false});
}

TEST_CASE_TEMPLATE("a draw depends on seed and position alone", S, Sampler, CpuSampler) {
  const std::vector<float> logits = test::random_floats(1000, 3);
  const std::vector<int> tokens(50, 0);
  SamplingContext c;
  c.tokens = tokens;
  S sampler;
  std::vector<float> work = logits;
  const int first = sampler.sample(work, {.seed = 9}, c);
  work = test::random_floats(1000, 4);
  sampler.sample(work, {.seed = 8}, c);
  work = logits;
  CHECK(sampler.sample(work, {.seed = 9}, c) == first);
  int same = 0;
  for (std::uint64_t seed = 0; seed < 20; ++seed)
    same += sample<S>(logits, {.seed = seed}, c) == first ? 1 : 0;
  CHECK(same < 10);
}

TEST_CASE_TEMPLATE("log probabilities are of the logits as adjusted", S, Sampler, CpuSampler) {
  kernels::TokenLogprobs logprobs;
  SamplingContext c;
  c.n_logprobs = 3;
  c.logprobs = &logprobs;
  std::vector<float> logits = {std::log(0.125f), std::log(0.5f), std::log(0.125f), std::log(0.25f)};
  CHECK(S{}.sample(logits, {.temperature = 0.0f}, c) == 1);
  CHECK(logprobs.chosen == doctest::Approx(std::log(0.5)).epsilon(1e-6));
  REQUIRE(logprobs.top.size() == 3);
  CHECK(logprobs.top[0].first == 1);
  CHECK(logprobs.top[1].first == 3);
  CHECK(logprobs.top[2].first == 0);
  CHECK(logprobs.top[2].second == doctest::Approx(std::log(0.125)).epsilon(1e-6));
}

TEST_CASE_TEMPLATE("a mask by hand", S, Sampler, CpuSampler) {
  // 40 tokens, the best of them 7, 33 and 2; allowed are 2, 3 and 33.
  std::vector<float> logits(40, -5.0f);
  logits[7] = 3.0f;
  logits[33] = 2.0f;
  logits[2] = 1.0f;
  const std::vector<std::uint32_t> allowed = {0b1100, 0b10};
  SamplingContext c;
  c.allowed = allowed;
  CHECK(sample<S>(logits, {.temperature = 0.0f}, c) == 33);
  CHECK(sample<S>(logits, {.temperature = 0.0f, .logit_bias = {{2, 1.5f}, {7, 9.0f}}}, c) == 2);
  for (std::uint64_t seed = 0; seed < 100; ++seed) {
    CHECK(sample<S>(logits, {.temperature = 2.0f, .top_k = 3, .seed = seed}, c) != 7);
    // Of the two that the mask leaves, not of the two best: 7 goes before top-k.
    const int one_of_two = sample<S>(logits, {.top_k = 2, .seed = seed}, c);
    CHECK((one_of_two == 33 || one_of_two == 2));
  }
  std::vector<float> changed = logits;
  (void)S{}.sample(changed, {}, c);
  for (int id = 0; id < 40; ++id)
    CHECK(changed[id] == (id == 2 || id == 3 || id == 33 ? logits[id] : -kInf));
}

TEST_CASE_TEMPLATE("a mask takes its share of the softmax", S, Sampler, CpuSampler) {
  // 1/2 is not allowed: the others come with 1/4, 1/8, 1/8 of what is left, 1/2.
  const std::vector<float> logits = {std::log(0.125f), std::log(0.5f), std::log(0.125f),
                                     std::log(0.25f)};
  const std::vector<std::uint32_t> allowed = {0b1101};
  constexpr int kDraws = 4000;
  const std::vector<int> tokens(kDraws, 0);
  std::vector<int> counts(4);
  for (int i = 0; i < kDraws; ++i) {
    SamplingContext c;
    c.tokens = std::span(tokens).first(static_cast<std::size_t>(i));
    c.n_prompt = i;
    c.allowed = allowed;
    ++counts[static_cast<std::size_t>(sample<S>(logits, {.seed = 5}, c))];
  }
  const double shares[] = {0.25, 0.0, 0.25, 0.5};
  for (std::size_t i = 0; i < 4; ++i) {
    // Five deviations of a binomial distribution.
    CHECK(std::fabs(counts[i] - kDraws * shares[i]) <=
          5.0 * std::sqrt(kDraws * shares[i] * (1.0 - shares[i])));
  }
}

TEST_CASE_TEMPLATE("a mask without an answer gives -1", S, Sampler, CpuSampler) {
  const std::vector<std::uint32_t> some = {0b110};
  const std::vector<std::uint32_t> none = {0};
  const std::vector<std::uint32_t> beyond = {0b1000};  // of the vocabulary
  SamplingContext c;
  c.allowed = none;
  CHECK(sample<S>({1, 2, 3}, {}, c) == -1);
  CHECK(sample<S>({1, 2, 3}, {.temperature = 0.0f}, c) == -1);
  c.allowed = beyond;
  CHECK(sample<S>({1, 2, 3}, {}, c) == -1);
  c.allowed = some;
  CHECK(sample<S>({1, -kInf, -kInf}, {}, c) == -1);
  CHECK(sample<S>({1, 2, -kInf}, {}, c) == 1);
  CHECK(sample<S>({NAN, 2, 3}, {}, c) == -1);  // not allowed, but no number
}

TEST_CASE_TEMPLATE("log probabilities are the model's, whatever a mask allows",
                   S,
                   Sampler,
                   CpuSampler) {
  kernels::TokenLogprobs logprobs;
  const std::vector<std::uint32_t> allowed = {0b0101};
  SamplingContext c;
  c.n_logprobs = 2;
  c.logprobs = &logprobs;
  c.allowed = allowed;
  std::vector<float> logits = {std::log(0.125f), std::log(0.5f), std::log(0.125f), std::log(0.25f)};
  CHECK(S{}.sample(logits, {.temperature = 0.0f}, c) == 0);
  CHECK(logprobs.chosen == doctest::Approx(std::log(0.125)).epsilon(1e-6));
  REQUIRE(logprobs.top.size() == 2);
  CHECK(logprobs.top[0].first == 1);
  CHECK(logprobs.top[0].second == doctest::Approx(std::log(0.5)).epsilon(1e-6));
  CHECK(logprobs.top[1].first == 3);
}

/// Tokens may differ only where the draw falls on the border between two.
void check_against_host(
    CpuIsa isa, int vocab, float spread, const SamplingParams& params, std::uint32_t mask = ~0u) {
  std::vector<float> logits = test::random_floats(vocab, 21);
  for (float& x : logits)
    x *= spread;
  CpuSampler cpu(isa);
  Sampler host;
  const std::vector<int> tokens = {1 % vocab, 2 % vocab, 3 % vocab, 3 % vocab};
  SamplingContext c;
  c.tokens = tokens;
  c.n_prompt = 1;
  const std::vector<std::uint32_t> allowed(static_cast<std::size_t>((vocab + 31) / 32), mask);
  if (mask != ~0u) c.allowed = allowed;
  int different = 0;
  constexpr int kDraws = 40;
  for (int i = 0; i < kDraws; ++i) {
    SamplingParams p = params;
    p.seed = static_cast<std::uint64_t>(i);
    std::vector<float> a = logits;
    std::vector<float> b = logits;
    different += host.sample(a, p, c) == cpu.sample(b, p, c) ? 0 : 1;
    CHECK(a == b);
  }
  // Sums of `vocab` terms in other orders differ by less than vocab * 2^-24 of the total: 2e-4 for
  // the largest here. Two draws of 40 beside a border would be one chance in 10,000.
  CHECK_MESSAGE(different <= 1, to_string(isa), " vocab ", vocab, " spread ", spread, " top_k ",
                params.top_k, " top_p ", params.top_p, ": ", different);
}

TEST_CASE("sampling on the Cpu backend draws what the Host definition draws") {
  for (const CpuIsa isa : test::runnable_isas()) {
    for (const int vocab : {1, 63, 64, 65, 1000, 4097}) {
      for (const float spread : {0.01f, 1.0f, 5.0f}) {
        check_against_host(isa, vocab, spread, {});
        check_against_host(isa, vocab, spread, {.top_k = 40, .top_p = 0.8f});
        check_against_host(isa, vocab, spread, {.temperature = 0.3f, .top_k = 3000});
        check_against_host(isa, vocab, spread, {.top_p = 0.95f, .presence_penalty = 1.0f});
        check_against_host(isa, vocab, spread, {.temperature = 1.7f, .min_p = 0.05f});
        check_against_host(isa, vocab, spread, {.top_p = 0.9f, .min_p = 0.1f});
        check_against_host(isa, vocab, spread, {}, 0x80000001u);
        check_against_host(isa, vocab, spread, {.top_k = 40, .top_p = 0.8f}, 0x5555aaabu);
        check_against_host(isa, vocab, spread, {.top_p = 0.9f, .min_p = 0.1f}, 0x00010001u);
      }
    }
  }
}

TEST_CASE("parameters outside their range are refused by name") {
  CHECK_THROWS_AS(kernels::validate({.temperature = -1.0f}), Error);
  CHECK_THROWS_AS(kernels::validate({.temperature = NAN}), Error);
  CHECK_THROWS_AS(kernels::validate({.top_p = 0.0f}), Error);
  CHECK_THROWS_AS(kernels::validate({.min_p = 1.5f}), Error);
  CHECK_NOTHROW(kernels::validate({.top_p = 1e-10f}));
  CHECK_NOTHROW(kernels::validate({.repetition_penalty = 1e-7f}));
}

}  // namespace
