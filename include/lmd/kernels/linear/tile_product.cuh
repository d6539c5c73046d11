/// \file  What a warp of the tile linear layer multiplies: some row tiles by a chunk of all tokens.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/core/cuda.cuh>
#include <lmd/core/math.hpp>
#include <lmd/kernels/linear/linear.hpp>
#include <lmd/kernels/linear/row_params.cuh>
#include <lmd/kernels/primitive/mma.cuh>
#include <lmd/quant/fast_decode.cuh>

namespace lmd::kernels {

/// Speed only: no tuning changes more than the order of additions.
struct TileTuning {
  int warps = 8;          ///< of a block
  int row_tiles = 2;      ///< of each warp: a fragment of x feeds so many products
  int weight_stages = 4;  ///< copies in flight for each warp, a chunk of its row tiles each
  int x_stages = 4;       ///< copies in flight for the block, a chunk of all tokens each
};

namespace detail {

/// The units of a matrix (a tile's chunks, tile after tile), cut into equal runs, one a block.
struct TileSplit {
  int chunks;  ///< of a tile
  int units;
  int blocks;  ///< at most as many as units

  /// The first units % blocks runs are one unit longer than the others.
  [[nodiscard]] LMD_HD int first_of(int block) const {
    const int longer = units % blocks;
    return block * (units / blocks) + (block < longer ? block : longer);
  }
  [[nodiscard]] LMD_HD int block_of(int unit) const {
    const int run = units / blocks;
    const int longer = units % blocks;
    return unit < longer * (run + 1) ? unit / (run + 1)
                                     : longer + (unit - longer * (run + 1)) / run;
  }
};

/// Sizes of a block that multiplies a tile of kBlockRowTiles x 16 outputs by kTokens tokens.
template <LinearPolicy P, int TokenGroups, TileTuning (*Tuning)(Arch, int), int Cc = 0>
struct Tile {
  using W = typename P::Format;
  using T = typename P::Act;
  using F = quant::FragmentWeights<W>;
  using Decoder = quant::FragmentDecoder<W::kBits, T>;
  static constexpr TileTuning kTuning = Tuning(tuned_arch(Cc), TokenGroups);
  static constexpr int kWarps = kTuning.warps;
  static constexpr int kThreads = kWarps * 32;
  static constexpr int kRowTiles = kTuning.row_tiles;
  static constexpr int kBlockRowTiles = kWarps * kRowTiles;
  static constexpr int kTokenGroups = TokenGroups;  ///< of 8: columns of one product
  static constexpr int kTokens = TokenGroups * 8;
  static constexpr int kTileSums = kBlockRowTiles * F::kTileRows * kTokens;
  static constexpr bool kHasZero = requires(typename W::Params p) { p.zero; };
  static constexpr bool kHasMinimum = requires(typename W::Params p) { p.minimum; };

  static constexpr int kWeightStageBytes = kRowTiles * F::kChunkBytes;
  /// Rows of x 64 bytes apart modulo 128: 8 lanes then read 8 different sets of 4 banks.
  static constexpr int kXRowBytes = F::kChunkColumns * 2 + 64;
  static constexpr int kXStageBytes = kTokens * kXRowBytes;
  static constexpr int kXAt = kWarps * kTuning.weight_stages * kWeightStageBytes;
  static constexpr int kWeightBarriersAt = kXAt + kTuning.x_stages * kXStageBytes;
  static constexpr int kXBarriersAt = kWeightBarriersAt + kWarps * kTuning.weight_stages * 8;
  static constexpr int kSharedBytes = kXBarriersAt + 2 * kTuning.x_stages * 8;
  static_assert(kXAt % 16 == 0 && kXRowBytes % 128 == 64,
                "copies of 16 bytes, reads without conflict");

  [[nodiscard]] LMD_HD static TileSplit split(int n, int k, int blocks) {
    const int chunks = ceil_div(k, F::kChunkColumns);
    return {.chunks = chunks,
            .units = ceil_div(n, kBlockRowTiles * F::kTileRows) * chunks,
            .blocks = blocks};
  }
};

/// a - b for pairs; exact for small integers, and for their multiples of a small power of two.
template <Activation T>
__device__ __forceinline__ std::uint32_t subtract_pair(std::uint32_t a, std::uint32_t b) {
  std::uint32_t out;
  if constexpr (std::same_as<T, Half>) {
    asm("sub.rn.f16x2 %0, %1, %2;" : "=r"(out) : "r"(a), "r"(b));
  } else {
    static_assert(std::same_as<T, BFloat16>, "tensor cores multiply 16-bit operands");
    if constexpr (kDeviceArch.cc >= 90) {
      asm("sub.rn.bf16x2 %0, %1, %2;" : "=r"(out) : "r"(a), "r"(b));
    } else {
      constexpr std::uint32_t kMinusOne = 0xbf80bf80u;
      asm("fma.rn.bf16x2 %0, %1, %2, %3;" : "=r"(out) : "r"(b), "r"(kMinusOne), "r"(a));
    }
  }
  return out;
}

/// A group's weights, less its zero point, as operands. With this many tokens four subtractions for
/// each operand cost less than sums of x for each group would.
template <class S>
struct GroupOperands {
  float scale[2];         ///< with the decoder's power of two
  float minimum[2];       ///< where the format has one
  std::uint32_t zero[2];  ///< pairs, in the decoder's power of two

