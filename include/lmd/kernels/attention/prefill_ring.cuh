/// \file  Prefill's pages on their way to the products of sm_90a: a ring of shared memory that one
///        warpgroup fills and the others read. Keys and values are core matrices (see wgmma_matrices) in
///        the order of cache::FragmentKeyTile<16> and FragmentValueTile<16>.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/kernels/attention/prefill_share.cuh>
#include <lmd/kernels/primitive/async_copy.cuh>
#include <lmd/kernels/primitive/wgmma.cuh>

namespace lmd::kernels::detail {

inline constexpr int kRowWarpgroups = 2;  ///< that multiply, each 64 rows of a block's share
inline constexpr int kGroupWarps = 4;     ///< of a warpgroup
inline constexpr int kGroupThreads = kGroupWarps * 32;
inline constexpr int kRingThreads = (1 + kRowWarpgroups) * kGroupThreads;
static_assert(kRowWarpgroups * 64 == kBlockColumns,
              "a share's columns are the rows of its products");

/// What the readers know of a share: its rows, and the pages before its own, which comes first.
struct PrefillRows {
  int n = 0;  ///< 0: there is nothing left to do
  int pages = 0;
};

/// A row: a (token, query head) pair.
struct PrefillRow {
  int last = 0;  ///< token of its page, up to which it sees
  int out = 0;   ///< of [rows, heads]; below 0: the row is none
};

/// A block's shared memory.
template <AttentionPolicy P>
struct PageRing {
  using Unit = typename P::Unit;
  static constexpr int kDim = P::kHeadDim;
  static constexpr int kTileBytes = cache::kPageTokens * kDim * 2;  // keys, or values, of a page
  /// Whether sealed pages are copied into the ring as they lie.
  static constexpr bool kIsStored = kIsStoredInHalves<P>;

  /// Codes and parameters of a page's keys, or values, on their way to be decoded.
  static constexpr int kPartBytes =
      round_up(std::max(Unit::KeyTile::kBytes + Unit::n_params(P::Scheme::Key::kAxis) * 4,
                        Unit::ValueTile::kBytes + Unit::n_params(P::Scheme::Value::kAxis) * 4),
               128);
  static constexpr int kParts = kIsStored ? 0 : 6;

  static constexpr int kQueryBytes = kBlockColumns * kDim * 2;
  static constexpr int kRoom = 225 * 1024;
  static constexpr int kStages =
      std::min(8, (kRoom - kQueryBytes - kParts * kPartBytes) / (2 * kTileBytes));
  static_assert(kStages >= 4, "copies run ahead of the products");
  static constexpr int kPartsAt = kStages * 2 * kTileBytes;
  static constexpr int kQueriesAt = kPartsAt + kParts * kPartBytes;
  static constexpr int kRowAt = kQueriesAt + kQueryBytes;
  static constexpr int kRowsAt = kRowAt + kBlockColumns * static_cast<int>(sizeof(PrefillRow));
  static constexpr int kBarriersAt = kRowsAt + static_cast<int>(sizeof(PrefillRows));
  static constexpr int kBytes = kBarriersAt + (kStages * 4 + kParts * 2 + 2) * 8;
  static_assert(kBytes <= 227 * 1024, "a block of sm_90a has as much");

  std::uint8_t* shared;
  int cluster;  ///< blocks that have the same pages at the same time: each copies its part of a page to all
  int rank;  ///< of this one

  /// Keys (0) or values (1) of a page.
  [[nodiscard]] __device__ __forceinline__ std::uint8_t* tile(int stage, int which) const {
    return shared + (stage * 2 + which) * kTileBytes;
  }
  [[nodiscard]] __device__ __forceinline__ std::uint8_t* part(int stage) const {
    return shared + kPartsAt + stage * kPartBytes;
  }
  /// Elements d to d + 7 (a multiple of 8) of a row's query, rotated, as halves. Lanes 4 g + t of a warp read
  /// elements 8 t of 32 of eight rows side by side.
  [[nodiscard]] __device__ __forceinline__ uint4& query(int row, int d) const {
    return reinterpret_cast<uint4*>(shared +
                                    kQueriesAt)[(d / 32 * kBlockColumns + row) * 4 + d % 32 / 8];
  }
  [[nodiscard]] __device__ __forceinline__ PrefillRow& row(int i) const {
    return reinterpret_cast<PrefillRow*>(shared + kRowAt)[i];
  }
  [[nodiscard]] __device__ __forceinline__ PrefillRows& rows() const {
    return *reinterpret_cast<PrefillRows*>(shared + kRowsAt);
  }

  /// Keys (0) or values (1) of a stage are there; have been read.
  [[nodiscard]] __device__ __forceinline__ std::uint32_t filled(int stage, int which) const {
    return barrier(stage * 4 + which);
  }
  [[nodiscard]] __device__ __forceinline__ std::uint32_t read(int stage, int which) const {
    return barrier(stage * 4 + 2 + which);
  }
  /// A part that is to be decoded is there; has been decoded.
  [[nodiscard]] __device__ __forceinline__ std::uint32_t copied(int stage) const {
    return barrier(kStages * 4 + stage);
  }
  [[nodiscard]] __device__ __forceinline__ std::uint32_t decoded(int stage) const {
    return barrier(kStages * 4 + kParts + stage);
  }
  /// Rows and their queries are there; have been read.
  [[nodiscard]] __device__ __forceinline__ std::uint32_t rows_filled() const {
    return barrier(kStages * 4 + kParts * 2);
  }
  [[nodiscard]] __device__ __forceinline__ std::uint32_t rows_read() const {
    return barrier(kStages * 4 + kParts * 2 + 1);
  }

  /// One thread.
  __device__ __forceinline__ void init() const {
    constexpr int kReaders = kRowWarpgroups * kGroupWarps;
    for (int stage = 0; stage < kStages; ++stage) {
      for (int which = 0; which < 2; ++which) {
        init_barrier(filled(stage, which), kIsStored ? 1 : kGroupWarps);
        init_barrier(read(stage, which), kReaders);
      }
    }
    for (int stage = 0; stage < kParts; ++stage) {
      init_barrier(copied(stage), 1);
      init_barrier(decoded(stage), kGroupWarps);
    }
    init_barrier(rows_filled(), kIsStored ? kGroupWarps - 1 : kGroupWarps);
    init_barrier(rows_read(), kReaders);
    publish_barriers();
  }

 private:
  [[nodiscard]] __device__ __forceinline__ std::uint32_t barrier(int i) const {
    return shared_address(shared + kBarriersAt) + i * 8;
  }
};

/// A place in a ring, and the parity of its barriers' phase.
template <int Stages>
struct RingPlace {
  int stage = 0;
  std::uint32_t parity = 0;

  __device__ __forceinline__ void advance() {
    if (++stage == Stages) {
      stage = 0;
      parity ^= 1;
    }
  }
};

}  // namespace lmd::kernels::detail
