/// \file  Prefill before its attention: RoPE of new keys, pages that become full are sealed, the last one
///        stays open. Cuda.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/core/launch.cuh>
#include <lmd/kernels/attention/prefill_args.cuh>
#include <lmd/kernels/attention/rotated_head.cuh>
#include <lmd/kernels/cache/seal.cuh>
#include <lmd/kernels/primitive/pack.cuh>
#include <lmd/kernels/primitive/wgmma.cuh>

namespace lmd::kernels::detail {

inline constexpr int kAppendThreads = kSealThreads;

/// One page of a chunk, and the memory that holds its tokens at 16 bit for the step's attention: the open
/// page of the slot where it stays open, else scratch.
struct PageSpan {
  SequenceChunk chunk;
  int page = 0;
  int begin = 0, end = 0;  ///< the chunk's tokens within the page
  bool is_first = false;   ///< of the chunk: it may hold earlier tokens
  Half* keys = nullptr;    ///< [kv_heads, 64 * head_dim]
  Half* values = nullptr;  ///< [kv_heads, 64 * head_dim]

  /// The row of token t of the page.
  [[nodiscard]] __device__ __forceinline__ std::int64_t row(int t) const {
    return std::int64_t{chunk.first_row} + page * cache::kPageTokens + t - chunk.position;
  }
  /// Whether the chunk holds or ends the page's last token.
  [[nodiscard]] __device__ __forceinline__ bool is_full() const {
    return end == cache::kPageTokens;
  }
};

/// Of page i of the step's list.
template <int HeadDim, Activation T>
__device__ __forceinline__ PageSpan page_span(const PrefillStepArgs<T>& args, int i) {
  const PrefillPage page = args.pages[i];
  PageSpan span{.chunk = args.step.chunks[page.chunk], .page = page.page};
  const int before = page.page * cache::kPageTokens;
  span.begin = max(span.chunk.position - before, 0);
  span.end = min(span.chunk.position + span.chunk.n - before, cache::kPageTokens);
  span.is_first = page.page == span.chunk.position / cache::kPageTokens;
  span.chunk.open_keys += args.open_at;
  span.chunk.open_values += args.open_at;
  if (span.is_full()) {
    const std::int64_t tiles = std::int64_t{args.step.kv_heads} * cache::kPageTokens * HeadDim;
    span.keys = args.scratch + std::int64_t{i} * 2 * tiles;
    span.values = span.keys + tiles;
  } else {
    span.keys = span.chunk.open_keys;
    span.values = span.chunk.open_values;
  }
  return span;
}

/// Whether the products of sm_90a read sealed pages as they lie: then no full page is kept at 16 bit.
template <AttentionPolicy P>
inline constexpr bool kIsStoredInHalves =
    P::Scheme::Key::kBits == 16 && P::Scheme::Value::kBits == 16;

template <Activation T>
__device__ __forceinline__ uint4 to_halves(const uint4& x) {
  if constexpr (std::same_as<T, Half>) {
    return x;
  } else {
    const Pack<T> pack = unpack<T>(x);
    Pack<Half> halves;
#pragma unroll
    for (int i = 0; i < kPack<Half>; ++i)
      halves.x[i] = pack.x[i];
    return repack<Half>(halves);
  }
}

/// A page and KV head, by a block.
template <AttentionPolicy P, Activation T>
struct PageAppend {
  using Shared = SealShared<P::kHeadDim>[2];  // of keys, of values
  using Order = cache::FragmentOpenOrder;
  using Unit = typename P::Unit;
  static constexpr int kDim = P::kHeadDim;
  static constexpr int kHalf = kDim / 2;
  static constexpr bool kIsStored = kHasWgmma && kIsStoredInHalves<P>;

  const BasicAttentionStepArgs<T>& a;
  const PageSpan& span;
  int kvh;
  Shared& shared;

  std::int64_t tile = std::int64_t{kvh} * cache::kPageTokens * kDim;
  bool is_kept = !kIsStored || !span.is_full();  ///< at 16 bit

  __device__ __forceinline__ void append() {
    std::uint8_t* unit = nullptr;
    if (span.is_full()) {
      const std::int64_t id = span.chunk.page_ids[span.page];
      unit = a.pool + id * a.page_bytes + std::int64_t{kvh} * Unit::kBytes;
    }
    if (kIsStored && unit != nullptr && span.begin == 0) {
      store_keys(unit);
      store_values(unit + Unit::kValuesAt);
      return;
    }
    __syncthreads();  // what the block staged last has been read
    append_keys();
    stage_values();
    __syncthreads();
    if (is_kept) keep_values();
    if (unit == nullptr) return;
    seal_staged_keys<Unit, kAppendThreads>(shared[0], unit);
    seal_staged_values<Unit, kAppendThreads>(shared[1], unit);
  }

