/// \file  What blocks of the panel linear layer work on, and the rings through which it comes.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/core/math.hpp>
#include <lmd/kernels/linear/arrange_input.cuh>
#include <lmd/kernels/linear/scaled_operands.cuh>
#include <lmd/kernels/primitive/async_copy.cuh>

namespace lmd::kernels::detail {

/// Sizes of a block: groups of four warps multiply a tile of outputs by a panel of kTokens tokens. A warp has two row
/// tiles: while the products of one run, the other one's weights are decoded.
template <LinearPolicy P, int TokenGroups, int Slices>
struct Panels {
  using W = typename P::Format;
  using T = typename P::Act;
  using F = quant::FragmentWeights<W>;
  using Operands = ScaledOperands<W, T>;
  static constexpr int kWarps = 8;
  static constexpr int kThreads = kWarps * 32;
  static constexpr int kSlices = Slices;  ///< of the block's k, that its warps share out
  static constexpr int kSliceWarps = kWarps / kSlices;
  static constexpr int kWarpTiles = 2;
  static constexpr int kRowTiles = kSliceWarps * kWarpTiles;
  static constexpr int kTileOutputs = kRowTiles * F::kTileRows;
  static constexpr int kTokenGroups = TokenGroups;  ///< of 8
  static constexpr int kTokens = TokenGroups * 8;
  static constexpr int kBlocks = F::kChunkColumns / 64;  ///< of 64 columns in a chunk
  static_assert(kSliceWarps % 4 == 0, "four warps multiply together");

  /// A stage of x: 64 columns of each slice, all tokens of a panel.
  static constexpr int kXBlockBytes = kTokens * 128;
  static constexpr int kXStageBytes = kSlices * kXBlockBytes;
  static constexpr int kXStages = kXStageBytes >= 32768 ? 4 : kXStageBytes >= 16384 ? 6 : 8;
  /// Chunks of a copy: smaller ones than 2 KB keep the copy engine from the memory's rate.
  static constexpr int kStageChunks = F::kChunkBytes < 2048 ? 2 : 1;
  static constexpr int kWeightStages = kXStageBytes >= 32768 ? 2 : 3;
  static constexpr int kCopyBytes = kStageChunks * F::kChunkBytes;
  static constexpr int kWeightStageBytes = kWarpTiles * kCopyBytes;
  static constexpr int kWeightsAt = kXStages * kXStageBytes;
  static constexpr int kWeightBarriersAt = kWeightsAt + kWarps * kWeightStages * kWeightStageBytes;
  static constexpr int kXBarriersAt = kWeightBarriersAt + kWarps * kWeightStages * 8;
  static constexpr int kAlignment = 1024;  ///< of what wgmma reads
  static constexpr int kSharedBytes = kXBarriersAt + 2 * kXStages * 8 + kAlignment;
  static_assert(kXBlockBytes % kAlignment == 0 && kWeightsAt % 16 == 0, "stages stay aligned");
  static_assert(kSharedBytes <= 226 * 1024, "a block's rings fit");
  static_assert(kWarps * kWarpTiles * 16 * kTokens * 4 <= kWeightBarriersAt,
                "sums take the rings' place");
};

/// What a block multiplies: tiles of outputs by panels of tokens, one after another, panels of the same
/// outputs first, over its slices of k; the blocks of a cluster share out the slices of the same pieces of work.
/// Slices are equally long: behind the last chunk they meet zeros of x.
struct PanelShare {
  int all_chunks;   ///< of a row tile
  int chunks;       ///< of a slice
  int first_slice;  ///< of the block
  int rank;         ///< of the block in its cluster
  int panels;
  int first;     ///< the cluster's first piece of work, of all that is a tile by a panel
  int step;      ///< to its next one
  int n_pieces;  ///< of the block

  __device__ __forceinline__
  PanelShare(int n_tiles, int n_chunks, int n_panels, int cluster, int slices)
      : all_chunks(n_chunks), panels(n_panels) {
    chunks = ceil_div(n_chunks, cluster * slices);
    rank = static_cast<int>(blockIdx.x) % cluster;
    first = static_cast<int>(blockIdx.x) / cluster;
    step = static_cast<int>(gridDim.x) / cluster;
    first_slice = rank * slices;
    n_pieces = ceil_div(n_tiles * panels - first, step);
  }
  /// Chunk i of slice `slice` of the block; all_chunks or more: there is none.
  [[nodiscard]] __device__ __forceinline__ int chunk_of(int slice, int i) const {
    return (first_slice + slice) * chunks + i;
  }
  /// Of the block's piece i.
  [[nodiscard]] __device__ __forceinline__ int tile(int i) const {
    return (first + i * step) / panels;
  }
  [[nodiscard]] __device__ __forceinline__ int panel(int i) const {
    return (first + i * step) % panels;
  }
};

/// A warp's row tiles of each of the block's tiles, streamed through a ring of copies of its own. A stage
/// is some chunks of each.
template <class S>
struct PanelWeights {
  using F = typename S::F;
  static constexpr int kStages = S::kWeightStages;

