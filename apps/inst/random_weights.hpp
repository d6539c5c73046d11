/// \file  Weights for measurements: random over all codes, of a size that keeps activations sane.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/core/thread_pool.hpp>
#include <lmd/model/config.hpp>
#include <lmd/model/load_weights.hpp>
#include <lmd/model/weights.hpp>

#include <cmath>
#include <cstring>
#include <string>

namespace lmd::apps {

/// Makes a decoder's matrices in one format. Values are uniform with the deviation 1 / sqrt(k), so
/// that a linear layer keeps the size of its input.
class RandomWeights {
 public:
  RandomWeights(ThreadPool* pool, model::Progress progress, std::int64_t total_bytes)
      : pool_(pool), progress_(std::move(progress)), total_bytes_(total_bytes) {}

  /// `format` numbers one of quant::WeightFormats.
  [[nodiscard]] model::Matrix matrix(int format, int n, int k) {
    model::Matrix m;
    m.format = format;
    m.n = n;
    m.k = k;
    int i = 0;
    for_each_type(quant::WeightFormats{}, [&](auto t) {
      if (i++ == format) fill<typename decltype(t)::type>(m);
    });
    done_bytes_ += static_cast<std::int64_t>(m.codes.size_bytes() + m.params.size_bytes());
    if (progress_) progress_(done_bytes_, total_bytes_);
    return m;
  }

 private:
  static std::uint64_t random_bits(std::uint64_t i) {  // the finaliser of SplitMix64
    i = (i + 1) * 0x9e3779b97f4a7c15u;
    i = (i ^ (i >> 30)) * 0xbf58476d1ce4e5b9u;
    i = (i ^ (i >> 27)) * 0x94d049bb133111ebu;
    return i ^ (i >> 31);
  }

  template <class W>
  void fill(model::Matrix& m) {
    m.codes = Buffer<std::uint8_t>(std::int64_t{m.n} * m.k * W::kBits / 8);
    const float spread = std::sqrt(3.0f / static_cast<float>(m.k));  // uniform in +- spread
    const std::uint64_t first = ++matrices_ << 40;
    parallel_ranges(pool_, m.codes.size() / 8, 64, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t i = begin; i < end; ++i) {
        const std::uint64_t bits = random_bits(first + static_cast<std::uint64_t>(i));
        const std::uint64_t word = W::kGroupSize > 0 ? bits : plain<W>(bits, spread);
        std::memcpy(m.codes.data() + i * 8, &word, 8);
      }
    });
    if constexpr (W::kGroupSize > 0) fill_params<W>(m, spread);
  }

  /// 8 bytes of numbers in +- spread.
  template <class W>
  static std::uint64_t plain(std::uint64_t bits, float spread) {
    std::uint64_t word = 0;
    for (int b = 0; b < 64; b += W::kBits) {
      const auto part = static_cast<float>(bits >> b & 0xffff);
      const float x = (part / 32768.0f - 1.0f) * spread;
      std::uint32_t code = std::bit_cast<std::uint32_t>(x);
      if constexpr (std::is_same_v<W, quant::WeightHalf>) code = to_half(x).bits;
      if constexpr (std::is_same_v<W, quant::WeightBFloat16>) code = to_bfloat16(x).bits;
      word |= static_cast<std::uint64_t>(code) << b;
    }
    return word;
  }

  template <class W>
  static void fill_params(model::Matrix& m, float spread) {
    using Params = typename W::Params;
    const std::int64_t groups = std::int64_t{m.n} * (m.k / W::kGroupSize);
    m.params = Buffer<std::uint8_t>(groups * static_cast<std::int64_t>(sizeof(Params)));
    auto* params = reinterpret_cast<Params*>(m.params.data());
    const float top = W::kBits == 8 ? 127.0f : 7.5f;
    for (std::int64_t g = 0; g < groups; ++g) {
      params[g].scale = to_half(spread / top);
      if constexpr (requires { params[g].zero; }) params[g].zero = g % 2 == 0 ? 8 : 7;
      if constexpr (requires { params[g].minimum; }) params[g].minimum = to_half(-spread);
    }
  }

  ThreadPool* pool_;
  model::Progress progress_;
  std::int64_t done_bytes_ = 0;
  std::int64_t total_bytes_;
  std::uint64_t matrices_ = 0;
};

/// Embedding and head at 16 bit where the layers are quantised, as checkpoints have them.
[[nodiscard]] inline model::DecoderWeights random_decoder(const model::ModelConfig& c,
                                                          int layer_format,
                                                          int table_format,
                                                          RandomWeights& random) {
  const auto ones = [&c] {
    Buffer<float> norm(c.hidden_size);
    std::fill(norm.begin(), norm.end(), 1.0f);
    return norm;
  };
  model::DecoderWeights w;
  w.embedding = random.matrix(table_format, c.vocab_size, c.hidden_size);
  for (int l = 0; l < c.n_layers; ++l) {
    model::LayerWeights layer;
    layer.attention_norm = ones();
    layer.qkv.push_back(random.matrix(layer_format, c.qkv_size(), c.hidden_size));
    layer.attention_out = random.matrix(layer_format, c.hidden_size, c.q_size());
    layer.mlp_norm = ones();
    layer.gate_up.push_back(random.matrix(layer_format, 2 * c.intermediate_size, c.hidden_size));
    layer.down = random.matrix(layer_format, c.hidden_size, c.intermediate_size);
    w.layers.push_back(std::move(layer));
  }
  w.final_norm = ones();
  if (!c.has_tied_head) w.head = random.matrix(table_format, c.vocab_size, c.hidden_size);
  return w;
}

}  // namespace lmd::apps
