/// \file  Where the codes of one tile (64 tokens x head_dim) lie. Their meaning is quant's business.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/core/config.hpp>

#include <cstdint>

namespace lmd::cache {

inline constexpr int kPageTokens = 64;

/// Token after token, element after element, low bits first:
///
///   bit   7 6 5 4 3 2 1 0
///   int4 |  d=1  |  d=0  |        int8 |      d=0      |
///
/// What Host and Cpu use for values: a weighted sum over tokens runs along the elements.
/// Cuda brings tiles in the order of its MMA fragments, with the same members; `load_code` and
/// `store_code` serve every layout.
template <int Bits, int HeadDim>
struct TokenMajorTile {
  static constexpr int kBits = Bits;
  static constexpr int kBytes = kPageTokens * HeadDim * Bits / 8;
  static LMD_HD int first_bit(int t, int d) { return (t * HeadDim + d) * Bits; }
  /// Place of the parameters of token t among those of the page's tokens.
  static LMD_HD int token_params_at(int t) { return t; }
};

/// Element after element, token after token: what Host and Cpu use for keys. 64 dot products with
/// one query run along the tokens, so no sum across SIMD lanes is ever needed.
template <int Bits, int HeadDim>
struct ChannelMajorTile {
  static constexpr int kBits = Bits;
  static constexpr int kBytes = kPageTokens * HeadDim * Bits / 8;
  static LMD_HD int first_bit(int t, int d) { return (d * kPageTokens + t) * Bits; }
  static LMD_HD int token_params_at(int t) { return t; }
};

/// Where element (t, d) of one head's open page lies, in elements: what Host and Cpu use.
struct PlainOpenOrder {
  static LMD_HD int key_at(int t, int d, int /*head_dim*/) { return d * kPageTokens + t; }
  static LMD_HD int value_at(int t, int d, int head_dim) { return t * head_dim + d; }
};

template <class Tile>
LMD_HD std::uint32_t load_code(const std::uint8_t* tile, int t, int d) {
  const int at = Tile::first_bit(t, d);
  if constexpr (Tile::kBits == 16) {
    return tile[at / 8] | static_cast<std::uint32_t>(tile[at / 8 + 1]) << 8;
  } else {
    return (static_cast<std::uint32_t>(tile[at / 8]) >> (at % 8)) & ((1u << Tile::kBits) - 1);
  }
}

/// Elements that share a byte must be stored by one thread.
template <class Tile>
LMD_HD void store_code(std::uint8_t* tile, int t, int d, std::uint32_t code) {
  const int at = Tile::first_bit(t, d);
  std::uint8_t& low = tile[at / 8];
  if constexpr (Tile::kBits == 16) {
    low = static_cast<std::uint8_t>(code);
    tile[at / 8 + 1] = static_cast<std::uint8_t>(code >> 8);
  } else {
    const std::uint32_t mask = ((1u << Tile::kBits) - 1) << (at % 8);
    low = static_cast<std::uint8_t>((low & ~mask) | (code << (at % 8) & mask));
  }
}

}  // namespace lmd::cache
