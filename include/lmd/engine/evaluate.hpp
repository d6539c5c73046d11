/// \file  Logits of every position of one sequence: perplexity and comparison with other programs.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/cache/page_table.hpp>
#include <lmd/kernels/sample/sampler_cpu.hpp>
#include <lmd/model/decoder.hpp>

#include <algorithm>
#include <numeric>

namespace lmd::engine {

/// Tokens whose logits are held at a time.
inline constexpr int kEvaluationChunk = 128;

/// Runs one sequence through a decoder of its own, outside any engine.
class Evaluator {
 public:
  /// For sequences of up to `max_tokens` tokens. `decoder` outlives it.
  Evaluator(model::Decoder& decoder, int max_tokens)
      : decoder_(&decoder),
        pool_(cache::sealed_pages(max_tokens) * decoder.geometry().page_bytes()),
        open_(decoder.geometry().open_elements()),
        logits_(std::int64_t{kEvaluationChunk} * decoder.config().vocab_size),
        page_ids_(static_cast<std::size_t>(cache::sealed_pages(max_tokens))) {
    std::iota(page_ids_.begin(), page_ids_.end(), 0);
  }

  /// Calls `f(position, logits)` for every position of `tokens`; `logits` [vocab_size] are those of
  /// the next token and may be changed. The RoPE base is that of a prompt of `n_prompt` tokens, or
  /// of all of them where it is 0.
  template <class F>
  void run(std::span<const int> tokens, F&& f, int n_prompt = 0) {
    const model::ModelConfig& m = decoder_->config();
    const int n = static_cast<int>(tokens.size());
    const double base =
        kernels::dynamic_ntk_base(m.rope.base, m.rope.dynamic_factor, m.max_position, m.head_dim,
                                  n_prompt > 0 ? n_prompt : n);
    const int chunk = std::min(kEvaluationChunk, decoder_->max_rows());
    const std::vector<double> bases(static_cast<std::size_t>(chunk), base);
    std::vector<int> rows(static_cast<std::size_t>(chunk));
    std::iota(rows.begin(), rows.end(), 0);
    std::vector<int> positions(static_cast<std::size_t>(chunk));
    for (int at = 0; at < n; at += chunk) {
      const int size = std::min(chunk, n - at);
      const auto count = static_cast<std::size_t>(size);
      std::iota(positions.begin(), positions.end(), at);
      const model::StepSequence s{.first_row = 0,
                                  .n = size,
                                  .position = at,
                                  .open = open_.data(),
                                  .page_ids = page_ids_.data()};
      decoder_->forward({tokens.subspan(static_cast<std::size_t>(at), count),
                         std::span(positions).first(count), std::span(bases).first(count),
                         std::span(&s, 1), std::span<const int>(rows).first(count), pool_.data()},
                        logits_.data());
      for (int i = 0; i < size; ++i) {
        f(at + i, std::span<float>(logits_.data() + std::int64_t{i} * m.vocab_size,
                                   static_cast<std::size_t>(m.vocab_size)));
      }
    }
  }

 private:
  model::Decoder* decoder_;
  Buffer<std::uint8_t> pool_;
  Buffer<Half> open_;
  Buffer<float> logits_;
  std::vector<std::int32_t> page_ids_;
};

/// -log softmax(logits)[token].
[[nodiscard]] inline double negative_log_likelihood(std::span<const float> logits, int token) {
  return kernels::CpuSampler{}.log_sum_exp(logits) - logits[token];
}

}  // namespace lmd::engine
