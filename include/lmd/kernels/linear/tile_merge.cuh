/// \file  Where the sums of the tile linear layer go: into y, or through memory to other blocks.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/core/math.hpp>
#include <lmd/kernels/linear/tile_product.cuh>
#include <lmd/kernels/linear/workspace.hpp>

namespace lmd::kernels {

/// Tokens of one pass over the weights.
inline constexpr int kTileTokens = 64;

namespace detail {

inline constexpr int kMaxTileSums = 256 * kTileTokens;

template <Activation T>
struct TileArgs {
  BasicLinearArgs<T> linear;
  float* parts;   ///< [block][first or another tile][tile's sums]
  int* counters;  ///< [tile]
};

/// The best of a row tile's outputs, for each of 8 tokens: kBest. A whole warp calls it.
template <Activation T>
__device__ __forceinline__ void store_best_sums(
    const BasicLinearArgs<T>& a, const float (&sums)[4], int row_tile, int first_token, int lane) {
  static_assert(kBestFeatures == 16, "a row tile is a part");
  if (first_token >= a.m) return;
  const int row = row_tile * 16 + lane / 4;
  std::uint64_t keys[2] = {kNoKey, kNoKey};
#pragma unroll
  for (int upper = 0; upper < 2; ++upper) {
    const int j = row + upper * 8;
    if (j >= a.n) continue;
    const float bias = a.bias == nullptr ? 0.0f : a.bias[j];
#pragma unroll
    for (int i = 0; i < 2; ++i)
      keys[i] = min(keys[i], checked_rank_key(sums[upper * 2 + i] + bias, j));
  }
  // Half of the lanes go on with each of the two tokens.
  const bool is_second = (lane & 4) != 0;
  std::uint64_t key = min(is_second ? keys[1] : keys[0],
                          __shfl_xor_sync(0xffffffffu, is_second ? keys[0] : keys[1], 4));
#pragma unroll
  for (int step = 8; step < 32; step *= 2)
    key = min(key, __shfl_xor_sync(0xffffffffu, key, step));
  const int token = first_token + lane % 4 * 2 + lane / 4;
  if (lane < 8 && token < a.m && row_tile < best_parts(a.n))
    a.best[std::int64_t{token} * best_parts(a.n) + row_tile] = key;
}

/// Adds the epilogue to a lane's four sums of one row tile and 8 tokens, c of mma_16x8x16. A whole warp
/// calls it.
template <Activation T>
__device__ __forceinline__ void store_sums(
    const BasicLinearArgs<T>& a, const float (&sums)[4], int row_tile, int first_token, int lane) {
  if (a.epilogue == LinearEpilogue::kBest)
    return store_best_sums(a, sums, row_tile, first_token, lane);
  const int row = row_tile * 16 + lane / 4;
  if (row >= a.n) return;
  const bool has_upper = row + 8 < a.n;
  const float bias[2] = {a.bias == nullptr ? 0.0f : a.bias[row],
                         a.bias == nullptr || !has_upper ? 0.0f : a.bias[row + 8]};
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    const int token = first_token + lane % 4 * 2 + i;
    if (token >= a.m) continue;
    T* y = a.y + token * a.y_stride;
    float lower = sums[i] + bias[0];
    float upper = sums[2 + i] + bias[1];
    if (a.epilogue == LinearEpilogue::kSiluMul) {
      y[row_tile * 8 + lane / 4] = from_float<T>(lower / (1.0f + __expf(-lower)) * upper);
      continue;
    }
    if (a.epilogue == LinearEpilogue::kAdd) {
      lower += to_float(y[row]);
      if (has_upper) upper += to_float(y[row + 8]);
    }
    if (a.y_f32 != nullptr && a.epilogue == LinearEpilogue::kStore) {
      float* logits = a.y_f32 + token * a.y_stride;
      logits[row] = lower;
      if (has_upper) logits[row + 8] = upper;
      continue;
    }
    y[row] = from_float<T>(lower);
    if (has_upper) y[row + 8] = from_float<T>(upper);
  }
}

/// A warp's share of a tile that one block has summed alone.
template <class S>
__device__ __forceinline__ void store_tile(const BasicLinearArgs<typename S::T>& a,
                                           const float (&acc)[S::kRowTiles][S::kTokenGroups][4],
                                           int tile,
                                           int warp,
                                           int lane) {
#pragma unroll
  for (int i = 0; i < S::kRowTiles; ++i)
#pragma unroll
    for (int j = 0; j < S::kTokenGroups; ++j)
      store_sums(a, acc[i][j], tile * S::kBlockRowTiles + warp * S::kRowTiles + i, j * 8, lane);
}

/// Where a block leaves its part of a tile. At most its first tile and its last one are shared.
template <class S>
__device__ __forceinline__ float4* part_of(float* parts,
                                           const TileSplit& split,
                                           int block,
                                           int tile) {
  const bool is_first = split.first_of(block) / split.chunks == tile;
  return reinterpret_cast<float4*>(parts +
                                   (std::int64_t{block} * 2 + (is_first ? 0 : 1)) * S::kTileSums);
}

/// A warp's share of a tile that others have parts of, as [row tile, tokens][warp][lane][4] f32.
template <class S>
__device__ __forceinline__ void keep_part(const TileArgs<typename S::T>& args,
                                          const TileSplit& split,
                                          const float (&acc)[S::kRowTiles][S::kTokenGroups][4],
                                          int tile,
                                          int warp,
                                          int lane) {
  float4* to = part_of<S>(args.parts, split, blockIdx.x, tile) + warp * 32 + lane;
#pragma unroll
  for (int i = 0; i < S::kRowTiles; ++i) {
#pragma unroll
    for (int j = 0; j < S::kTokenGroups; ++j) {
      const float(&sums)[4] = acc[i][j];
      if (j * 8 < args.linear.m)
        __stcg(to + (i * S::kTokenGroups + j) * S::kWarps * 32,
               float4{sums[0], sums[1], sums[2], sums[3]});
    }
  }
}

/// Blocks that have parts of a tile.
struct TileBlocks {
  int from;
  int to;  ///< the last one
  __device__ __forceinline__ TileBlocks(const TileSplit& split, int tile)
      : from(split.block_of(tile * split.chunks)),
        to(split.block_of((tile + 1) * split.chunks - 1)) {}
  [[nodiscard]] __device__ __forceinline__ int n() const { return to - from + 1; }
};

/// Waits until all n parts have arrived. The counter goes up to 2 n: n arrivals, n blocks that have
/// seen them all; the last of these makes it 0 for the next launch.
__device__ __forceinline__ void await_parts(int* counter, int n) {
  int arrived = 0;
  do {
    asm volatile("ld.acquire.gpu.global.s32 %0, [%1];" : "=r"(arrived) : "l"(counter) : "memory");
  } while (arrived < n);
  if (atomicAdd(counter, 1) == 2 * n - 1) atomicExch(counter, 0);
}

/// Every block that has a part of the tile adds up its share of the tile's sums, in the order of k.
template <class S>
__device__ __forceinline__ void merge_tile(const TileArgs<typename S::T>& args,
                                           const TileSplit& split,
                                           int tile) {
  const TileBlocks blocks(split, tile);
  const int lane = threadIdx.x % 32;
  constexpr int kItems = S::kRowTiles * S::kTokenGroups * S::kWarps;
  const int mine = static_cast<int>(blockIdx.x) - blocks.from;
  const int last = kItems * (mine + 1) / blocks.n();
  for (int item = kItems * mine / blocks.n() + static_cast<int>(threadIdx.x) / 32; item < last;
       item += S::kThreads / 32) {
    const int tokens = item / S::kWarps % S::kTokenGroups * 8;
    if (tokens >= args.linear.m) continue;
    float sums[4] = {};
#pragma unroll 4
    for (int block = blocks.from; block <= blocks.to; ++block) {
      const float4 part = __ldcg(part_of<S>(args.parts, split, block, tile) + item * 32 + lane);
      sums[0] += part.x;
      sums[1] += part.y;
      sums[2] += part.z;
      sums[3] += part.w;
    }
    const int row_tile = item % S::kWarps * S::kRowTiles + item / (S::kWarps * S::kTokenGroups);
    store_sums(args.linear, sums, tile * S::kBlockRowTiles + row_tile, tokens, lane);
  }
}

/// Tiles that this block shares: its first one and its last one, at the end of its run. All blocks
/// end at about the same time, so adding up by all of them at once takes a part of the time that
/// one block would need.
template <class S>
__device__ __forceinline__ void merge_shared_tiles(const TileArgs<typename S::T>& args,
                                                   const TileSplit& split) {
  const int first = split.first_of(blockIdx.x);
  const int last = split.first_of(blockIdx.x + 1) - 1;
  const int tiles[2] = {first / split.chunks, last / split.chunks};
  const bool is_shared[2] = {
      tiles[0] * split.chunks < first || (tiles[0] + 1) * split.chunks - 1 > last,
      tiles[1] != tiles[0] && (tiles[1] + 1) * split.chunks - 1 > last};
  if (!is_shared[0] && !is_shared[1]) return;
  __threadfence();
  __syncthreads();
  if (threadIdx.x == 0) {
#pragma unroll
    for (int i = 0; i < 2; ++i)
      if (is_shared[i]) atomicAdd(args.counters + tiles[i], 1);
#pragma unroll
    for (int i = 0; i < 2; ++i)
      if (is_shared[i]) await_parts(args.counters + tiles[i], TileBlocks(split, tiles[i]).n());
  }
  __syncthreads();
  __threadfence();
#pragma unroll
  for (int i = 0; i < 2; ++i)
    if (is_shared[i]) merge_tile<S>(args, split, tiles[i]);
}

}  // namespace detail

/// Floats of LinearWorkspace::parts on a device of `multiprocessors`.
[[nodiscard]] constexpr std::int64_t tile_part_elements(int multiprocessors) {
  return std::int64_t{multiprocessors} * 2 * detail::kMaxTileSums;
}

/// Counters of LinearWorkspace for layers of up to `max_n` outputs.
[[nodiscard]] constexpr std::int64_t tile_counters(int max_n) {
  return ceil_div(std::int64_t{max_n}, std::int64_t{16});  // tiles of any tuning
}

}  // namespace lmd::kernels
