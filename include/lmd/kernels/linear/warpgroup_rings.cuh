/// \file  What blocks of the warp group linear layer work on, and the rings through which it comes.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/core/math.hpp>
#include <lmd/kernels/linear/arrange_input.cuh>
#include <lmd/kernels/linear/scaled_operands.cuh>
#include <lmd/kernels/primitive/async_copy.cuh>

namespace lmd::kernels::detail {

/// Speed only: no tuning changes more than the order of additions.
struct WarpgroupTuning {
  int warps = 16;         ///< of a block: each 16 outputs
  int slices = 1;         ///< of k, that the warps of a block share out
  int weight_stages = 3;  ///< copies in flight for each warp
  int x_stages = 5;       ///< copies in flight for the block, a chunk of each slice of all tokens
};

/// Sizes of a block: groups of four warps multiply a tile of outputs by kTokens tokens.
template <LinearPolicy P, int TokenGroups, WarpgroupTuning (*Tuning)()>
struct Warpgroups {
  using W = typename P::Format;
  using T = typename P::Act;
  using F = quant::FragmentWeights<W>;
  using Operands = ScaledOperands<W, T>;
  static constexpr WarpgroupTuning kTuning = Tuning();
  static constexpr int kWarps = kTuning.warps;
  static constexpr int kThreads = kWarps * 32;
  static constexpr int kSlices = kTuning.slices;
  static constexpr int kRowTiles = kWarps / kSlices;
  static constexpr int kTileOutputs = kRowTiles * F::kTileRows;
  static constexpr int kTokenGroups = TokenGroups;  ///< of 8
  static constexpr int kTokens = TokenGroups * 8;
  static constexpr int kBlocks = F::kChunkColumns / 64;  ///< of 64 columns in a chunk
  static constexpr int kSteps = F::kChunkColumns / 16;
  static_assert(kRowTiles % 4 == 0, "four warps multiply together");

  static constexpr int kXBlockBytes = kTokens * 128;
  static constexpr int kXChunkBytes = kBlocks * kXBlockBytes;
  static constexpr int kXStageBytes = kSlices * kXChunkBytes;
  /// Chunks of a copy: smaller ones than 2 KB keep the copy engine from the memory's rate.
  static constexpr int kStageChunks = F::kChunkBytes < 2048 ? 2 : 1;
  static constexpr int kWeightStageBytes = kStageChunks * F::kChunkBytes;
  static constexpr int kWeightsAt = kTuning.x_stages * kXStageBytes;
  static constexpr int kWeightBarriersAt =
      kWeightsAt + kWarps * kTuning.weight_stages * kWeightStageBytes;
  static constexpr int kXBarriersAt = kWeightBarriersAt + kWarps * kTuning.weight_stages * 8;
  static constexpr int kAlignment = 1024;  ///< of what wgmma reads
  static constexpr int kSharedBytes = kXBarriersAt + 2 * kTuning.x_stages * 8 + kAlignment;
  [[nodiscard]] static __device__ __forceinline__ int slice_of(int warp) {
    return kSlices == 1 ? 0 : warp / kRowTiles;  // a constant, where the compiler can use one
  }
  static_assert(kXChunkBytes % kAlignment == 0 && kWeightsAt % 16 == 0, "stages stay aligned");
  static_assert(kWarps * 16 * kTokens * 4 <= kWeightBarriersAt, "sums take the rings' place");
};

/// What a block multiplies: some tiles, one after another, over its slices of k; the blocks of a cluster
/// share out the slices of the same tiles. Slices are equally long: behind the last chunk they meet
/// zeros of x. A unit is a chunk of a tile.
struct WarpgroupShare {
  int all_chunks;   ///< of a row tile
  int chunks;       ///< of a slice
  int first_slice;  ///< of the block
  int first_tile;
  int tile_step;
  int units;

  __device__ __forceinline__ WarpgroupShare(int n_tiles, int n_chunks, int cluster, int slices) {
    all_chunks = n_chunks;
    chunks = ceil_div(n_chunks, cluster * slices);
    first_slice = static_cast<int>(blockIdx.x) % cluster * slices;
    first_tile = static_cast<int>(blockIdx.x) / cluster;
    tile_step = static_cast<int>(gridDim.x) / cluster;
    units = ceil_div(n_tiles - first_tile, tile_step) * chunks;
  }
  /// Chunk i of slice `slice` of the block; all_chunks or more: there is none.
  [[nodiscard]] __device__ __forceinline__ int chunk_of(int slice, int i) const {
    return (first_slice + slice) * chunks + i;
  }
};

/// A warp's row tile of each of the block's tiles, streamed through a ring of copies of its own. A copy
/// is some chunks.
template <class S>
struct WarpgroupWeights {
  using F = typename S::F;
  static constexpr int kStages = S::kTuning.weight_stages;

