/// \file  The forward pass of a LLaMA-shaped decoder on the device.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/cache/geometry.hpp>
#include <lmd/kernels/elementwise/embed.cuh>
#include <lmd/kernels/elementwise/rope.cuh>
#include <lmd/kernels/elementwise/silu_mul.cuh>
#include <lmd/model/config.hpp>
#include <lmd/model/decoder_buffers.cuh>
#include <lmd/model/device_weights.cuh>
#include <lmd/model/linear_memory.cuh>

#include <utility>

namespace lmd::model {

/// Tokens of several sequences that go through the decoder together; a row is a token. Pointers are
/// to device memory, and only counts are values, so that a recorded step can be replayed.
struct DeviceStep {
  const int* ids = nullptr;            ///< [rows] in [0, vocab_size), or -1 - r: drawn[r]
  const int* drawn = nullptr;          ///< what the step in front has drawn
  const int* positions = nullptr;      ///< [rows]
  const double* rope_bases = nullptr;  ///< [rows] base' of each row's sequence
  /// [n_decode] of one token each: rows 0 .. n_decode - 1. Open pages are those of layer 0.
  const kernels::SequenceChunk* decode_chunks = nullptr;
  const kernels::SequenceChunk* prefill_chunks = nullptr;  ///< [n_prefill] the rows behind them
  const kernels::PrefillPage* pages = nullptr;             ///< [n_pages] touched by prefill_chunks
  std::uint8_t* pool = nullptr;                            ///< sealed pages
  int rows = 0;
  int n_decode = 0;
  int n_prefill = 0;
  int n_pages = 0;
};

/// Owns the weights and the activations, not the cache. One step at a time, all of it queued on
/// the stream of `ctx`.
template <Activation T>
class CudaDecoder {
 public:
  CudaDecoder(
      ModelConfig config, DeviceWeights weights, const CudaOps<T>& ops, Cuda ctx, StepLimits limits)
      : config_(std::move(config)),
        weights_(std::move(weights)),
        ops_(ops),
        ctx_(ctx),
        limits_(limits),
        linear_memory_(config_, limits.rows, ctx),
        elements_(config_, limits, ops, ctx.multiprocessors, has_split_gate(weights_)),
        x_(elements_.x, ctx.stream),
        last_(elements_.last, ctx.stream),
        qkv_(elements_.qkv, ctx.stream),
        attended_(elements_.attended, ctx.stream),
        gated_(elements_.gated, ctx.stream),
        gate_up_(elements_.gate_up, ctx.stream),
        rotation_(elements_.rotation, ctx.stream),
        page_scratch_(elements_.page_scratch, ctx.stream),
        partial_(elements_.partial, ctx.stream),
        counters_(elements_.counters, ctx.stream),
        plan_(elements_.plan, ctx.stream) {
    counters_.fill_bytes(0);
    page_scratch_.fill_bytes(0);
  }

  [[nodiscard]] const ModelConfig& config() const { return config_; }
  [[nodiscard]] const char* kv_name() const { return ops_.kv_name; }
  /// Bytes of weights that a step of `rows` rows reads from memory.
  [[nodiscard]] std::int64_t step_weight_bytes(int rows) const {
    return step_bytes(weights_, rows);
  }
  [[nodiscard]] cache::CacheGeometry geometry() const {
    return {config_.n_layers, config_.n_kv_heads, config_.head_dim, ops_.unit_bytes};
  }

  /// Runs the layers; keys and values of the tokens are in the cache afterwards, and full pages are
  /// sealed.
  ///
  ///   x += wo attention(rms_norm(x));   x += down(silu(gate h) * (up h)),  h = rms_norm(x)
  void forward(const DeviceStep& step) {
    LMD_REQUIRE(step.rows <= limits_.rows && step.n_decode + step.n_prefill <= limits_.sequences &&
                    step.n_pages <= limits_.prefill_pages(),
                ErrorCode::kInternal,
                "a step of " + std::to_string(step.rows) + " rows of " +
                    std::to_string(step.n_decode + step.n_prefill) + " sequences, room for " +
                    std::to_string(limits_.rows) + " of " + std::to_string(limits_.sequences));
    plan(step);
    embed(step);
    for (int l = 0; l < config_.n_layers; ++l) {
      const DeviceLayer& w = weights_.layers[static_cast<std::size_t>(l)];
      stacked(w.qkv, {.x = x_.data(), .m = step.rows, .norm_weight = w.attention_norm.data()},
              qkv_.data());
      attend(step, l);
      add(w.attention_out, attended_.data(), step.rows);
      gate(w, step.rows);
      add(w.down, gated_.data(), step.rows);
    }
    seal(step);
  }

