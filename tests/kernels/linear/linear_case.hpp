/// \file  Random linear layers in every format, and how far a result may be from Host's.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/kernels/linear/linear.hpp>

#include <cmath>
#include <random>
#include <vector>

namespace lmd::kernels {

/// Rows of random codes (every code) and random parameters. 16-bit weights are normal.
template <quant::WeightFormat W>
struct RandomRows {
  std::vector<std::uint8_t> codes;
  std::vector<typename W::Params> params;
  int n;
  int k;

  RandomRows(int n_rows, int n_columns, std::mt19937& rng)
      : codes(quant::RowWeights<W>::row_bytes(n_columns) * n_rows), n(n_rows), k(n_columns) {
    std::normal_distribution<float> normal(0.0f, 0.05f);
    std::uniform_real_distribution<float> scale(0.004f, 0.012f);
    if constexpr (W::kBits == 16) {
      for (std::size_t i = 0; i < codes.size(); i += 2) {
        const float w = normal(rng);
        const std::uint16_t bits =
            std::is_same_v<W, quant::WeightHalf> ? to_half(w).bits : to_bfloat16(w).bits;
        codes[i] = static_cast<std::uint8_t>(bits);
        codes[i + 1] = static_cast<std::uint8_t>(bits >> 8);
      }
    } else {
      for (auto& byte : codes)
        byte = static_cast<std::uint8_t>(rng());
      params.resize(std::size_t(n) * k / W::kGroupSize);
      for (auto& p : params) {
        const float size = scale(rng) * (W::kBits == 8 ? 1.0f / 16 : 1.0f);
        p.scale = to_half(size);
        if constexpr (requires { p.zero; }) p.zero = static_cast<std::uint8_t>(rng() % 16);
        if constexpr (requires { p.minimum; }) p.minimum = to_half(-8.0f * size + normal(rng));
      }
    }
  }
  [[nodiscard]] quant::RowWeights<W> rows() const { return {codes.data(), params.data(), k, n}; }
  [[nodiscard]] std::vector<std::uint8_t> fragments() const {
    std::vector<std::uint8_t> stream(quant::FragmentWeights<W>::stream_bytes(n, k));
    quant::pack_fragments<W>(rows(), stream.data());
    return stream;
  }
};

/// sum_l |x_l| (|w_jl| + |what a code of 0 means|): what rounding errors of a product scale with.
/// The second term is there because code and zero point are multiplied apart.
template <quant::WeightFormat W>
double magnitude(const quant::RowWeights<W>& w, int j, const std::vector<float>& x) {
  double sum = 0;
  for (int l = 0; l < w.k; ++l) {
    double size = std::abs(w.weight(j, l));
    if constexpr (W::kGroupSize > 0)
      size += std::abs(
          W::decode(0, w.params[std::int64_t{j} * (w.k / W::kGroupSize) + l / W::kGroupSize]));
    sum += std::abs(x[l]) * size;
  }
  return sum;
}

/// Adding k products of 16 a time in tensor cores, which truncate: 2^-22 of the magnitude a step.
inline double sum_error(int k) {
  return (k / 16 + 32) * std::ldexp(1.0, -22);
}
/// One unit in the last place: two roundings of nearly equal numbers may fall apart.
template <Activation T>
constexpr double kUlp = std::is_same_v<T, Half> ? 0x1p-10 : 0x1p-7;

}  // namespace lmd::kernels
