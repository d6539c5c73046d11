/// \file  The warpgroup that fills prefill's ring: with queries, with pages copied as they are stored, or
///        decoded. sm_90a.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/kernels/attention/prefill_arrange.cuh>
#include <lmd/kernels/attention/prefill_decode.cuh>
#include <lmd/kernels/attention/prefill_ring.cuh>

namespace lmd::kernels::detail {

/// Ids of a sequence's pages, which a warp reads 32 at a time.
struct PageIds {
  const std::int32_t* ids;
  int n;
  int lane;
  int first = -32;
  std::int32_t read = 0;

  /// Of page i. Calls for neighbouring pages follow each other.
  [[nodiscard]] __device__ __forceinline__ std::int32_t of(int i) {
    if (i - first >= 32) {
      first = i / 32 * 32;
      read = first + lane < n ? ids[first + lane] : 0;
    }
    return __shfl_sync(0xffffffffu, read, i - first);
  }
};

/// The shares of a block, one after another, as all of its warps see them.
template <int HeadDim, Activation T>
struct ShareWalk {
  const PrefillStepArgs<T>& args;
  int round = 0;

  /// False where there are no more.
  [[nodiscard]] __device__ __forceinline__ bool next(PrefillShare& share) {
    const int group = args.step.heads / args.step.kv_heads;
    const int shares = args.n_pages * args.step.kv_heads * blocks_of_page(group);
    const int blocks = static_cast<int>(gridDim.x);
    const int block = static_cast<int>(blockIdx.x);
    while (round * blocks < shares) {
      // There and back, so that all blocks get light and heavy ones.
      const int i = round * blocks + (round % 2 == 0 ? block : blocks - 1 - block);
      ++round;
      if (i >= shares) continue;
      find_share<HeadDim>(args, i, share);
      if (share.n_columns > 0) return true;
    }
    return false;
  }
};

/// Brings the rows of shares and their queries, after RoPE, by some warps.
template <AttentionPolicy P, Activation T, int Threads>
struct RowsFiller {
  using Ring = PageRing<P>;
  static constexpr int kDim = P::kHeadDim;

  const PrefillStepArgs<T>& args;
  const Ring& ring;
  int thread;
  std::uint32_t parity = 1;

  __device__ __forceinline__ void fill(const PrefillShare& share) {
    const BasicAttentionStepArgs<T>& a = args.step;
    const std::int64_t stride = std::int64_t{a.heads + 2 * a.kv_heads} * kDim;
    constexpr int kVectors = kDim / 16;  // of a row: pairs of them
    wait_barrier(ring.rows_read(), parity);
#pragma unroll 2
    for (int item = thread; item < share.n_columns * kVectors; item += Threads) {
      const int row = item / kVectors;
      const int r = item % kVectors * 8;
      const int token = share.token_of(row);
      const int head = share.head_of(row);
      const std::int64_t at = share.span.row(token);
      const T* q = a.qkv + at * stride + std::int64_t{head} * kDim + r;
      const uint4 x = *reinterpret_cast<const uint4*>(q);
      const uint4 y = *reinterpret_cast<const uint4*>(q + kDim / 2);
      const float* cosine = a.rotation + at * kDim + r;
      ring.query(row, r) = rotate<T>(x, y, cosine, cosine + kDim / 2, -1.0f);
      ring.query(row, r + kDim / 2) = rotate<T>(y, x, cosine, cosine + kDim / 2, 1.0f);
      if (r == 0) ring.row(row) = {token, static_cast<int>(at) * a.heads + head};
    }
    tell({share.n_columns, share.span.page});
  }
  __device__ __forceinline__ void end() {
    wait_barrier(ring.rows_read(), parity);
    tell({});
  }

 private:
  __device__ __forceinline__ void tell(const PrefillRows& rows) {
    if (thread == 0) ring.rows() = rows;
    __syncwarp();
    if (thread % 32 == 0) arrive_at(ring.rows_filled());
    parity ^= 1;
  }
};

/// Copies pages of halves, by one warp.
template <AttentionPolicy P, Activation T>
struct PageCopier {
  using Ring = PageRing<P>;
  using Unit = typename P::Unit;
  static constexpr int kDim = P::kHeadDim;

