/// \file  The forward pass of a LLaMA-shaped decoder over a table of operations.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/cache/geometry.hpp>
#include <lmd/kernels/elementwise/rope.hpp>
#include <lmd/model/config.hpp>
#include <lmd/model/ops.hpp>
#include <lmd/model/weights.hpp>

#include <functional>
#include <span>
#include <utility>
#include <vector>

namespace lmd::model {

/// One sequence's share of a step: `n` consecutive tokens.
struct StepSequence {
  int first_row = 0;                       ///< of the step's rows
  int n = 0;                               ///< rows
  int position = 0;                        ///< of the first token
  Half* open = nullptr;                    ///< [geometry.open_elements()] its slot
  const std::int32_t* page_ids = nullptr;  ///< [(position + n) / 64] sealed pages, by position
};

/// Tokens of several sequences that go through the decoder together. A row is a token.
struct DecoderStep {
  std::span<const int> ids;                 ///< [rows] in [0, vocab_size)
  std::span<const int> positions;           ///< [rows]
  std::span<const double> rope_bases;       ///< [rows] base' of each row's sequence
  std::span<const StepSequence> sequences;  ///< each sequence at most once
  std::span<const int> logit_rows;          ///< rows whose logits are wanted, ascending
  std::uint8_t* pool = nullptr;             ///< sealed pages
};

/// Owns the weights and the activations, not the cache. One step at a time.
class Decoder {
 public:
  /// Room for steps of up to `max_rows` rows. Weights are in the order that `ops` read.
  Decoder(ModelConfig config, DecoderWeights weights, Ops<Cpu> ops, Cpu backend, int max_rows)
      : config_(std::move(config)),
        weights_(std::move(weights)),
        ops_(ops),
        backend_(backend),
        max_rows_(max_rows),
        x_(std::int64_t{max_rows} * config_.hidden_size),
        normed_(std::int64_t{max_rows} * config_.hidden_size),
        qkv_(std::int64_t{max_rows} * config_.qkv_size()),
        attended_(std::int64_t{max_rows} * config_.q_size()),
        gate_up_(std::int64_t{max_rows} * 2 * config_.intermediate_size),
        gated_(std::int64_t{max_rows} * config_.intermediate_size),
        rotation_(std::int64_t{max_rows} * config_.head_dim) {}

  [[nodiscard]] const ModelConfig& config() const { return config_; }
  [[nodiscard]] int max_rows() const { return max_rows_; }
  /// Bytes of weights that a step of `rows` rows reads from memory, be it with one logit or more.
  [[nodiscard]] std::int64_t step_weight_bytes(int rows) const {
    return step_bytes(weights_, rows);
  }
  [[nodiscard]] cache::CacheGeometry geometry() const {
    return {config_.n_layers, config_.n_kv_heads, config_.head_dim, ops_.unit_bytes};
  }

  /// Has `report` called after each layer of a step: a long step is known to get on.
  void on_layer(std::function<void()> report) { on_layer_ = std::move(report); }

  /// Runs the step; keys and values of its tokens are in the cache afterwards.
  ///
  ///   x += wo attention(rms_norm(x));   x += down(silu(gate h) * (up h)),  h = rms_norm(x)
  ///
  /// Shapes:  logits [step.logit_rows.size(), vocab_size].
  void forward(const DecoderStep& step, float* logits) {
    const int m = static_cast<int>(step.ids.size());
    LMD_REQUIRE(m <= max_rows_, ErrorCode::kInternal,
                "a step of " + std::to_string(m) + " rows, room for " + std::to_string(max_rows_));
    const Matrix& table = weights_.embedding;
    ops_.formats[table.format].embed(backend_, {.out = x_.data(),
                                                .ids = step.ids.data(),
                                                .codes = table.codes.data(),
                                                .params = table.params.data(),
                                                .m = m,
                                                .n = table.n,
                                                .k = table.k});
    kernels::rope_rotation(Host{}, {.rotation = rotation_.data(),
                                    .positions = step.positions.data(),
                                    .bases = step.rope_bases.data(),
                                    .position_scale = 1.0 / config_.rope.linear_factor,
                                    .n = m,
                                    .head_dim = config_.head_dim});
    for (int l = 0; l < config_.n_layers; ++l) {
      const LayerWeights& w = weights_.layers[l];
      norm(x_.data(), w.attention_norm, m);
      stacked(w.qkv, normed_.data(), qkv_.data(), m);
      attend(step, l);
      add(w.attention_out, attended_.data(), m);
      norm(x_.data(), w.mlp_norm, m);
      stacked(w.gate_up, normed_.data(), gate_up_.data(), m);
      ops_.silu_mul(backend_, {gated_.data(), gate_up_.data(), m, config_.intermediate_size});
      add(w.down, gated_.data(), m);
      if (on_layer_) on_layer_();
    }
    write_logits(step.logit_rows, logits);
  }

