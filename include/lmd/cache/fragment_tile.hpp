/// \file  Tiles in the order of tensor-core fragments: the Cuda backend's pages.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/cache/tile.hpp>

namespace lmd::cache {

namespace detail {

/// Bit of a code in a tile of m16n8k16 A fragments. Lane 4 g + t of a warp holds, for each step,
/// elements e (0 .. 3) of row g and of row g + 8 (`upper`). A vector of 16 bytes holds 16 / Bits
/// steps of a lane, and the 32 vectors of a warp lie side by side. Codes of 4 and 8 bits stand within
/// their word in the order that masks and shifts undo: see quant/fast_decode.cuh.
///
/// 16-bit elements are core matrices, 8 rows of 16 bytes one after another, which tensor-core products
/// of sm_90a read as they lie: a row of them side by side for each 8 rows of the `Steps` steps that
/// make up the columns. Row g of a step's matrix has elements e, e + 1 of thread 0, then of thread 1.
template <int Bits, int Steps>
LMD_HD int fragment_bit(int step, int row, int t, int e) {
  const int lane = row % 8 * 4 + t;
  const int upper = row / 8;
  if constexpr (Bits == 4) {
    return ((step / 4 * 32 + lane) * 4 + step % 4) * 32 + (e % 2 * 4 + e / 2 * 2 + upper) * 4;
  } else if constexpr (Bits == 8) {
    return ((step / 2 * 32 + lane) * 16 + step % 2 * 8 + upper * 4 + e % 2 * 2 + e / 2) * 8;
  } else {
    static_assert(Bits == 16, "fragments hold 4, 8 or 16 bits");
    const int matrix = (step / Steps * 2 + upper) * 2 * Steps + step % Steps * 2 + e / 2;
    return (matrix * 64 + row % 8 * 8 + t * 2 + e % 2) * 16;
  }
}

/// Parameters of 16 tokens side by side, pairs of rows (g, g + 8) together.
LMD_HD int fragment_token_params_at(int t) {
  return t % 16 / 4 * 16 + t / 16 * 4 + t % 4;
}

}  // namespace detail

/// Keys: rows are tokens, 16 a tile. Row r of token tile i is token 16 (r % 8 / 2) + 4 i +
/// 2 (r % 2) + r / 8: after the product with the queries and a transposition, a thread then holds
/// 16 neighbouring tokens, in the order in which the value tile wants them.
template <int Bits, int HeadDim>
struct FragmentKeyTile {
  static constexpr int kBits = Bits;
  static constexpr int kBytes = kPageTokens * HeadDim * Bits / 8;
  static LMD_HD int first_bit(int t, int d) {
    const int row = t / 16 * 2 + t % 4 / 2 + t % 2 * 8;
    const int step = t % 16 / 4 * (HeadDim / 16) + d / 32 * 2 + d % 8 / 4;
    return detail::fragment_bit<Bits, HeadDim / 16>(step, row, d % 32 / 8, d % 4);
  }
  static LMD_HD int token_params_at(int t) { return detail::fragment_token_params_at(t); }
};

/// Values: rows are elements of the head, 16 a tile; the 16 tokens of a step are those of one token
/// tile of the keys.
template <int Bits, int HeadDim>
struct FragmentValueTile {
  static constexpr int kBits = Bits;
  static constexpr int kBytes = kPageTokens * HeadDim * Bits / 8;
  static LMD_HD int first_bit(int t, int d) {
    const int step = t % 16 / 4 * (HeadDim / 16) + d / 16;
    return detail::fragment_bit<Bits, 1>(step, d % 16, t / 16, t % 4 / 2 + t % 2 * 2);
  }
  static LMD_HD int token_params_at(int t) { return detail::fragment_token_params_at(t); }
};

/// The open page in quarters of 16 tokens, each contiguous: keys token after token, values element
/// after element, so that both are read as fragments by vectors.
struct FragmentOpenOrder {
  static LMD_HD int key_at(int t, int d, int head_dim) { return t * head_dim + d; }
  static LMD_HD int value_at(int t, int d, int head_dim) {
    return (t / 16 * head_dim + d) * 16 + t % 16;
  }
};

}  // namespace lmd::cache
