/// \file  AWQ's packed words ("gemm" version, as AutoAWQ and LMDeploy write them) <-> plain rows.
///        Source: the layout of AutoAWQ checkpoints.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/quant/weight_format.hpp>

namespace lmd::quant {

/// A word holds 8 neighbouring output features; nibble p (bits 4p .. 4p + 3) holds kAwqColumn[p].
inline constexpr int kAwqColumn[8] = {0, 2, 4, 6, 1, 3, 5, 7};
/// The nibble that holds column c.
inline constexpr int kAwqNibble[8] = {0, 4, 1, 5, 2, 6, 3, 7};
static_assert(
    [] {
      for (int c = 0; c < 8; ++c)
        if (kAwqColumn[kAwqNibble[c]] != c) return false;
      return true;
    }(),
    "the two tables are inverses of each other");

/// Code of column c (0 .. 7) of a packed word.
LMD_HD std::uint32_t awq_code(std::uint32_t word, int c) {
  constexpr int kNibble[8] = {0, 4, 1, 5, 2, 6, 3, 7};
  return word >> (4 * kNibble[c]) & 15u;
}

/// One packed word from the codes of 8 columns.
inline std::uint32_t awq_word(const std::uint32_t (&codes)[8]) {
  std::uint32_t word = 0;
  for (int c = 0; c < 8; ++c)
    word |= (codes[c] & 15u) << (4 * kAwqNibble[c]);
  return word;
}

/// Checkpoint tensors of a linear layer [n out, k in] -> plain rows.
template <int GroupSize>
struct AwqTensors {
  const std::uint32_t* qweight = nullptr;  ///< [k, n / 8] words
  const std::uint32_t* qzeros = nullptr;   ///< [k / GroupSize, n / 8] words
  const Half* scales = nullptr;            ///< [k / GroupSize, n]
  int k = 0;                               ///< a multiple of GroupSize
  int n = 0;                               ///< a multiple of 8
};

/// Writes rows in PlainOrder.
///
/// Shapes:  codes [n, k / 2] bytes; params [n, k / GroupSize].
template <int GroupSize>
void unpack_awq(const AwqTensors<GroupSize>& from,
                std::uint8_t* codes,
                typename WeightInt4<GroupSize>::Params* params) {
  const std::int64_t words = from.n / 8;
  const std::int64_t groups = from.k / GroupSize;
  for (std::int64_t word = 0; word < words; ++word) {
    for (std::int64_t l = 0; l < from.k; l += 2) {
      const std::uint32_t even = from.qweight[l * words + word];
      const std::uint32_t odd = from.qweight[(l + 1) * words + word];
      for (int c = 0; c < 8; ++c) {
        codes[((word * 8 + c) * from.k + l) / 2] =
            static_cast<std::uint8_t>(awq_code(even, c) | awq_code(odd, c) << 4);
      }
    }
    for (std::int64_t g = 0; g < groups; ++g) {
      for (int c = 0; c < 8; ++c) {
        const std::int64_t j = word * 8 + c;
        const std::uint32_t zero = awq_code(from.qzeros[g * words + word], c);
        params[j * groups + g] = {from.scales[g * from.n + j], static_cast<std::uint8_t>(zero), 0};
      }
    }
  }
}

}  // namespace lmd::quant