  const std::uint8_t* codes;
  std::uint8_t* ring;
  std::uint32_t barriers;
  const PanelShare& share;
  int last_row_tile;   ///< what lies behind it is read as this one, and not stored
  int in_tile;         ///< the warp's first row tile of a tile
  int slice;           ///< of the warp
  int piece = 0;       ///< of the next stage
  int next = 0;        ///< chunk of the slice that it begins with
  int row_tile = 0;    ///< of it, the first
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
    find_row_tile();
    for (int i = 0; i < kStages; ++i)
      fetch(i);
  }
  __device__ __forceinline__ void find_row_tile() {
    row_tile = share.tile(piece) * S::kRowTiles + in_tile;
  }
  /// Chunks that the stage which begins with chunk i of the slice brings. Divisions would take longer
  /// than a chunk's products: places only count up.
  [[nodiscard]] __device__ __forceinline__ int of_copy(int i) const {
    const int there = max(share.all_chunks - share.chunk_of(slice, i), 1);
    return min(S::kStageChunks, min(share.chunks - i, there));
  }
  __device__ __forceinline__ void fetch(int into) {
    if (piece >= share.n_pieces) return;
    const int n = of_copy(next);
    if (threadIdx.x % 32 == 0) {
      const int chunk = min(share.chunk_of(slice, next), share.all_chunks - 1);
      expect_bytes(barriers + into * 8, S::kWarpTiles * n * F::kChunkBytes);
#pragma unroll
      for (int i = 0; i < S::kWarpTiles; ++i) {
        const int tile = min(row_tile + i, last_row_tile);
        bulk_copy(shared_address(ring + into * S::kWeightStageBytes + i * S::kCopyBytes),
                  codes + (std::int64_t{tile} * share.all_chunks + chunk) * F::kChunkBytes,
                  n * F::kChunkBytes, barriers + into * 8);
      }
    }
    next += n;
    if (next == share.chunks) {
      next = 0;
      ++piece;
      find_row_tile();
    }
  }
  /// Waits for the next chunk of the first row tile; kCopyBytes further lies that of the second.
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

/// The block's ring of stages of arranged x. A unit is 64 columns of each slice. A second barrier of each
/// stage tells that all warps' products have read it. Places count up: a division would take as long as a
/// unit's products.
template <class S>
struct PanelInput {
  static constexpr int kStages = S::kXStages;
  const std::uint8_t* x;  ///< arranged
  std::int64_t panel_bytes;
  std::uint32_t ring;
  std::uint32_t barriers;
  const PanelShare& share;
  int of_piece;  ///< units of a piece of work
  int units;
  // Of the next copy:
  int next = 0;  ///< its unit
  int piece = 0;
  int left = 0;  ///< units of its piece from there on
  const std::uint8_t* from = nullptr;
  int stage = 0;
  std::uint32_t parity = 0;  ///< of the copy before into the stage
  int turn = 0;              ///< the warp that queues it

  __device__ __forceinline__ void init() const {
    for (int i = 0; i < kStages; ++i) {
      init_barrier(barriers + i * 8, 1);
      init_barrier(barriers + (kStages + i) * 8, S::kWarps);
    }
    publish_barriers();
  }
  [[nodiscard]] __device__ __forceinline__ std::uint32_t filled(int of_stage) const {
    return barriers + of_stage * 8;
  }
  [[nodiscard]] __device__ __forceinline__ std::uint32_t read(int of_stage) const {
    return barriers + (kStages + of_stage) * 8;
  }
  __device__ __forceinline__ void find_piece() {
    from = x + share.panel(piece) * panel_bytes +
           std::int64_t{share.first_slice} * of_piece * S::kXBlockBytes;
    left = of_piece;
  }
  /// Fills the ring for the first time; `is_copying` in one thread of the block.
  __device__ __forceinline__ void start(bool is_copying) {
    find_piece();
#pragma unroll 1
    for (int i = 0; i < kStages; ++i) {
      if (is_copying && next < units) fetch();
      advance();
    }
    parity = 0;
  }
  /// The stage of the unit before the last one has been read by most warps, and is filled again: by one lane of the warp
  /// whose turn it is. All call.
  __device__ __forceinline__ void refill(int warp, int lane) {
    if (warp == turn && lane == 0 && next < units) {
      wait_barrier(read(stage), parity);
      fetch();
    }
    turn = turn + 1 == S::kWarps ? 0 : turn + 1;
    advance();
  }

 private:
  __device__ __forceinline__ void fetch() const {
    expect_bytes(filled(stage), S::kXStageBytes);
#pragma unroll
    for (int slice = 0; slice < S::kSlices; ++slice) {
      bulk_copy(ring + stage * S::kXStageBytes + slice * S::kXBlockBytes,
                from + std::int64_t{slice * of_piece} * S::kXBlockBytes, S::kXBlockBytes,
                filled(stage));
    }
  }
  __device__ __forceinline__ void advance() {
    ++next;
    from += S::kXBlockBytes;
    if (--left == 0) {
      ++piece;
      find_piece();
    }
    if (++stage == kStages) {
      stage = 0;
      parity ^= 1;
    }
  }
};

}  // namespace lmd::kernels::detail