 private:
  void norm(float* x, const Buffer<float>& weight, int m) {
    ops_.rms_norm(backend_, {.out = normed_.data(),
                             .x = x,
                             .weight = weight.data(),
                             .eps = config_.rms_eps,
                             .m = m,
                             .n = config_.hidden_size});
  }

  void linear(const Matrix& w, const kernels::LinearArgs& where) {
    kernels::LinearArgs a = where;
    a.codes = w.codes.data();
    a.params = w.params.data();
    a.bias = w.bias.data();
    a.n = w.n;
    a.k = w.k;
    a.x_stride = w.k;
    ops_.formats[w.format].linear(backend_, a);
  }

  /// y = [parts] x: the outputs of the parts side by side in each row.
  void stacked(const std::vector<Matrix>& parts, const float* x, float* y, int m) {
    std::int64_t columns = 0;
    for (const Matrix& part : parts)
      columns += part.n;
    for (const Matrix& part : parts) {
      linear(part, {.y = y, .x = x, .m = m, .y_stride = columns});
      y += part.n;
    }
  }

  /// The residual stream: x_ += w input.
  void add(const Matrix& w, const float* input, int m) {
    linear(w, {.y = x_.data(),
               .x = input,
               .m = m,
               .y_stride = w.n,
               .epilogue = kernels::LinearEpilogue::kAdd});
  }

  void attend(const DecoderStep& step, int l) {
    const cache::CacheGeometry g = geometry();
    chunks_.clear();
    for (const StepSequence& s : step.sequences) {
      chunks_.push_back({.first_row = s.first_row,
                         .n = s.n,
                         .position = s.position,
                         .open_keys = s.open + g.open_keys_at(l),
                         .open_values = s.open + g.open_values_at(l),
                         .page_ids = s.page_ids});
    }
    ops_.attention_step(backend_, {.out = attended_.data(),
                                   .qkv = qkv_.data(),
                                   .rotation = rotation_.data(),
                                   .chunks = chunks_.data(),
                                   .pool = step.pool + l * g.layer_bytes(),
                                   .page_bytes = g.page_bytes(),
                                   .n_chunks = static_cast<int>(chunks_.size()),
                                   .heads = config_.n_heads,
                                   .kv_heads = config_.n_kv_heads});
  }

  /// Only the wanted rows go through the head: it is a fifth of a small model's weights.
  void write_logits(std::span<const int> rows, float* logits) {
    const int hidden = config_.hidden_size;
    for (std::size_t i = 0; i < rows.size(); ++i) {
      const auto to = static_cast<std::int64_t>(i) * hidden;  // to <= from: rows ascend
      std::copy_n(x_.data() + std::int64_t{rows[i]} * hidden, hidden, x_.data() + to);
    }
    const int m = static_cast<int>(rows.size());
    if (m == 0) return;
    norm(x_.data(), weights_.final_norm, m);
    const Matrix& head = weights_.head.n > 0 ? weights_.head : weights_.embedding;
    linear(head, {.y = logits, .x = normed_.data(), .m = m, .y_stride = head.n});
  }

  ModelConfig config_;
  DecoderWeights weights_;
  Ops<Cpu> ops_;
  Cpu backend_;
  int max_rows_;
  std::function<void()> on_layer_;
  Buffer<float> x_;         // [rows, hidden] the residual stream
  Buffer<float> normed_;    // [rows, hidden]
  Buffer<float> qkv_;       // [rows, qkv_size]
  Buffer<float> attended_;  // [rows, q_size]
  Buffer<float> gate_up_;   // [rows, 2 * intermediate]
  Buffer<float> gated_;     // [rows, intermediate]
  Buffer<float> rotation_;  // [rows, head_dim]
  std::vector<kernels::SequenceChunk> chunks_;
};

}  // namespace lmd::model