 private:
  [[nodiscard]] __device__ __forceinline__ bool is_new(int t) const {
    return t >= span.begin && t < span.end;
  }
  /// Key (0) or value (1) of a new token.
  [[nodiscard]] const __device__ __forceinline__ T* head(int t, int which) const {
    return a.qkv +
           (span.row(t) * (a.heads + 2 * a.kv_heads) + a.heads + which * a.kv_heads + kvh) * kDim;
  }
  __device__ __forceinline__ void stage(int which, int t, int d, const uint4& x) const {
    constexpr int kStride = SealShared<kDim>::kStride;
    auto* words = reinterpret_cast<std::uint32_t*>(shared[which].elements + t * kStride + d);
    words[0] = x.x;
    words[1] = x.y;
    words[2] = x.z;
    words[3] = x.w;
  }

  /// Elements r to r + 7 and their partners of a new token's key after RoPE.
  __device__ __forceinline__ void rotated_key(int t, int r, uint4& low, uint4& high) const {
    const T* key = head(t, 0) + r;
    const uint4 x = *reinterpret_cast<const uint4*>(key);
    const uint4 y = *reinterpret_cast<const uint4*>(key + kHalf);
    const float* cosine = a.rotation + span.row(t) * kDim + r;
    low = rotate<T>(x, y, cosine, cosine + kHalf, -1.0f);
    high = rotate<T>(y, x, cosine, cosine + kHalf, 1.0f);
  }

  /// All of a page's keys -> cache::FragmentKeyTile<16>. A warp has eight tokens that are the rows of core
  /// matrices; word w of four lanes' elements is a row of matrix w.
  __device__ __forceinline__ void store_keys(std::uint8_t* to) const {
    constexpr int kVectors = kHalf / 8;  // of a token: pairs of them
    constexpr int kQuads = ceil_div(kVectors, 4);
    constexpr int kWarps = kAppendThreads / 32;
    const int row = threadIdx.x % 32 / 4;
#pragma unroll
    for (int n = 0; n < 8 * kQuads / kWarps; ++n) {
      const int item = n * kWarps + static_cast<int>(threadIdx.x) / 32;
      const int rows = item / kQuads;
      const int r = (item % kQuads * 4 + static_cast<int>(threadIdx.x) % 4) * 8;
      const int token = row / 2 * 16 + rows / 2 * 4 + row % 2 * 2 + rows % 2;
      if (kVectors % 4 != 0 && r >= kHalf) continue;
      uint4 low;
      uint4 high;
      rotated_key(token, r, low, high);
      std::uint8_t* at = to + rows * (kDim * 16) + row * 16;
      store_key_words(at, r, low);
      store_key_words(at, r + kHalf, high);
    }
  }
  __device__ __forceinline__ static void store_key_words(std::uint8_t* row, int d, const uint4& x) {
    auto* words = reinterpret_cast<std::uint32_t*>(row + d / 32 * 512 + d % 32 / 8 * 4);
    words[0] = x.x;
    words[32] = x.y;
    words[64] = x.z;
    words[96] = x.w;
  }

  /// All of a page's values -> cache::FragmentValueTile<16>. A warp has 32 elements of eight tokens, and
  /// transposes them.
  __device__ __forceinline__ void store_values(std::uint8_t* to) const {
    constexpr int kParts = kDim / 32;
    constexpr int kWarps = kAppendThreads / 32;
    const int g = threadIdx.x % 32 / 4;
    const int t = threadIdx.x % 4;
#pragma unroll
    for (int n = 0; n < kParts; ++n) {
      const int item = n * kWarps + static_cast<int>(threadIdx.x) / 32;
      const int part = item / 8;
      const int tile_of_tokens = item % 8 / 2;
      const int right = item % 2;
      const int token = g / 2 * 16 + tile_of_tokens * 4 + g % 2 * 2 + right;
      const uint4 x =
          to_halves<T>(*reinterpret_cast<const uint4*>(head(token, 1) + part * 32 + t * 8));
      const std::uint32_t words[4] = {x.x, x.y, x.z, x.w};
#pragma unroll
      for (int w = 0; w < 4;
           ++w) {  // elements 8 t + 2 w, 8 t + 2 w + 1 of the part are columns 2 t, 2 t + 1
        const int d = part * 32 + g / 2 * 8 + w * 2 + g % 2;
        auto* at = reinterpret_cast<std::uint32_t*>(to + tile_of_tokens * (kDim * 32) +
                                                    d / 8 * 256 + right * 128 + d % 8 * 16 + t * 4);
        *at = transpose_8x8(words[w]);
      }
    }
  }