  /// logits [n, vocab_size] of the rows `rows` [n] of the last step, or of its first n rows where
  /// `rows` is null. n is at most StepLimits::sequences.
  void write_logits(const int* rows, int n, float* logits) {
    head(n, {.y_f32 = logits, .x = gather(rows, n)});
  }

  /// In place of logits, for greedy choices alone: keys [n, best_parts(vocab_size)] for best_tokens, of the
  /// last step's first n rows.
  void write_best(int n, std::uint64_t* keys) {
    LinearArgs a{.x = x_.data()};
    a.best = keys;
    a.epilogue = kernels::LinearEpilogue::kBest;
    head(n, a);
  }

 private:
  using LinearArgs = kernels::BasicLinearArgs<T>;

  /// The rows `rows` [n], side by side.
  [[nodiscard]] const T* gather(const int* rows, int n) {
    if (rows == nullptr) return x_.data();
    using Rows = kernels::WeightPolicy<quant::NumberFormat<T>>;  // they go as they come
    try_kernel(kernels::embed<Rows, T>(ctx_, {.out = last_.data(),
                                              .ids = rows,
                                              .codes = reinterpret_cast<std::uint8_t*>(x_.data()),
                                              .m = n,
                                              .n = limits_.rows,
                                              .k = config_.hidden_size}),
               "rows of logits", n, config_.hidden_size);
    return last_.data();
  }

  void head(int n, LinearArgs a) {
    const DeviceMatrix& w = weights_.head.n > 0 ? weights_.head : weights_.embedding;
    a.m = n;
    a.y_stride = w.n;
    a.norm_weight = weights_.final_norm.data();
    linear(w, a);
  }

  /// As try_kernel, of a kernel for the KV scheme. Names are put together for errors alone.
  void try_kv_kernel(cudaError_t error, const char* kernel, int m, int n) const {
    if (error == cudaSuccess) return;
    try_kernel(error, (std::string(kernel) + ", KV " + ops_.kv_name).c_str(), m, n);
  }

  /// Before everything else: decode attention reads it while the kernel in front of it runs.
  void plan(const DeviceStep& step) {
    if (step.n_decode == 0) return;
    try_kv_kernel(ops_.decode_plan(ctx_, {.plan = plan_.data(),
                                          .chunks = step.decode_chunks,
                                          .n_chunks = step.n_decode,
                                          .kv_heads = config_.n_kv_heads}),
                  "decode plan", step.n_decode, config_.n_kv_heads);
  }

  void embed(const DeviceStep& step) {
    const DeviceMatrix& table = weights_.embedding;
    try_kernel(kernels::rope_rotation(ctx_, {.rotation = rotation_.data(),
                                             .positions = step.positions,
                                             .bases = step.rope_bases,
                                             .position_scale = 1.0 / config_.rope.linear_factor,
                                             .n = step.rows,
                                             .head_dim = config_.head_dim}),
               "rope_rotation", step.rows, config_.head_dim);
    try_kernel(ops_.formats[static_cast<std::size_t>(table.format)].embed(
                   ctx_, {.out = x_.data(),
                          .ids = step.ids,
                          .codes = table.stream.data(),
                          .m = step.rows,
                          .n = table.n,
                          .k = table.k,
                          .drawn = step.drawn}),
               kernel_name<T>("embed", table.format).c_str(), step.rows, table.k);
  }

  void linear(const DeviceMatrix& w, const LinearArgs& where) {
    LinearArgs a = where;
    a.codes = w.stream.data();
    a.bias = w.bias.data();
    a.n = w.n;
    a.k = w.k;
    a.x_stride = w.k;
    a.norm_eps = config_.rms_eps;
    const cudaError_t error = ops_.formats[static_cast<std::size_t>(w.format)].linear(
        ctx_, a, linear_memory_.workspace());
    if (error == cudaSuccess) return;
    const std::string kernel = kernel_name<T>("linear", w.format) + ", x [" + std::to_string(a.m) +
                               ", " + std::to_string(w.k) + "], w";
    try_kernel(error, kernel.c_str(), w.n, w.k);
  }

