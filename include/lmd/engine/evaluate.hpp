/// \file  Logits of every position of one sequence: perplexity and comparison with other programs.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/cache/page_table.hpp>
#include <lmd/core/buffer.hpp>
#include <lmd/core/error.hpp>
#include <lmd/engine/executor.hpp>
#include <lmd/engine/request.hpp>
#include <lmd/kernels/elementwise/rope.hpp>
#include <lmd/kernels/sample/sampler_cpu.hpp>

#include <algorithm>
#include <cmath>
#include <numeric>

namespace lmd::engine {

/// Tokens whose logits are held at a time.
inline constexpr int kEvaluationChunk = 128;

/// Runs sequences through an executor, one after another. They take its first slot and its first
/// pages, so no engine may run on it before they are done, nor reuse what it has cached.
class Evaluator {
 public:
  /// For sequences of up to `max_tokens` tokens, which the executor's memory plan must hold.
  /// `executor` outlives it.
  Evaluator(Executor& executor, int max_tokens)
      : executor_(&executor),
        logits_(std::int64_t{kEvaluationChunk} * executor.model().vocab_size),
        page_ids_(static_cast<std::size_t>(cache::sealed_pages(max_tokens))) {
    std::iota(page_ids_.begin(), page_ids_.end(), 0);
  }

  /// Calls `f(position, logits)` for every position of `tokens`; `logits` [vocab_size] are those of
  /// the next token and may be changed. The RoPE base is that of a prompt of `n_prompt` tokens, or
  /// of all of them where it is 0.
  template <class F>
  void run(std::span<const int> tokens, F&& f, int n_prompt = 0) {
    const model::ModelConfig& m = executor_->model();
    const int n = static_cast<int>(tokens.size());
    const double base =
        kernels::dynamic_ntk_base(m.rope.base, m.rope.dynamic_factor, m.max_position, m.head_dim,
                                  n_prompt > 0 ? n_prompt : n);
    const int chunk = std::min(kEvaluationChunk, executor_->max_rows());
    for (int at = 0; at < n; at += chunk) {
      const int size = std::min(chunk, n - at);
      executor_->logits(
          {.slot = 0,
           .position = at,
           .ids = tokens.subspan(static_cast<std::size_t>(at), static_cast<std::size_t>(size)),
           .rope_base = base,
           .page_ids = page_ids_},
          logits_.data());
      for (int i = 0; i < size; ++i) {
        f(at + i, std::span<float>(logits_.data() + std::int64_t{i} * m.vocab_size,
                                   static_cast<std::size_t>(m.vocab_size)));
      }
    }
  }

 private:
  Executor* executor_;
  Buffer<float> logits_;
  std::vector<std::int32_t> page_ids_;
};

/// -log softmax(logits)[token]. \throws Error(kInternal) when it is not a number.
[[nodiscard]] inline double negative_log_likelihood(std::span<const float> logits, int token) {
  const double nll = kernels::CpuSampler{}.log_sum_exp(logits) - logits[token];
  LMD_REQUIRE(std::isfinite(nll), ErrorCode::kInternal, kNotANumber);
  return nll;
}

}  // namespace lmd::engine
