/// \file  Weights for measurements: random over all codes, of a size that keeps activations sane.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/core/thread_pool.hpp>
#include <lmd/model/config.hpp>
#include <lmd/model/load_weights.hpp>
#include <lmd/model/weights.hpp>

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstring>
#include <string>
#include <type_traits>
#include <utility>

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
  static constexpr int kLevels = 4096;

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
    const std::array<std::uint32_t, kLevels> levels = plain_codes<W>(spread);
    parallel_ranges(pool_, m.codes.size() / 8, 64, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t i = begin; i < end; ++i) {
        const std::uint64_t bits = random_bits(first + static_cast<std::uint64_t>(i));
        const std::uint64_t word = W::kGroupSize > 0 ? bits : plain<W>(bits, levels);
        std::memcpy(m.codes.data() + i * 8, &word, 8);
      }
    });
    if constexpr (W::kGroupSize > 0) fill_params<W>(m, spread);
  }

  /// Codes of 4096 numbers evenly in +- spread: converting each weight would take most of the time.
  template <class W>
  static std::array<std::uint32_t, kLevels> plain_codes(float spread) {
    std::array<std::uint32_t, kLevels> codes{};
    for (int i = 0; i < kLevels; ++i) {
      const float x = ((static_cast<float>(i) + 0.5f) / (kLevels / 2) - 1.0f) * spread;
      codes[i] = std::bit_cast<std::uint32_t>(x);
      if constexpr (std::is_same_v<W, quant::WeightHalf>) codes[i] = to_half(x).bits;
      if constexpr (std::is_same_v<W, quant::WeightBFloat16>) codes[i] = to_bfloat16(x).bits;
    }
    return codes;
  }

  /// 8 bytes of them.
  template <class W>
  static std::uint64_t plain(std::uint64_t bits, const std::array<std::uint32_t, kLevels>& codes) {
    std::uint64_t word = 0;
    for (int b = 0; b < 64; b += W::kBits)
      word |= static_cast<std::uint64_t>(codes[bits >> b & (kLevels - 1)]) << b;
    return word;
  }

  template <class W>
  void fill_params(model::Matrix& m, float spread) {
    using Params = typename W::Params;
    const std::int64_t groups = std::int64_t{m.n} * (m.k / W::kGroupSize);
    m.params = Buffer<std::uint8_t>(groups * static_cast<std::int64_t>(sizeof(Params)));
    auto* params = reinterpret_cast<Params*>(m.params.data());
    const Half scale = to_half(spread / (W::kBits == 8 ? 127.0f : 7.5f));
    const Half minimum = to_half(-spread);
    parallel_ranges(pool_, groups, 64, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t g = begin; g < end; ++g) {
        params[g].scale = scale;
        if constexpr (requires { params[g].zero; }) params[g].zero = g % 2 == 0 ? 8 : 7;
        if constexpr (requires { params[g].minimum; }) params[g].minimum = minimum;
      }
    });
  }

  ThreadPool* pool_;
  model::Progress progress_;
  std::int64_t done_bytes_ = 0;
  std::int64_t total_bytes_;
  std::uint64_t matrices_ = 0;
};

/// Places in quant::WeightFormats.
struct RandomFormats {
  int layers = -1;
  int tables =
      -1;  ///< embedding and head: 16 bit where the layers are quantised, as files have them
};

/// AWQ's largest group that divides every row of the layers.
[[nodiscard]] inline int awq_format(const model::ModelConfig& c) {
  const auto divides = [&c](int group) {
    return c.hidden_size % group == 0 && c.q_size() % group == 0 &&
           c.intermediate_size % group == 0;
  };
  if (divides(128)) return model::format_index<quant::WeightInt4<128>>();
  if (divides(64)) return model::format_index<quant::WeightInt4<64>>();
  return model::format_index<quant::WeightInt4<32>>();
}

/// \throws Error(kConfig) that lists the known words.
[[nodiscard]] inline RandomFormats random_formats(const std::string& weights,
                                                  const model::ModelConfig& c) {
  const int half = model::format_index<quant::WeightHalf>();
  const int bfloat = model::format_index<quant::WeightBFloat16>();
  const int single = model::format_index<quant::WeightFloat>();
  if (weights == "w4") return {awq_format(c), half};
  if (weights == "w8") return {model::format_index<quant::WeightInt8<32>>(), half};
  if (weights == "f16") return {half, half};
  if (weights == "bf16") return {bfloat, bfloat};
  if (weights == "f32") return {single, single};
  throw Error(ErrorCode::kConfig,
              "--weights " + weights + " is unknown; known: w4 w8 f16 bf16 f32");
}

/// What random_decoder makes.
[[nodiscard]] inline model::WeightShapes random_shapes(const model::ModelConfig& c,
                                                       RandomFormats formats) {
  model::WeightShapes shapes;
  const auto add = [&](int format, int n, int k) { shapes.matrices.push_back({format, n, k}); };
  for (int l = 0; l < c.n_layers; ++l) {
    add(formats.layers, c.qkv_size(), c.hidden_size);
    add(formats.layers, c.hidden_size, c.q_size());
    add(formats.layers, 2 * c.intermediate_size, c.hidden_size);
    add(formats.layers, c.hidden_size, c.intermediate_size);
  }
  for (int table = 0; table < (c.has_tied_head ? 1 : 2); ++table)
    add(formats.tables, c.vocab_size, c.hidden_size);
  shapes.norm_elements = (2 * std::int64_t{c.n_layers} + 1) * c.hidden_size;
  return shapes;
}

[[nodiscard]] inline model::DecoderWeights random_decoder(const model::ModelConfig& c,
                                                          RandomFormats formats,
                                                          RandomWeights& random) {
  const auto ones = [&c] {
    Buffer<float> norm(c.hidden_size);
    std::fill(norm.begin(), norm.end(), 1.0f);
    return norm;
  };
  model::DecoderWeights w;
  w.embedding = random.matrix(formats.tables, c.vocab_size, c.hidden_size);
  for (int l = 0; l < c.n_layers; ++l) {
    model::LayerWeights layer;
    layer.attention_norm = ones();
    layer.qkv.push_back(random.matrix(formats.layers, c.qkv_size(), c.hidden_size));
    layer.attention_out = random.matrix(formats.layers, c.hidden_size, c.q_size());
    layer.mlp_norm = ones();
    layer.gate_up.push_back(random.matrix(formats.layers, 2 * c.intermediate_size, c.hidden_size));
    layer.down = random.matrix(formats.layers, c.hidden_size, c.intermediate_size);
    w.layers.push_back(std::move(layer));
  }
  w.final_norm = ones();
  if (!c.has_tied_head) w.head = random.matrix(formats.tables, c.vocab_size, c.hidden_size);
  return w;
}

}  // namespace lmd::apps
