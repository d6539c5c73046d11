/// \file  What a block of the resident linear layer works on, and the ring through which its weights come.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/core/math.hpp>
#include <lmd/kernels/linear/linear.hpp>
#include <lmd/kernels/primitive/async_copy.cuh>
#include <lmd/kernels/primitive/cluster.cuh>
#include <lmd/quant/fast_decode.cuh>

namespace lmd::kernels::detail {

/// Sizes of a block, which takes half of a multiprocessor: the next kernel's block begins beside it, and has its
/// ring full when this one ends.
template <LinearPolicy P, int TokenGroups, int Warps>
struct Resident {
  using W = typename P::Format;
  using T = typename P::Act;
  using F = quant::FragmentWeights<W>;
  using Decoder = quant::FragmentDecoder<W::kBits, T>;
  static constexpr int kWarps = Warps;  ///< each 16 outputs of a pass
  static constexpr int kThreads = kWarps * 32;
  static constexpr int kBlocksPerSm = 2;
  static constexpr int kTokenGroups = TokenGroups;  ///< of 8
  static constexpr int kTokens = TokenGroups * 8;
  static constexpr int kBlocks = F::kChunkColumns / 64;  ///< of 64 columns in a chunk
  static constexpr int kGroup = W::kGroupSize == 0 ? F::kChunkColumns : W::kGroupSize;
  static constexpr int kGroups = F::kChunkColumns / kGroup;  ///< of a chunk
  /// Columns whose products are a chain of sums, and chains of a group: products wait for few others.
  static constexpr int kChainColumns = kGroup < 64 ? kGroup : 64;
  static constexpr int kChains = kGroup / kChainColumns;

  /// Rows of x that a warp holds together, and 16-byte units of each in a lane: what registers have room for.
  static constexpr int kHeldRows = kTokens > kWarps ? 2 : 1;
  static constexpr int kHeldUnits = 8 / kHeldRows;
  static constexpr int kHeldColumns = kHeldUnits * 256;

  /// Rows of x 64 bytes apart modulo 128: 8 lanes then read 8 different sets of 4 banks.
  static constexpr int kRowPad = 64;
  [[nodiscard]] static LMD_HD int row_bytes(int columns) { return columns * 2 + kRowPad; }
  /// Chunks of a copy: smaller ones than 2 KB keep the copy engine from the memory's rate.
  static constexpr int kStageChunks = F::kChunkBytes < 2048 ? 2 : 1;
  static constexpr int kStageBytes = kStageChunks * F::kChunkBytes;
  /// Sums of a pass that a block receives: of its share of the row tiles, from every block.
  static constexpr int kPartsBytes = kWarps * kTokenGroups * 512;
  static constexpr int kMaxBlocks = 8;  ///< of a cluster
};

/// Where things lie in the shared memory of a block, in bytes: the same in all blocks of a cluster.
template <class S>
struct ResidentShared {
  int x;         ///< behind the ring [warp, stages] of kStageBytes; [kTokens] rows
  int parts;     ///< [2 passes]
  int barriers;  ///< [warp, stages]
  int x_sums;    ///< [group, kTokens] f32
  int scales;    ///< [kTokens] f32: what takes the scale of a token's x back
  int squares;   ///< [block, kTokens] f32: sums of squares of x
  int bytes;

  LMD_HD ResidentShared(int block_chunks, int stages) {
    x = S::kWarps * stages * S::kStageBytes;
    parts = x + S::kTokens * S::row_bytes(block_chunks * S::F::kChunkColumns);
    barriers = parts + 2 * S::kPartsBytes;
    x_sums = barriers + S::kWarps * stages * 8;
    scales = x_sums + block_chunks * S::kGroups * S::kTokens * 4;
    squares = scales + S::kTokens * 4;
    bytes = squares + S::kMaxBlocks * S::kTokens * 4;
  }
};

/// What is multiplied where: clusters share out the row tiles, the blocks of a cluster the chunks of k.
struct ResidentShare {
  int chunks;       ///< of a row tile
  int rank;         ///< of the block in its cluster
  int first_chunk;  ///< of the block
  int last_chunk;   ///< behind it
  int first_tile;   ///< of the cluster
  int last_tile;    ///< behind it

  __device__ __forceinline__ ResidentShare(int n_tiles, int n_chunks, int cluster)
      : chunks(n_chunks) {
    const int clusters = static_cast<int>(gridDim.x) / cluster;
    const int number = static_cast<int>(blockIdx.x) / cluster;
    rank = static_cast<int>(blockIdx.x) - number * cluster;
    first_chunk = chunks * rank / cluster;
    last_chunk = chunks * (rank + 1) / cluster;
    first_tile = n_tiles * number / clusters;
    last_tile = n_tiles * (number + 1) / clusters;
  }
  [[nodiscard]] __device__ __forceinline__ int n_chunks() const { return last_chunk - first_chunk; }
};

/// A warp's row tile of each pass, the block's chunks of it, streamed through a ring of copies of its own. In a
/// pass for which it has no row tile nothing comes.
template <class S>
struct ResidentWeights {
  using F = typename S::F;

  const std::uint8_t* codes;
  std::uint8_t* ring;
  std::uint32_t barriers;
  const ResidentShare& share;
  int stages;
  int next_tile;   ///< of the next copy
  int next_chunk;  ///< that it begins with
  int tile;        ///< of this pass
  int stage = 0;
  std::uint32_t parity = 0;

  __device__ __forceinline__ void start() {
    if (threadIdx.x % 32 == 0) {
#pragma unroll 1
      for (int i = 0; i < stages; ++i)
        init_barrier(barriers + i * 8, 1);
      publish_barriers();
    }
    __syncwarp();
    if (share.first_chunk == share.last_chunk) next_tile = share.last_tile;
#pragma unroll 1
    for (int i = 0; i < stages; ++i)
      fetch(i);
  }
  [[nodiscard]] __device__ __forceinline__ bool has_tile() const {
    return tile < share.last_tile;
  }

  __device__ __forceinline__ void fetch(int into) {
    if (next_tile >= share.last_tile) return;
    const int n = min(S::kStageChunks, share.last_chunk - next_chunk);
    if (threadIdx.x % 32 == 0) {
      expect_bytes(barriers + into * 8, n * F::kChunkBytes);
      bulk_copy(shared_address(ring + into * S::kStageBytes),
                codes + (std::int64_t{next_tile} * share.chunks + next_chunk) * F::kChunkBytes,
                n * F::kChunkBytes, barriers + into * 8);
    }
    next_chunk += n;
    if (next_chunk == share.last_chunk) {
      next_chunk = share.first_chunk;
      next_tile += S::kWarps;
    }
  }
  /// The oldest copy, once it is there. Only where the warp has a row tile.
  [[nodiscard]] const __device__ __forceinline__ std::uint8_t* wait() const {
    wait_barrier(barriers + stage * 8, parity);
    return ring + stage * S::kStageBytes;
  }
  /// The warp has read it.
  __device__ __forceinline__ void release() {
    __syncwarp();
    fetch(stage);
    if (++stage == stages) {
      stage = 0;
      parity ^= 1;
    }
  }
  __device__ __forceinline__ void next_pass() {
    tile += S::kWarps;
  }
};

}  // namespace lmd::kernels::detail
