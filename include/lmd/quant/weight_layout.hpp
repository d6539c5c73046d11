/// \file  Where weight codes and group parameters lie. Their meaning is weight_format.hpp's.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/quant/weight_format.hpp>

#include <cstddef>

namespace lmd::quant {

/// Codes of one output feature side by side, low bits first:
///
///   byte b, 4 bits:  low nibble = input 2b, high nibble = input 2b + 1
///
/// The order of checkpoints.
struct PlainOrder {
  template <int Bits>
  static LMD_HD std::int64_t first_bit(std::int64_t l) {
    return l * Bits;
  }
};

/// As PlainOrder, but 4-bit codes are paired 16 apart within each 32 inputs:
///
///   byte b of 16:  low nibble = input b, high nibble = input b + 16
///
/// so that 16 bytes spread over a register give 16 neighbours by a mask and 16 more by a shift.
/// The order of the Cpu backend (and of GGUF).
struct PairedOrder {
  template <int Bits>
  static LMD_HD std::int64_t first_bit(std::int64_t l) {
    if constexpr (Bits != 4) return l * Bits;
    return (l / 32 * 16 + l % 16) * 8 + l % 32 / 16 * 4;
  }
};

/// A matrix [n out, k in] of one format, row by row; parameters [n, k / group].
/// Rows are whole bytes: k is a multiple of the group, and of 32 under PairedOrder.
template <WeightFormat W, class Order = PlainOrder>
struct RowWeights {
  using Format = W;
  const std::uint8_t* codes = nullptr;         ///< [n, k * kBits / 8] bytes
  const typename W::Params* params = nullptr;  ///< [n, k / kGroupSize]
  int k = 0;                                   ///< input features
  int n = 0;                                   ///< output features

  [[nodiscard]] static std::int64_t row_bytes(int k) { return std::int64_t{k} * W::kBits / 8; }

  [[nodiscard]] LMD_HD std::uint32_t code(int j, int l) const {
    const std::int64_t bit = Order::template first_bit<W::kBits>(l);
    const std::uint8_t* at = codes + std::int64_t{j} * k * W::kBits / 8 + bit / 8;
    if constexpr (W::kBits <= 8) {
      return (static_cast<std::uint32_t>(*at) >> (bit % 8)) & ((1u << W::kBits) - 1);
    } else {
      std::uint32_t code = 0;
      for (int b = 0; b < W::kBits / 8; ++b)
        code |= static_cast<std::uint32_t>(at[b]) << (8 * b);
      return code;
    }
  }

  /// The weight from input feature l to output feature j.
  [[nodiscard]] LMD_HD float weight(int j, int l) const {
    if constexpr (W::kGroupSize == 0) {
      return W::decode(code(j, l), {});
    } else {
      return W::decode(code(j, l),
                       params[std::int64_t{j} * (k / W::kGroupSize) + l / W::kGroupSize]);
    }
  }
};

/// Moves the codes of whole rows of `n_codes` 4-bit codes from PlainOrder to PairedOrder in place.
/// `n_codes` is a multiple of 32.
inline void pair_nibbles(std::uint8_t* codes, std::int64_t n_codes) {
  for (std::int64_t group = 0; group < n_codes / 32; ++group) {
    std::uint8_t* at = codes + group * 16;
    std::uint8_t plain[32];
    for (std::ptrdiff_t b = 0; b < 16; ++b) {
      plain[2 * b] = at[b] & 15;
      plain[2 * b + 1] = at[b] >> 4;
    }
    for (int b = 0; b < 16; ++b)
      at[b] = static_cast<std::uint8_t>(plain[b] | plain[b + 16] << 4);
  }
}

}  // namespace lmd::quant