  const PrefillStepArgs<T>& args;
  const Ring& ring;
  int lane;
  RingPlace<Ring::kStages> place;

  __device__ __forceinline__ void fill(const PrefillShare& share) {
    const PageSpan& span = share.span;
    PageIds ids{.ids = span.chunk.page_ids, .n = span.page, .lane = lane};
    if (span.is_full()) {
      copy(share, span.chunk.page_ids[span.page]);
    } else {
      arrange(share);
    }
#pragma unroll 1
    for (int page = 0; page < span.page; ++page)
      copy(share, ids.of(page));
  }

 private:
  __device__ __forceinline__ void wait_read(int which) const {
    wait_barrier(ring.read(place.stage, which), place.parity ^ 1);
  }
  __device__ __forceinline__ void copy(const PrefillShare& share, std::int32_t id) {
    const std::uint8_t* unit =
        args.step.pool + id * args.step.page_bytes + std::int64_t{share.kvh} * Unit::kBytes;
#pragma unroll
    for (int which = 0; which < 2; ++which) {
      wait_read(which);
      if (lane == 0) {
        const std::uint32_t filled = ring.filled(place.stage, which);
        expect_bytes(filled, Ring::kTileBytes);
        bulk_copy(shared_address(ring.tile(place.stage, which)), unit + which * Unit::kValuesAt,
                  Ring::kTileBytes, filled);
      }
      __syncwarp();
    }
    place.advance();
  }
  /// The share's own page, which stays open.
  __device__ __forceinline__ void arrange(const PrefillShare& share) {
    const std::int64_t tile = std::int64_t{share.kvh} * cache::kPageTokens * kDim;
#pragma unroll
    for (int which = 0; which < 2; ++which) {
      wait_read(which);
      std::uint8_t* to = ring.tile(place.stage, which);
      if (which == 0) {
        arrange_open_keys<kDim, 32>(to, share.span.keys + tile, lane);
      } else {
        arrange_open_values<kDim, 32>(to, share.span.values + tile, lane);
      }
      fence_before_copies();
      __syncwarp();
      if (lane == 0) arrive_at(ring.filled(place.stage, which));
    }
    place.advance();
  }
};

/// Decodes pages, each warp a quarter. Who reads the ring orders its products behind what is written here
/// (fence_before_copies): a fence of these warps would wait for the copies that they have queued.
template <AttentionPolicy P, Activation T>
struct PageDecoder {
  using Ring = PageRing<P>;
  using Unit = typename P::Unit;
  static constexpr int kDim = P::kHeadDim;
  static constexpr int kParts = std::max(Ring::kParts, 1);
  /// Parts between the one that is decoded and the one whose place is copied to again: so many that the other
  /// warps have read it, too.
  static constexpr int kBehind = 2;

  const PrefillStepArgs<T>& args;
  const Ring& ring;
  int warp;
  int lane;
  RingPlace<Ring::kStages> place;
  RingPlace<kParts> decoded;   ///< part that is decoded next
  RingPlace<kParts> refilled;  ///< place that is copied to next, and when it has been read

  __device__ __forceinline__ void fill(const PrefillShare& share) {
    PageIds ids{.ids = share.span.chunk.page_ids, .n = share.span.page, .lane = lane};
    const int parts = 2 * share.span.page;  // keys, then values of each page
    const int thread = warp * 32 + lane;
#pragma unroll 1
    for (int i = 0; i < kParts - kBehind; ++i)
      fetch(share, ids, i, parts);
    begin<0>();
    arrange_open_keys<kDim, kGroupThreads>(ring.tile(place.stage, 0), open(share, 0), thread);
    tell<0>();
    begin<1>();
    arrange_open_values<kDim, kGroupThreads>(ring.tile(place.stage, 1), open(share, 1), thread);
    tell<1>();
#pragma unroll 1
    for (int i = 0; i < parts; i += 2) {
      fetch(share, ids, i + kParts - kBehind, parts);
      decode<0>();
      fetch(share, ids, i + 1 + kParts - kBehind, parts);
      decode<1>();
    }
  }

