/// \file  Linear layer for some tokens on Cuda, by mma.sync: the weights are read once for up to 64. What
///        `linear` takes where there is no wgmma.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/core/launch.cuh>
#include <lmd/core/math.hpp>
#include <lmd/kernels/linear/tile_merge.cuh>
#include <lmd/kernels/linear/tile_product.cuh>
#include <lmd/kernels/primitive/copy_ring.cuh>

#include <algorithm>

namespace lmd::kernels {

namespace detail {

/// A warp's row tiles of every chunk of the block's run, streamed through a ring of copies of its
/// own: no warp waits for another one's weights.
template <class S>
struct TileWeights {
  using F = typename S::F;

  CopyRing<S::kTuning.weight_stages, S::kWeightStageBytes> ring;
  const std::uint8_t* codes;
  int chunks;          ///< of a row tile
  int last_row_tile;   ///< what lies behind it is read as this one, and not stored
  int first_row_tile;  ///< of this warp, in the tile of the next copy
  int chunk;           ///< of the next copy

  __device__ __forceinline__ void start() {
    ring.start([&](auto to, auto barrier) { fetch(to, barrier); });
  }
  __device__ __forceinline__ void release() {
    ring.release([&](auto to, auto barrier) { fetch(to, barrier); });
  }

 private:
  __device__ __forceinline__ void fetch(std::uint32_t to, std::uint32_t barrier) {
    if (threadIdx.x % 32 < kCopyLanes) {
      expect_bytes(barrier, S::kWeightStageBytes);
#pragma unroll
      for (int i = 0; i < S::kRowTiles; ++i) {
        const std::int64_t row_tile = min(first_row_tile + i, last_row_tile);
        bulk_copy(to + i * F::kChunkBytes, codes + (row_tile * chunks + chunk) * F::kChunkBytes,
                  F::kChunkBytes, barrier);
      }
      end_copies(barrier);
    }
    if (++chunk == chunks) {
      chunk = 0;
      first_row_tile += S::kBlockRowTiles;
    }
  }
};

/// The block's ring of stages of x, each all tokens of one chunk. Warps take turns to fill one, and
/// every warp arrives at its second barrier when it has read it.
template <class S>
struct TileInput {
  static constexpr int kStages = S::kTuning.x_stages;
  const BasicLinearArgs<typename S::T>& a;
  std::uint8_t* ring;
  std::uint32_t barriers;  ///< kStages that tell of arrivals, then kStages that tell of room
  int chunks;              ///< of a tile
  int first_chunk;         ///< of the run's first unit
  int units;

  __device__ __forceinline__ void init() const {
    for (int i = 0; i < kStages; ++i) {
      init_barrier(barriers + i * 8, kCopyLanes);
      init_barrier(barriers + (kStages + i) * 8, S::kWarps);
    }
    publish_barriers();
  }

  /// Zero weights meet what the stages hold behind the last column: it has to be a number.
  __device__ __forceinline__ void clear() const {
    for (int at = static_cast<int>(threadIdx.x) * 16; at < kStages * S::kXStageBytes;
         at += S::kThreads * 16)
      *reinterpret_cast<uint4*>(ring + at) = uint4{};
    fence_before_copies();
  }

  /// Queues the copies for unit i of the run; one whole warp calls it.
  __device__ __forceinline__ void fetch(int i) const {
    if (i >= units) return;
    constexpr int kColumns = S::F::kChunkColumns;
    const int lane = threadIdx.x % 32;
    const int stage = i % kStages;
    const std::uint32_t full = barriers + stage * 8;
    const int column = (first_chunk + i) % chunks * kColumns;
    const int bytes = min(kColumns, a.k - column) * 2;
    if (lane == 0) expect_bytes(full, bytes * a.m);
    __syncwarp();
    for (int token = lane / kRowCopyLanes; token < a.m; token += 32 / kRowCopyLanes) {
      bulk_copy<kRowCopyLanes>(
          shared_address(ring + stage * S::kXStageBytes + token * S::kXRowBytes),
          a.x + token * a.x_stride + column, bytes, full);
    }
    end_copies(full);
  }

