/// \file  AWQ's packed words ("gemm" version, as AutoAWQ and LMDeploy write them) <-> plain rows.
///        Source: the layout of AutoAWQ checkpoints.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/quant/weight_format.hpp>

namespace lmd::quant {

/// The nibble (bits 4 p .. 4 p + 3) of a word that holds column c of its 8 neighbouring output
/// features: even columns lie in the low half, odd ones in the high half. A function, as device code
/// cannot read a table of the host.
[[nodiscard]] LMD_HD constexpr int awq_nibble(int c) {
  return c / 2 + 4 * (c % 2);
}
static_assert(
    [] {
      constexpr int kColumn[8] = {0, 2, 4, 6, 1, 3, 5, 7};  // of nibble p, as AutoAWQ lists them
      for (int p = 0; p < 8; ++p)
        if (awq_nibble(kColumn[p]) != p) return false;
      return true;
    }(),
    "checkpoints interleave the columns in AutoAWQ's order");

/// Code of column c (0 .. 7) of a packed word.
[[nodiscard]] LMD_HD constexpr std::uint32_t awq_code(std::uint32_t word, int c) {
  return word >> (4 * awq_nibble(c)) & 15u;
}

/// One packed word from the codes of 8 columns.
[[nodiscard]] inline std::uint32_t awq_word(const std::uint32_t (&codes)[8]) {
  std::uint32_t word = 0;
  for (int c = 0; c < 8; ++c)
    word |= (codes[c] & 15u) << (4 * awq_nibble(c));
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
