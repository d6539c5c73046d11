/// \file  One token for each row of a batch, host backend: the definition of the operation.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/core/backend.hpp>
#include <lmd/core/math.hpp>
#include <lmd/kernels/sample/sampler.hpp>

#include <cstdint>
#include <vector>

namespace lmd::kernels {

/// What is added to the logit of one token.
struct LogitBias {
  int id = 0;
  float value = 0.0f;
};

/// SamplingParams of one request as plain data that a device can read, validated before. What
/// changes from step to step stands elsewhere, so that writing a row once per request would do.
struct SamplingRow {
  float temperature = 1.0f;  ///< 0: greedy
  float top_p = 1.0f;
  float min_p = 0.0f;
  float repetition_penalty = 1.0f;
  float presence_penalty = 0.0f;
  float frequency_penalty = 0.0f;
  int top_k = 0;     ///< 0: all; 1: greedy
  int n_prompt = 0;  ///< of the tokens, those of the prompt
  int n_bias = 0;
  std::uint64_t seed = 0;
  const int* tokens = nullptr;  ///< [n_tokens] prompt, then answer; read where there are penalties
  const LogitBias* bias = nullptr;  ///< [n_bias] of distinct ids
  /// [ceil(vocab / 32)] as SamplingContext::allowed; null: all tokens
  const std::uint32_t* allowed = nullptr;
};

/// Every pointer, those of the rows too, is to memory of the backend.
struct SampleArgs {
  int* ids = nullptr;                 ///< [m]: the tokens, -1 for logits without an answer
  float* logprobs = nullptr;          ///< [m] log probabilities of the tokens, or null
  const float* logits = nullptr;      ///< [m, vocab], rows `stride` apart
  const SamplingRow* rows = nullptr;  ///< [m]
  const int* n_tokens = nullptr;      ///< [m] tokens before the one that is drawn: its position
  std::int64_t stride = 0;
  int m = 0;
  int vocab = 0;
};

/// Row by row what Sampler draws. The log probability is of the logits after bias and penalties,
/// before mask, temperature and filters; 0 where there is no token.
inline void sample(Host, const SampleArgs& a) {
  Sampler sampler;
  for (int i = 0; i < a.m; ++i) {
    const SamplingRow& row = a.rows[i];
    SamplingParams params{.temperature = row.temperature,
                          .top_k = row.top_k,
                          .top_p = row.top_p,
                          .min_p = row.min_p,
                          .repetition_penalty = row.repetition_penalty,
                          .presence_penalty = row.presence_penalty,
                          .frequency_penalty = row.frequency_penalty,
                          .seed = row.seed};
    for (int b = 0; b < row.n_bias; ++b)
      params.logit_bias.emplace_back(row.bias[b].id, row.bias[b].value);
    const std::vector<int> no_tokens(row.tokens == nullptr ? a.n_tokens[i] : 0);
    TokenLogprobs logprobs;
    SamplingContext context;
    context.tokens = row.tokens == nullptr ? std::span<const int>(no_tokens)
                                           : std::span(row.tokens, a.n_tokens[i]);
    context.n_prompt = row.n_prompt;
    if (row.allowed != nullptr)
      context.allowed = {row.allowed, static_cast<std::size_t>(ceil_div(a.vocab, 32))};
    context.n_logprobs = a.logprobs == nullptr ? -1 : 0;
    context.logprobs = &logprobs;
    const float* logits = a.logits + i * a.stride;
    std::vector<float> changed(logits, logits + a.vocab);
    a.ids[i] = sampler.sample(changed, params, context);
    if (a.logprobs != nullptr) a.logprobs[i] = a.ids[i] < 0 ? 0.0f : logprobs.chosen;
  }
}

}  // namespace lmd::kernels