  /// Before unit i is multiplied: the stage of unit i - 1 is filled again as soon as all warps have
  /// read it. One warp waits for that, each time another one.
  __device__ __forceinline__ void refill(int i, int warp) const {
    if (i == 0 || i % S::kWarps != warp || i - 1 + kStages >= units) return;
    wait_barrier(barriers + (kStages + (i - 1) % kStages) * 8, (i - 1) / kStages % 2);
    fetch(i - 1 + kStages);
  }
};

/// A block multiplies its run of units, each kBlockRowTiles row tiles x one chunk x all tokens.
template <class S>
__global__ void __launch_bounds__(S::kThreads, 1)
    tile_linear_kernel(const __grid_constant__ TileArgs<typename S::T> args) {
  using F = typename S::F;
  extern __shared__ __align__(128) std::uint8_t shared[];
  const BasicLinearArgs<typename S::T>& a = args.linear;
  const int warp = threadIdx.x / 32;
  const int lane = threadIdx.x % 32;
  const TileSplit split = S::split(a.n, a.k, gridDim.x);
  const int first = split.first_of(blockIdx.x);
  const int units = split.first_of(blockIdx.x + 1) - first;
  int tile = first / split.chunks;
  int chunk = first % split.chunks;

  const TileInput<S> input{.a = a,
                           .ring = shared + S::kXAt,
                           .barriers = shared_address(shared + S::kXBarriersAt),
                           .chunks = split.chunks,
                           .first_chunk = chunk,
                           .units = units};
  TileWeights<S> weights{
      .ring = {.bytes = shared + warp * S::kTuning.weight_stages * S::kWeightStageBytes,
               .barriers = shared_address(shared + S::kWeightBarriersAt) +
                           warp * S::kTuning.weight_stages * 8,
               .left = units},
      .codes = a.codes,
      .chunks = split.chunks,
      .last_row_tile = ceil_div(a.n, F::kTileRows) - 1,
      .first_row_tile = tile * S::kBlockRowTiles + warp * S::kRowTiles,
      .chunk = chunk};
  weights.start();
  if (threadIdx.x == 0) input.init();
  if (a.k % F::kChunkColumns != 0) input.clear();
  __syncthreads();
  wait_for_previous_kernel();
  allow_next_kernel();
  if (warp == 0) {
    for (int i = 0; i < TileInput<S>::kStages; ++i)
      input.fetch(i);
  }

  float acc[S::kRowTiles][S::kTokenGroups][4] = {};
  int summed = 0;  // chunks of this tile
  int stage = 0;
  std::uint32_t parity = 0;
  for (int i = 0; i < units; ++i) {
    input.refill(i, warp);
    const std::uint8_t* codes = weights.ring.wait();
    wait_barrier(input.barriers + stage * 8, parity);
    add_products<S>(acc, codes, input.ring + stage * S::kXStageBytes, lane);
    weights.release();
    if (lane == 0) arrive_at(input.barriers + (TileInput<S>::kStages + stage) * 8);
    if (++stage == TileInput<S>::kStages) {
      stage = 0;
      parity ^= 1;
    }
    ++summed;
    if (++chunk < split.chunks && i + 1 < units) continue;
    if (summed == split.chunks) {
      store_tile<S>(a, acc, tile, warp, lane);
    } else {
      keep_part<S>(args, split, acc, tile, warp, lane);
    }
    for (auto& row_tile : acc)
      for (auto& tokens : row_tile)
        for (float& sum : tokens)
          sum = 0.0f;
    chunk = 0;
    summed = 0;
    ++tile;
  }
  merge_shared_tiles<S>(args, split);
}

/// Four stages of 2176 bytes in each of eight warps: 70 KB in flight on a multiprocessor. In small blocks
/// two; those of x are large for 64 tokens only. Not measured.
constexpr TileTuning tile_tuning(Arch arch, int token_groups) {
  if (!arch.has_large_blocks()) return {.weight_stages = 2, .x_stages = token_groups > 4 ? 2 : 4};
  return {};
}

template <LinearPolicy P, int TokenGroups, TileTuning (*Tuning)(Arch, int)>
[[nodiscard]] cudaError_t launch_tile(Cuda ctx,
                                      const TileArgs<typename P::Act>& args,
                                      int n_multiprocessors) {
  const auto kernel = &tile_linear_kernel<Tile<P, TokenGroups, Tuning>>;
  return with_tuned_arch(ctx, kernel, [&]<int kCc>() {
    using S = Tile<P, TokenGroups, Tuning, kCc>;
    static_assert(S::kSharedBytes <= Arch{kCc}.shared_bytes(),
                  "a block's rings fit into shared memory");
    static_assert(S::kTileSums <= kMaxTileSums, "the workspace holds two tiles for each block");
    // A run of fewer columns costs more in sums to merge than it saves.
    constexpr int kMinRun = 512 / S::F::kChunkColumns;
    const TileSplit one = S::split(args.linear.n, args.linear.k, 1);
    const int grid = std::clamp(one.units / kMinRun, 1, n_multiprocessors);
    return launch(ctx,
                  {.grid = static_cast<unsigned>(grid),
                   .block = static_cast<unsigned>(S::kThreads),
                   .shared_bytes = static_cast<std::size_t>(S::kSharedBytes)},
                  kernel, args);
  });
}

/// Checks the shapes and calls launch_part(args, multiprocessors) for each kTileTokens tokens.
template <Activation T, class F>
[[nodiscard]] cudaError_t for_each_tile_of_tokens(Cuda ctx,
                                                  const BasicLinearArgs<T>& a,
                                                  const LinearWorkspace& workspace,
                                                  F&& launch_part) {
  if (a.m < 0 || a.n <= 0 || a.k <= 0 || a.k % 8 != 0 || a.x_stride % 8 != 0 ||
      reinterpret_cast<std::uintptr_t>(a.x) % 16 != 0 ||
      (a.epilogue == LinearEpilogue::kSiluMul && a.n % 16 != 0) ||
      (a.epilogue == LinearEpilogue::kBest && (a.best == nullptr || a.n > kMaxVocab))) {
    return cudaErrorInvalidValue;
  }
  if (a.m == 0) return cudaSuccess;
  int sms = 0;
  LMD_CUDA_RETURN_IF_ERROR(multiprocessors(ctx, &sms));
  for (int i = 0; i < a.m; i += kTileTokens) {
    TileArgs<T> part{.linear = a, .parts = workspace.parts, .counters = workspace.counters};
    part.linear.x += i * a.x_stride;
    if (a.y != nullptr) part.linear.y += i * a.y_stride;
    if (a.y_f32 != nullptr) part.linear.y_f32 += i * a.y_stride;
    if (a.best != nullptr) part.linear.best += std::int64_t{i} * best_parts(a.n);
    part.linear.m = std::min(kTileTokens, a.m - i);
    LMD_CUDA_RETURN_IF_ERROR(launch_part(part, sms));
  }
  return cudaSuccess;
}

}  // namespace detail

/// y = epilogue(x w^T + bias) for some tokens: one pass over the weights for each 64.
///
/// The work is cut into equal runs, one for each multiprocessor, that may begin and end inside a
/// tile; blocks that share a tile put it together in the order of k, so equal launches on a device
/// give equal bits. Such blocks wait for each other: the grid is never larger than the device, and
/// two of these kernels may not run at the same time (they would share the workspace anyway).
///
/// Shapes:  as BasicLinearArgs; k and x_stride multiples of 8, x and codes 16-byte aligned. With
///          kSiluMul n is a multiple of 16, with kBest at most kMaxVocab. The workspace's parts and
///          counters as tile_part_elements and tile_counters say.
/// Errors:  cudaErrorInvalidValue when a shape is not one of these, or with a norm_weight.
/// Stream:  queued on ctx.stream; inputs must live until it has run.
/// Oracle:  linear(Host, ...)
/// Source:  equal runs as stream-K (Osama et al. 2023) and Marlin's stripes, as an idea.
template <LinearPolicy P>
[[nodiscard]] cudaError_t tile_linear(Cuda ctx,
                                      const BasicLinearArgs<typename P::Act>& a,
                                      const LinearWorkspace& workspace) {
  if (a.norm_weight != nullptr) return cudaErrorInvalidValue;
  return detail::for_each_tile_of_tokens(
      ctx, a, workspace, [&](const auto& part, int sms) -> cudaError_t {
        const int m = part.linear.m;
        return m <= 16   ? detail::launch_tile<P, 2, detail::tile_tuning>(ctx, part, sms)
               : m <= 32 ? detail::launch_tile<P, 4, detail::tile_tuning>(ctx, part, sms)
                         : detail::launch_tile<P, 8, detail::tile_tuning>(ctx, part, sms);
      });
}

}  // namespace lmd::kernels