  const std::uint8_t* codes;
  std::uint8_t* ring;
  std::uint32_t barriers;
  const WarpgroupShare& share;
  int last_row_tile;   ///< what lies behind it is read as this one, and not stored
  int row_tile;        ///< of the next copy
  int slice;           ///< of the warp
  int left;            ///< units that no copy has been queued for
  int next = 0;        ///< chunk of the slice that the next copy begins with
  int first_read = 0;  ///< chunk that the stage being read begins with
  int in_stage = 0;    ///< chunks of the stage that have been read
  int stage = 0;
  std::uint32_t parity = 0;

  __device__ __forceinline__ void start() {
    if (threadIdx.x % 32 == 0) {
      for (int i = 0; i < kStages; ++i)
        init_barrier(barriers + i * 8, 1);
      publish_barriers();
    }
    __syncwarp();
    for (int i = 0; i < kStages; ++i)
      fetch(i);
  }
  /// Chunks that the copy which begins with chunk i of the slice brings. Divisions would take longer
  /// than a chunk's products: places only count up.
  [[nodiscard]] __device__ __forceinline__ int of_copy(int i) const {
    const int there = max(share.all_chunks - share.chunk_of(slice, i), 1);
    return min(S::kStageChunks, min(share.chunks - i, there));
  }
  __device__ __forceinline__ void fetch(int into) {
    if (left == 0) return;
    const int n = of_copy(next);
    if (threadIdx.x % 32 == 0) {
      const int chunk = min(share.chunk_of(slice, next), share.all_chunks - 1);
      expect_bytes(barriers + into * 8, n * F::kChunkBytes);
      bulk_copy(shared_address(ring + into * S::kWeightStageBytes),
                codes + (std::int64_t{min(row_tile, last_row_tile)} * share.all_chunks + chunk) *
                            F::kChunkBytes,
                n * F::kChunkBytes, barriers + into * 8);
    }
    left -= n;
    next += n;
    if (next == share.chunks) {
      next = 0;
      row_tile += share.tile_step * S::kRowTiles;
    }
  }
  /// Waits for the next chunk.
  [[nodiscard]] const __device__ __forceinline__ std::uint8_t* wait() const {
    if (in_stage == 0) wait_barrier(barriers + stage * 8, parity);
    return ring + stage * S::kWeightStageBytes + in_stage * F::kChunkBytes;
  }
  /// The warp has read it.
  __device__ __forceinline__ void release() {
    const int n = of_copy(first_read);
    if (++in_stage < n) return;
    first_read += n;
    if (first_read == share.chunks) first_read = 0;
    in_stage = 0;
    __syncwarp();
    fetch(stage);
    if (++stage == kStages) {
      stage = 0;
      parity ^= 1;
    }
  }
};

/// The block's ring of stages of arranged x, each all tokens of a chunk of each slice. A second barrier
/// of each stage tells that all warps' products have read it.
template <class S>
struct ArrangedInput {
  static constexpr int kStages = S::kTuning.x_stages;
  const std::uint8_t* x;  ///< arranged
  std::uint32_t ring;
  std::uint32_t barriers;
  const WarpgroupShare& share;

  __device__ __forceinline__ void init() const {
    for (int i = 0; i < kStages; ++i) {
      init_barrier(barriers + i * 8, 1);
      init_barrier(barriers + (kStages + i) * 8, S::kWarps);
    }
    publish_barriers();
  }
  [[nodiscard]] __device__ __forceinline__ std::uint32_t filled(int stage) const {
    return barriers + stage * 8;
  }
  /// Of unit i's stage.
  [[nodiscard]] __device__ __forceinline__ std::uint32_t read(int i) const {
    return barriers + (kStages + i % kStages) * 8;
  }
  /// Queues the copy for unit i. One thread.
  __device__ __forceinline__ void fetch(int i) const {
    if (i >= share.units) return;
    const int stage = i % kStages;
    expect_bytes(filled(stage), S::kXStageBytes);
#pragma unroll
    for (int slice = 0; slice < S::kSlices; ++slice) {
      bulk_copy(ring + stage * S::kXStageBytes + slice * S::kXChunkBytes,
                x + std::int64_t{share.chunk_of(slice, i % share.chunks)} * S::kXChunkBytes,
                S::kXChunkBytes, filled(stage));
    }
  }
  /// At unit i: the stage of unit i - 2 has been read by most warps, and is filled again. Warps take
  /// turns. One thread of each calls.
  __device__ __forceinline__ void refill(int i, int warp) const {
    const int done = i - 2;
    if (done < 0 || done % S::kWarps != warp || done + kStages >= share.units) return;
    wait_barrier(read(done), done / kStages % 2);
    fetch(done + kStages);
  }
};

}  // namespace lmd::kernels::detail