  /// `params` of the group, in a chunk.
  __device__ __forceinline__ void load(const std::uint8_t* params, int g) {
    if constexpr (S::W::kGroupSize > 0) {
      constexpr float kPower[2] = {S::Decoder::kLowerScale, S::Decoder::kUpperScale};
      RowParams<typename S::W> rows;
      rows.load(params, g);
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        scale[i] = rows.scale(i) * kPower[i];
        if constexpr (S::kHasMinimum) minimum[i] = rows.other(i);
        if constexpr (S::kHasZero) {
          const float z = rows.other(i) * (1.0f / kPower[i]);
          zero[i] = pack_pair<typename S::T>(z, z);
        }
      }
    }
  }
  __device__ __forceinline__ void step(const typename S::Decoder& weights,
                                       int s,
                                       std::uint32_t (&a)[4]) const {
    weights.step(s, a);
    if constexpr (S::kHasZero) {
#pragma unroll
      for (int i = 0; i < 4; ++i)
        a[i] = subtract_pair<typename S::T>(a[i], zero[i % 2]);
    }
  }
};

/// acc += scale * c, and the group's minimum times the sums of x, c of a row of ones.
template <class S>
__device__ __forceinline__ void add_scaled(float (&acc)[4],
                                           const float (&c)[4],
                                           const GroupOperands<S>& group,
                                           const float (&ones)[4]) {
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    if constexpr (S::kHasMinimum) acc[i] = fmaf(group.minimum[i / 2], ones[i], acc[i]);
    acc[i] = fmaf(group.scale[i / 2], c[i], acc[i]);
  }
}

/// Two steps, 32 columns: c += weights x for all row tiles and tokens; ones += the sums of x.
template <class S>
__device__ __forceinline__ void add_two_steps(
    float (&c)[S::kRowTiles][S::kTokenGroups][4],
    float (&ones)[S::kHasMinimum ? S::kTokenGroups : 1][4],
    const std::uint32_t (&a)[S::kRowTiles][2][4],
    const std::uint8_t* xs) {
  using T = typename S::T;
  // Some groups of tokens at once: a product then waits for none of the few before it.
  constexpr int kBatch = S::kTokenGroups < 4 ? S::kTokenGroups : 4;
#pragma unroll
  for (int base = 0; base < S::kTokenGroups; base += kBatch) {
    uint4 x[kBatch];
#pragma unroll
    for (int u = 0; u < kBatch; ++u)
      x[u] = *reinterpret_cast<const uint4*>(xs + (base + u) * 8 * S::kXRowBytes);
#pragma unroll
    for (int s = 0; s < 2; ++s) {
#pragma unroll
      for (int u = 0; u < kBatch; ++u) {
        const std::uint32_t b0 = s == 0 ? x[u].x : x[u].z;
        const std::uint32_t b1 = s == 0 ? x[u].y : x[u].w;
#pragma unroll
        for (int i = 0; i < S::kRowTiles; ++i)
          mma_16x8x16<T>(c[i][base + u], a[i][s], b0, b1);
        if constexpr (S::kHasMinimum) {
          const std::uint32_t one = pack_pair<T>(1.0f, 1.0f);
          const std::uint32_t row[4] = {one, one, one, one};
          mma_16x8x16<T>(ones[base + u], row, b0, b1);
        }
      }
    }
  }
}

/// The product of one chunk, added to acc[row tile][tokens 8 i ..][as mma_16x8x16's c].
///
/// Layout:  chunk: kRowTiles chunks of weights; xs: [token] rows of kXRowBytes.
template <class S>
__device__ __forceinline__ void add_products(float (&acc)[S::kRowTiles][S::kTokenGroups][4],
                                             const std::uint8_t* chunk,
                                             const std::uint8_t* xs,
                                             int lane) {
  using F = typename S::F;
  constexpr bool kHasGroups = S::W::kGroupSize > 0;
  constexpr int kGroup = kHasGroups ? S::W::kGroupSize : F::kChunkColumns;
  const int g = lane / 4;
  xs += g * S::kXRowBytes + lane % 4 * 16;
  float c[S::kRowTiles][S::kTokenGroups][4];
  float ones[S::kHasMinimum ? S::kTokenGroups : 1][4];
  GroupOperands<S> group[S::kRowTiles];
#pragma unroll
  for (int column = 0; column < F::kChunkColumns; column += 32) {
    typename S::Decoder weights[S::kRowTiles];
    std::uint32_t a[S::kRowTiles][2][4];
#pragma unroll
    for (int i = 0; i < S::kRowTiles; ++i) {
      weights[i].load(chunk + i * F::kChunkBytes + column / 64 * F::kBlockBytes, lane);
      if (kHasGroups && column % kGroup == 0) {
        group[i].load(chunk + i * F::kChunkBytes + F::kCodeBytes +
                          column / kGroup * F::kTileRows * F::kParamBytes,
                      g);
        for (auto& sums : c[i])
          for (float& sum : sums)
            sum = 0.0f;
      }
#pragma unroll
      for (int s = 0; s < 2; ++s)
        group[i].step(weights[i], column % 64 / 32 * 2 + s, a[i][s]);
    }
    if (S::kHasMinimum && column % kGroup == 0) {
      for (auto& sums : ones)
        for (float& sum : sums)
          sum = 0.0f;
    }
    if constexpr (kHasGroups) {
      add_two_steps<S>(c, ones, a, xs + column * 2);
    } else {
      add_two_steps<S>(acc, ones, a, xs + column * 2);
    }
    if (kHasGroups && (column + 32) % kGroup == 0) {
#pragma unroll
      for (int i = 0; i < S::kRowTiles; ++i)
#pragma unroll
        for (int j = 0; j < S::kTokenGroups; ++j)
          add_scaled<S>(acc[i][j], c[i][j], group[i], ones[S::kHasMinimum ? j : 0]);
    }
  }
}

}  // namespace detail
}  // namespace lmd::kernels
