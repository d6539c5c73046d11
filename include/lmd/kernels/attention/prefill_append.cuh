/// \file  Prefill around its attention: RoPE into page buffers, sealing, the page that stays open. Cuda.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/core/launch.cuh>
#include <lmd/kernels/attention/prefill_args.cuh>
#include <lmd/kernels/cache/seal.cuh>
#include <lmd/kernels/primitive/pack.cuh>

namespace lmd::kernels::detail {

inline constexpr int kAppendThreads = 256;
inline constexpr int kAppendTokens = 8;  // of a block: one vector of values

/// One page of a chunk, and the memory that holds its tokens at 16 bit during the step: the open
/// page of the slot for the chunk's first page, which may hold earlier tokens, else scratch.
struct PageSpan {
  SequenceChunk chunk;
  int page = 0;
  int begin = 0, end = 0;  ///< the chunk's tokens within the page
  bool is_first = false;
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
  const std::int64_t tiles = std::int64_t{args.step.kv_heads} * cache::kPageTokens * HeadDim;
  if (span.is_first) {
    span.keys = span.chunk.open_keys + args.open_at;
    span.values = span.chunk.open_values + args.open_at;
  } else {
    span.keys = args.scratch + std::int64_t{i} * 2 * tiles;
    span.values = span.keys + tiles;
  }
  return span;
}

/// Eight neighbouring pairs (r, r + head_dim / 2), rounded to T as Host's rotation in place rounds.
template <Activation T>
__device__ __forceinline__ void rotate_pack(Pack<T>& low,
                                            Pack<T>& high,
                                            const float (&cosine)[8],
                                            const float (&sine)[8]) {
#pragma unroll
  for (int i = 0; i < 8; ++i) {
    const float x = low.x[i];
    const float y = high.x[i];
    low.x[i] = to_float(from_float<T>(x * cosine[i] - y * sine[i]));
    high.x[i] = to_float(from_float<T>(y * cosine[i] + x * sine[i]));
  }
}

template <Activation T>
__device__ __forceinline__ Pack<Half> as_halves(const Pack<T>& pack) {
  static_assert(kPack<T> == kPack<Half>, "Cuda's activations have 16 bits");
  Pack<Half> halves;
#pragma unroll
  for (int i = 0; i < kPack<Half>; ++i)
    halves.x[i] = pack.x[i];
  return halves;
}

/// Queries of tokens [first, first + 8) of a page in place, their keys into the page buffer. A thread
/// keeps its cosines and sines and goes from head to head.
template <int HeadDim, Activation T>
__device__ __forceinline__ void append_keys(const BasicAttentionStepArgs<T>& a,
                                            const PageSpan& span,
                                            int first) {
  constexpr int kHalf = HeadDim / 2;
  constexpr int kVectors = kHalf / 8;
  constexpr int kItems = kAppendTokens * kVectors;
  constexpr int kHeads = kAppendThreads / kItems;  // side by side
  const int t = first + threadIdx.x % kItems / kVectors;
  const int r = threadIdx.x % kVectors * 8;
  const bool is_new = t >= span.begin && t < span.end;
  // What the first page holds beside the new tokens are earlier ones; scratch holds anything.
  if (static_cast<int>(threadIdx.x) >= kHeads * kItems || (!is_new && span.is_first)) return;
  Half* keys = span.keys + cache::FragmentOpenOrder::key_at(t, r, HeadDim);
  if (!is_new) {
    for (int kvh = threadIdx.x / kItems; kvh < a.kv_heads; kvh += kHeads) {
      Half* key = keys + std::int64_t{kvh} * cache::kPageTokens * HeadDim;
      *reinterpret_cast<uint4*>(key) = uint4{};
      *reinterpret_cast<uint4*>(key + kHalf) = uint4{};
    }
    return;
  }
  float cosine[8];
  float sine[8];
  const float* rotation = a.rotation + span.row(t) * HeadDim + r;
#pragma unroll
  for (int i = 0; i < 8; ++i) {
    cosine[i] = rotation[i];
    sine[i] = rotation[kHalf + i];
  }
  T* row = a.qkv + span.row(t) * (a.heads + 2 * a.kv_heads) * HeadDim + r;
  for (int h = threadIdx.x / kItems; h < a.heads + a.kv_heads; h += kHeads) {
    T* head = row + h * HeadDim;
    Pack<T> low = unpack<T>(*reinterpret_cast<const uint4*>(head));
    Pack<T> high = unpack<T>(*reinterpret_cast<const uint4*>(head + kHalf));
    rotate_pack<T>(low, high, cosine, sine);
    if (h < a.heads) {
      *reinterpret_cast<uint4*>(head) = repack<T>(low);
      *reinterpret_cast<uint4*>(head + kHalf) = repack<T>(high);
    } else {
      Half* key = keys + std::int64_t{h - a.heads} * cache::kPageTokens * HeadDim;
      *reinterpret_cast<uint4*>(key) = repack(as_halves<T>(low));
      *reinterpret_cast<uint4*>(key + kHalf) = repack(as_halves<T>(high));
    }
  }
}

/// Values of tokens [first, first + 8) of a page into the page buffer; a thread takes two elements of
/// a head, of all eight tokens.
template <int HeadDim, Activation T>
__device__ __forceinline__ void append_values(const BasicAttentionStepArgs<T>& a,
                                              const PageSpan& span,
                                              int first) {
  constexpr int kPairs = HeadDim / 2;
  const std::int64_t stride = std::int64_t{a.heads + 2 * a.kv_heads} * HeadDim;
  const int begin = max(span.begin - first, 0);
  const int end = min(span.end - first, kAppendTokens);
  if (begin >= end && span.is_first) return;
  const bool is_whole = !span.is_first || (begin == 0 && end == kAppendTokens);
  const T* rows = a.qkv + span.row(first) * stride + (a.heads + a.kv_heads) * HeadDim;
  for (int item = threadIdx.x; item < a.kv_heads * kPairs; item += kAppendThreads) {
    const int kvh = item / kPairs;
    const int d = item % kPairs * 2;
    Pack<Half> low;  // element d of the tokens
    Pack<Half> high;
#pragma unroll
    for (int i = 0; i < kAppendTokens; ++i) {
      if (i < begin || i >= end) continue;
      const auto pair =
          *reinterpret_cast<const std::uint32_t*>(rows + i * stride + kvh * HeadDim + d);
      low.x[i] = to_float(T{static_cast<std::uint16_t>(pair)});
      high.x[i] = to_float(T{static_cast<std::uint16_t>(pair >> 16)});
    }
    Half* to = span.values + std::int64_t{kvh} * cache::kPageTokens * HeadDim +
               cache::FragmentOpenOrder::value_at(first, d, HeadDim);
    if (is_whole) {
      *reinterpret_cast<uint4*>(to) = repack<Half>(low);
      *reinterpret_cast<uint4*>(to + 16) = repack<Half>(high);
      continue;
    }
#pragma unroll
    for (int i = 0; i < kAppendTokens; ++i) {
      if (i < begin || i >= end) continue;
      to[i] = to_half(low.x[i]);
      to[16 + i] = to_half(high.x[i]);
    }
  }
}

/// Grid: pages, eighths of a page.
template <AttentionPolicy P, Activation T>
__global__ void __launch_bounds__(kAppendThreads)
    prefill_append_kernel(const __grid_constant__ PrefillStepArgs<T> args) {
  wait_for_previous_kernel();
  allow_next_kernel();
  const PageSpan span = page_span<P::kHeadDim>(args, blockIdx.x);
  const int first = blockIdx.y * kAppendTokens;
  append_keys<P::kHeadDim>(args.step, span, first);
  append_values<P::kHeadDim>(args.step, span, first);
}

/// Seals what is full. Grid: pages, KV heads.
template <AttentionPolicy P, Activation T>
__global__ void __launch_bounds__(kSealThreads)
    prefill_seal_kernel(const __grid_constant__ PrefillStepArgs<T> args) {
  __shared__ __align__(16) std::uint8_t bytes[sizeof(SealShared<P::kHeadDim>)];
  auto& shared = *reinterpret_cast<SealShared<P::kHeadDim>*>(bytes);
  wait_for_previous_kernel();
  allow_next_kernel();
  const PageSpan span = page_span<P::kHeadDim>(args, blockIdx.x);
  if (!span.is_full()) return;
  const int kvh = blockIdx.y;
  const std::int64_t tile = std::int64_t{kvh} * cache::kPageTokens * P::kHeadDim;
  const std::int64_t id = span.chunk.page_ids[span.page];
  seal_unit_by_block<typename P::Unit, kSealThreads>(
      {.unit = args.step.pool + id * args.step.page_bytes + std::int64_t{kvh} * P::Unit::kBytes,
       .keys = span.keys + tile,
       .values = span.values + tile},
      shared);
}

/// A partial last page goes from scratch into the slot's open page. Grid: pages, KV heads.
template <AttentionPolicy P, Activation T>
__global__ void __launch_bounds__(kAppendThreads)
    prefill_keep_open_kernel(const __grid_constant__ PrefillStepArgs<T> args) {
  constexpr int kTile = cache::kPageTokens * P::kHeadDim;
  wait_for_previous_kernel();
  allow_next_kernel();
  const PageSpan span = page_span<P::kHeadDim>(args, blockIdx.x);
  if (span.is_first || span.is_full()) return;
  const std::int64_t tile = std::int64_t{blockIdx.y} * kTile;
  const auto* keys = reinterpret_cast<const uint4*>(span.keys + tile);
  const auto* values = reinterpret_cast<const uint4*>(span.values + tile);
  auto* open_keys = reinterpret_cast<uint4*>(span.chunk.open_keys + args.open_at + tile);
  auto* open_values = reinterpret_cast<uint4*>(span.chunk.open_values + args.open_at + tile);
  for (int i = threadIdx.x; i < kTile / 8; i += kAppendThreads) {
    open_keys[i] = keys[i];
    open_values[i] = values[i];
  }
}

}  // namespace lmd::kernels::detail
