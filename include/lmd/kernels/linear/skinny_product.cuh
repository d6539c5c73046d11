/// \file  Sizes of a block of the skinny linear layer, and what a warp of it multiplies.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/core/cuda.cuh>
#include <lmd/kernels/linear/linear.hpp>
#include <lmd/kernels/linear/row_params.cuh>
#include <lmd/quant/fast_decode.cuh>

namespace lmd::kernels {

/// Speed only: no tuning changes more than the order of additions.
struct SkinnyTuning {
  int warps = 16;          ///< a block's; each owns a slice of k
  int stages = 4;          ///< copies in flight for each warp
  int stage_bytes = 1088;  ///< about; whole chunks
  int blocks_per_sm = 1;
  int pass_tiles = 4;  ///< between two sums over the warps
};

namespace detail {

inline constexpr int kSkinnyTokens = 8;  // columns of one tensor-core product

/// A block computes some row tiles of 16 outputs. Its warps split k: each streams its slice of every
/// tile through a ring of its own in shared memory, so no warp waits for another until the sums
/// over the slices are put together. Weights do not depend on the kernel before, so the rings are
/// filled before it has ended. Where x is too long for one block, the blocks of a cluster split k.
template <LinearPolicy P, int Tokens, SkinnyTuning (*Tuning)(Arch), bool IsCluster, int Cc = 0>
struct Skinny {
  using W = typename P::Format;
  using T = typename P::Act;
  using F = quant::FragmentWeights<W>;
  using Decoder = quant::FragmentDecoder<W::kBits, T>;
  static constexpr SkinnyTuning kTuning = Tuning(tuned_arch(Cc));
  static constexpr int kWarps = kTuning.warps;
  static constexpr int kThreads = kWarps * 32;
  static constexpr int kStageChunks =
      (kTuning.stage_bytes + F::kChunkBytes / 2) / F::kChunkBytes > 0
          ? (kTuning.stage_bytes + F::kChunkBytes / 2) / F::kChunkBytes
          : 1;
  static constexpr int kStageBytes = kStageChunks * F::kChunkBytes;
  static constexpr int kRingBytes = kTuning.stages * kStageBytes;
  static constexpr int kGroup = W::kGroupSize == 0 ? F::kChunkColumns : W::kGroupSize;
  static constexpr int kGroups = F::kChunkColumns / kGroup;
  static constexpr int kPassTiles = kTuning.pass_tiles;
  static constexpr int kTileSums = F::kTileRows * Tokens;
  static constexpr int kPassSums = kPassTiles * kTileSums;
  static constexpr bool kIsCluster = IsCluster;  ///< else a block is alone
  /// Rows of x 64 bytes apart modulo 128: 8 lanes then read 8 different sets of 4 banks.
  static constexpr int kRowPad = Tokens == 1 ? 0 : 32;

  /// Of a block with `columns` of x at most, for so many tiles and tokens.
  struct Shared {
    std::int64_t barriers, x, x_sums, sums, parts, squares, bytes;  // offsets
    LMD_HD Shared(int columns, int tiles, int tokens) {
      barriers = kWarps * kRingBytes;
      x = barriers + kWarps * kTuning.stages * 8;
      x_sums = x + std::int64_t{columns + kRowPad} * tokens * 2;
      sums = x_sums + std::int64_t{columns / kGroup} * Tokens * 4;
      const int buffers = tiles > kPassTiles ? 2 : 1;
      parts = sums + std::int64_t{kPassSums} * buffers * kWarps * 4;
      squares = parts + (IsCluster ? std::int64_t{kPassSums} * buffers * 4 : 0);
      bytes = squares + Tokens * kWarps * 4;
    }
  };
};

/// acc += the group's scale and zero point (or minimum) applied to its product.
template <class S>
__device__ __forceinline__ void add_group(float (&acc)[4],
                                          const float (&c)[4],
                                          const std::uint8_t* params,
                                          int g,
                                          const float (&x_sum)[2]) {
  using W = typename S::W;
  if constexpr (W::kGroupSize == 0) {
#pragma unroll
    for (int i = 0; i < 4; ++i)
      acc[i] += c[i];
  } else {
    constexpr float kPower[2] = {S::Decoder::kLowerScale, S::Decoder::kUpperScale};
    RowParams<W> rows;
    rows.load(params, g);
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int upper = i / 2;
      const float scale = rows.scale(upper);
      if constexpr (RowParams<W>::kHasZero) {
        // (code - zero) scale: the difference first, so that nothing is lost in the scale.
        acc[i] = fmaf(scale, fmaf(c[i], kPower[upper], -rows.other(upper) * x_sum[i % 2]), acc[i]);
      } else if constexpr (RowParams<W>::kHasMinimum) {
        acc[i] = fmaf(scale * kPower[upper], c[i], fmaf(rows.other(upper), x_sum[i % 2], acc[i]));
      } else {
        acc[i] = fmaf(scale * kPower[upper], c[i], acc[i]);
      }
    }
  }
}

/// The product of one chunk and the x in shared memory, added to acc.
template <class S, int Tokens>
__device__ __forceinline__ void multiply_chunk(float (&acc)[4],
                                               const std::uint8_t* chunk,
                                               const std::uint16_t* xs,
                                               const float* x_sums,
                                               int columns_before,
                                               int lane) {
  using F = typename S::F;
  constexpr int kBlocks = F::kChunkColumns / 64;
  const int g = lane / 4;
  const int t = lane % 4;
  float c[kBlocks * 2][4] = {};  // a chain of sums for each 32 columns: products wait for none
#pragma unroll
  for (int block = 0; block < kBlocks; ++block) {
    typename S::Decoder weights;
    weights.load(chunk + block * F::kBlockBytes, lane);
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const uint4 x =
          *reinterpret_cast<const uint4*>(xs + columns_before + block * 64 + half * 32 + t * 8);
      std::uint32_t a[4];
      weights.step(half * 2, a);
      mma_16x8x16<typename S::T>(c[block * 2 + half], a, x.x, x.y);
      weights.step(half * 2 + 1, a);
      mma_16x8x16<typename S::T>(c[block * 2 + half], a, x.z, x.w);
    }
  }
#pragma unroll
  for (int group = 0; group < S::kGroups; ++group) {
    constexpr int kChains = S::kGroup / 32;
#pragma unroll
    for (int i = 1; i < kChains; ++i)
#pragma unroll
      for (int j = 0; j < 4; ++j)
        c[group * kChains][j] += c[group * kChains + i][j];
    const float* sums = x_sums + (columns_before / S::kGroup + group) * Tokens;
    const float x_sum[2] = {sums[Tokens == 1 ? 0 : 2 * t], sums[Tokens == 1 ? 0 : 2 * t + 1]};
    add_group<S>(acc, c[group * kChains],
                 chunk + F::kCodeBytes + group * F::kTileRows * F::kParamBytes, g, x_sum);
  }
}

}  // namespace detail
}  // namespace lmd::kernels