  /// y = [parts] x: the outputs of the parts side by side in each row.
  void stacked(const std::vector<DeviceMatrix>& parts, LinearArgs a, T* y) {
    a.y_stride = 0;
    for (const DeviceMatrix& part : parts)
      a.y_stride += part.n;
    a.y = y;
    for (const DeviceMatrix& part : parts) {
      linear(part, a);
      a.y += part.n;
    }
  }

  /// The residual stream: x_ += w input.
  void add(const DeviceMatrix& w, const T* input, int m) {
    linear(w, {.y = x_.data(),
               .x = input,
               .m = m,
               .y_stride = w.n,
               .epilogue = kernels::LinearEpilogue::kAdd});
  }

  /// gated_ = silu(gate h) * (up h),  h = rms_norm(x_)
  void gate(const DeviceLayer& w, int m) {
    LinearArgs a{.x = x_.data(), .m = m, .norm_weight = w.mlp_norm.data()};
    if (w.gate_up.size() == 1) {
      a.y = gated_.data();
      a.y_stride = config_.intermediate_size;
      a.epilogue = kernels::LinearEpilogue::kSiluMul;
      linear(w.gate_up[0], a);
      return;
    }
    stacked(w.gate_up, a, gate_up_.data());
    try_kernel(
        kernels::silu_mul<T>(ctx_, {gated_.data(), gate_up_.data(), m, config_.intermediate_size}),
        "silu_mul", m, config_.intermediate_size);
  }

  void attend(const DeviceStep& step, int l) {
    const cache::CacheGeometry g = geometry();
    kernels::BasicAttentionStepArgs<T> a{.out = attended_.data(),
                                         .qkv = qkv_.data(),
                                         .rotation = rotation_.data(),
                                         .chunks = step.decode_chunks,
                                         .pool = step.pool + l * g.layer_bytes(),
                                         .page_bytes = g.page_bytes(),
                                         .n_chunks = step.n_decode,
                                         .heads = config_.n_heads,
                                         .kv_heads = config_.n_kv_heads};
    if (step.n_decode > 0) {
      try_kv_kernel(ops_.decode_step(ctx_, {.step = a,
                                            .open_at = g.open_keys_at(l),
                                            .workspace = {.partial = partial_.data(),
                                                          .counters = counters_.data(),
                                                          .plan = plan_.data()}}),
                    "decode attention", step.n_decode, config_.head_dim);
    }
    if (step.n_prefill == 0) return;
    a.chunks = step.prefill_chunks;
    a.n_chunks = step.n_prefill;
    try_kv_kernel(ops_.prefill_step(ctx_, {.step = a,
                                           .open_at = g.open_keys_at(l),
                                           .pages = step.pages,
                                           .n_pages = step.n_pages,
                                           .scratch = page_scratch_.data()}),
                  "prefill attention", step.rows, config_.head_dim);
  }

  /// Pages that decoding has filled, in all layers at once; prefill_step seals its own.
  void seal(const DeviceStep& step) {
    if (step.n_decode == 0) return;
    const cache::CacheGeometry g = geometry();
    try_kv_kernel(ops_.seal_step(ctx_, {.chunks = step.decode_chunks,
                                        .n_chunks = step.n_decode,
                                        .layers = config_.n_layers,
                                        .kv_heads = config_.n_kv_heads,
                                        .open_layer_stride = 2 * g.open_tile(),
                                        .pool = step.pool,
                                        .page_bytes = g.page_bytes(),
                                        .layer_bytes = g.layer_bytes()}),
                  "seal", step.n_decode, config_.head_dim);
  }

  ModelConfig config_;
  DeviceWeights weights_;
  CudaOps<T> ops_;
  Cuda ctx_;
  StepLimits limits_;
  LinearMemory linear_memory_;
  DecoderElements elements_;
  DeviceBuffer<T> x_;
  DeviceBuffer<T> last_;
  DeviceBuffer<T> qkv_;
  DeviceBuffer<T> attended_;
  DeviceBuffer<T> gated_;
  DeviceBuffer<T> gate_up_;
  DeviceBuffer<float> rotation_;
  DeviceBuffer<Half> page_scratch_;
  DeviceBuffer<float> partial_;
  DeviceBuffer<int> counters_;
  DeviceBuffer<std::int32_t> plan_;
};

}  // namespace lmd::model