  /// Keys of new tokens after RoPE and of earlier ones, staged and kept; a token that is neither is zero.
  __device__ __forceinline__ void append_keys() const {
    constexpr int kVectors = kHalf / 8;  // of a token: pairs of them
    constexpr int kItems = cache::kPageTokens * kVectors;
#pragma unroll
    for (int n = 0; n < ceil_div(kItems, kAppendThreads); ++n) {
      const int item = n * kAppendThreads + threadIdx.x;
      const int t = item / kVectors;
      const int r = item % kVectors * 8;
      if (kItems % kAppendThreads != 0 && item >= kItems) break;
      uint4 low{};
      uint4 high{};
      if (is_new(t)) {
        rotated_key(t, r, low, high);
      } else if (t < span.begin) {
        const Half* key = span.chunk.open_keys + tile + Order::key_at(t, r, kDim);
        low = *reinterpret_cast<const uint4*>(key);
        high = *reinterpret_cast<const uint4*>(key + kHalf);
      }
      stage(0, t, r, low);
      stage(0, t, r + kHalf, high);
      if (!is_kept || !is_written(t)) continue;
      Half* to = span.keys + tile + Order::key_at(t, r, kDim);
      *reinterpret_cast<uint4*>(to) = low;
      *reinterpret_cast<uint4*>(to + kHalf) = high;
    }
  }

  /// A page of earlier tokens that stays open keeps what it has beside the new ones.
  [[nodiscard]] __device__ __forceinline__ bool is_written(int t) const {
    return span.is_full() || !span.is_first || is_new(t);
  }

  /// Values as append_keys stages keys.
  __device__ __forceinline__ void stage_values() const {
    constexpr int kVectors = kDim / 8;  // of a token
    constexpr int kItems = cache::kPageTokens * kVectors;
#pragma unroll
    for (int n = 0; n < kItems / kAppendThreads; ++n) {
      const int item = n * kAppendThreads + threadIdx.x;
      const int t = item / kVectors;
      const int d = item % kVectors * 8;
      uint4 x{};
      if (is_new(t)) {
        x = to_halves<T>(*reinterpret_cast<const uint4*>(head(t, 1) + d));
      } else if (t < span.begin) {
        Pack<Half> early;
#pragma unroll
        for (int i = 0; i < 8; ++i)
          early.x[i] = to_float(span.chunk.open_values[tile + Order::value_at(t, d + i, kDim)]);
        x = repack<Half>(early);
      }
      stage(1, t, d, x);
    }
  }

  /// Staged values in the open order: a thread has 16 tokens of an element.
  __device__ __forceinline__ void keep_values() const {
    constexpr int kStride = SealShared<kDim>::kStride;
    for (int item = threadIdx.x; item < 4 * kDim; item += kAppendThreads) {
      const int first = item / kDim * 16;
      const int d = item % kDim;
      const Half* from = shared[1].elements + first * kStride + d;
      Half* to = span.values + tile + Order::value_at(first, d, kDim);
      if (is_written(first) && is_written(first + 15)) {
        std::uint32_t words[8];
#pragma unroll
        for (int i = 0; i < 8; ++i)
          words[i] = from[2 * i * kStride].bits | std::uint32_t{from[(2 * i + 1) * kStride].bits}
                                                      << 16;
        reinterpret_cast<uint4*>(to)[0] = {words[0], words[1], words[2], words[3]};
        reinterpret_cast<uint4*>(to)[1] = {words[4], words[5], words[6], words[7]};
        continue;
      }
#pragma unroll
      for (int i = 0; i < 16; ++i) {
        if (is_written(first + i)) to[i] = from[i * kStride];
      }
    }
  }
};

/// Grid: the KV heads of each page. A page that stays open takes the place of the chunk's first page, once that has
/// been read: the same block appends to both.
template <AttentionPolicy P, Activation T>
__global__ void __launch_bounds__(kAppendThreads)
    prefill_append_kernel(const __grid_constant__ PrefillStepArgs<T> args) {
  using Append = PageAppend<P, T>;
  __shared__ __align__(16) std::uint8_t bytes[sizeof(typename Append::Shared)];
  auto& shared = *reinterpret_cast<typename Append::Shared*>(bytes);
  wait_for_previous_kernel();
  allow_next_kernel();
  const int kvh = static_cast<int>(blockIdx.x) % args.step.kv_heads;
  const int i = static_cast<int>(blockIdx.x) / args.step.kv_heads;
  const PageSpan span = page_span<P::kHeadDim>(args, i);
  if (!span.is_full() && !span.is_first) return;
  Append{args.step, span, kvh, shared}.append();
  const int end = span.chunk.position + span.chunk.n;
  const int pages = end / cache::kPageTokens - span.page;  // up to the one that stays open
  if (!span.is_first || pages == 0 || end % cache::kPageTokens == 0) return;
  const PageSpan last = page_span<P::kHeadDim>(args, i + pages);
  Append{args.step, last, kvh, shared}.append();
}

}  // namespace lmd::kernels::detail