 private:
  /// Keys (0) or values (1) of the share's own page at 16 bit.
  [[nodiscard]] const __device__ __forceinline__ Half* open(const PrefillShare& share,
                                                            int which) const {
    return (which == 0 ? share.span.keys : share.span.values) +
           std::int64_t{share.kvh} * cache::kPageTokens * kDim;
  }
  template <int Which>
  __device__ __forceinline__ void begin() const {
    wait_barrier(ring.read(place.stage, Which), place.parity ^ 1);
  }
  template <int Which>
  __device__ __forceinline__ void tell() {
    __syncwarp();
    if (lane == 0) arrive_at(ring.filled(place.stage, Which));
    if (Which == 1) place.advance();
  }
  /// This warp's quarter of the oldest part.
  template <int Which>
  __device__ __forceinline__ void decode() {
    begin<Which>();
    wait_barrier(ring.copied(decoded.stage), decoded.parity);
    decode_tile<P, Which == 1>(ring.tile(place.stage, Which), ring.part(decoded.stage), warp, lane);
    tell<Which>();
    if (lane == 0) arrive_at(ring.decoded(decoded.stage));
    decoded.advance();
  }
  /// Queues the copies of part i, where there is one. Warps take turns.
  __device__ __forceinline__ void fetch(const PrefillShare& share, PageIds& ids, int i, int parts) {
    if (i >= parts) return;
    if (i % kGroupWarps == warp) {
      const std::int32_t id = ids.of(i / 2);
      wait_barrier(ring.decoded(refilled.stage), refilled.parity ^ 1);
      if (lane == 0) copy(share, id, i % 2);
    }
    refilled.advance();
  }
  __device__ __forceinline__ void copy(const PrefillShare& share,
                                       std::int32_t id,
                                       int which) const {
    using Key = typename P::Scheme::Key;
    using Value = typename P::Scheme::Value;
    const std::uint8_t* unit =
        args.step.pool + id * args.step.page_bytes + std::int64_t{share.kvh} * Unit::kBytes;
    const int bytes = which == 0 ? Unit::KeyTile::kBytes : Unit::ValueTile::kBytes;
    const int param_bytes = 4 * Unit::n_params(which == 0 ? Key::kAxis : Value::kAxis);
    const std::uint32_t to = shared_address(ring.part(refilled.stage));
    const std::uint32_t copied = ring.copied(refilled.stage);
    expect_bytes(copied, bytes + param_bytes);
    bulk_copy(to, unit + (which == 0 ? 0 : Unit::kValuesAt), bytes, copied);
    bulk_copy(to + bytes, unit + (which == 0 ? Unit::kKeyParamsAt : Unit::kValueParamsAt),
              param_bytes, copied);
  }
};

/// The warpgroup's work, `warp` of four. Copying takes one warp; the others go ahead with queries.
template <AttentionPolicy P, Activation T>
__device__ __forceinline__ void fill_ring(const PrefillStepArgs<T>& args,
                                          const PageRing<P>& ring,
                                          int warp,
                                          int lane) {
  ShareWalk<P::kHeadDim, T> walk{args};
  PrefillShare share;
  if constexpr (PageRing<P>::kIsStored) {
    if (warp == 0) {
      PageCopier<P, T> pages{args, ring, lane};
      while (walk.next(share))
        pages.fill(share);
    } else {
      RowsFiller<P, T, 96> rows{args, ring, (warp - 1) * 32 + lane};
      while (walk.next(share))
        rows.fill(share);
      rows.end();
    }
  } else {
    PageDecoder<P, T> pages{args, ring, warp, lane};
    RowsFiller<P, T, kGroupThreads> rows{args, ring, warp * 32 + lane};
    while (walk.next(share)) {
      rows.fill(share);
      pages.fill(share);
    }
    rows.end();
  }
}

}  // namespace lmd::kernels::detail
