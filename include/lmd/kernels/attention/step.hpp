/// \file  One layer's whole attention step over a ragged batch: append, attend, seal.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/kernels/attention/prefill.hpp>
#include <lmd/kernels/cache/append.hpp>
#include <lmd/kernels/cache/seal.hpp>

#include <algorithm>

namespace lmd::kernels {

/// Consecutive tokens of one sequence in a step: one when decoding, many in prefill.
struct SequenceChunk {
  int first_row = 0;            ///< of qkv, rotation and out
  int n = 0;                    ///< tokens; any number of pages may be crossed
  int position = 0;             ///< of the first token
  Half* open_keys = nullptr;    ///< [kv_heads, head_dim * 64] of this layer, in the open order
  Half* open_values = nullptr;  ///< [kv_heads, head_dim * 64] of this layer, in the open order
  const std::int32_t* page_ids = nullptr;  ///< [(position + n) / 64] sealed pages, by position
};

template <Activation T>
struct BasicAttentionStepArgs {
  T* out = nullptr;                 ///< [rows, heads, head_dim]
  T* qkv = nullptr;                 ///< [rows, (heads + 2 kv_heads) head_dim]; rotated in place
  const float* rotation = nullptr;  ///< [rows, head_dim] as rope_rotation makes it
  const SequenceChunk* chunks = nullptr;  ///< [n_chunks] of different sequences
  std::uint8_t* pool = nullptr;           ///< this layer's part of page 0
  std::int64_t page_bytes = 0;            ///< from one page id to the next, in this layer
  int n_chunks = 0;
  int heads = 0;
  int kv_heads = 0;  ///< divides heads
};
using AttentionStepArgs = BasicAttentionStepArgs<float>;

/// Walks each chunk page by page. A page that becomes full is sealed after its last query has been
/// answered and before the first query of the next page, so decode and prefill of any chunking see
/// the same cache.
template <AttentionPolicy P, Activation T = float>
void attention_step(Host, const BasicAttentionStepArgs<T>& a) {
  constexpr int kDim = P::kHeadDim;
  const std::int64_t qkv_stride = std::int64_t{a.heads + 2 * a.kv_heads} * kDim;
  const std::int64_t out_stride = std::int64_t{a.heads} * kDim;
  for (int c = 0; c < a.n_chunks; ++c) {
    const SequenceChunk& chunk = a.chunks[c];
    int n = 0;
    for (int done = 0; done < chunk.n; done += n) {
      const int position = chunk.position + done;
      const std::int64_t row = chunk.first_row + done;
      n = std::min(chunk.n - done, cache::kPageTokens - position % cache::kPageTokens);
      append<typename P::Open, T>(Host{}, {.qkv = a.qkv + row * qkv_stride,
                                           .qkv_stride = qkv_stride,
                                           .rotation = a.rotation + row * kDim,
                                           .open_keys = chunk.open_keys,
                                           .open_values = chunk.open_values,
                                           .position = position,
                                           .n = n,
                                           .heads = a.heads,
                                           .kv_heads = a.kv_heads,
                                           .head_dim = kDim});
      const cache::KvView kv{a.pool, chunk.page_ids, a.page_bytes, chunk.open_keys,
                             chunk.open_values};
      prefill_attention<P, T>(Host{}, {.out = a.out + row * out_stride,
                                       .q = a.qkv + row * qkv_stride,
                                       .out_stride = out_stride,
                                       .q_stride = qkv_stride,
                                       .kv = kv,
                                       .position = position,
                                       .n = n,
                                       .heads = a.heads,
                                       .kv_heads = a.kv_heads});
      if ((position + n) % cache::kPageTokens != 0) continue;
      const int page = position / cache::kPageTokens;
      for (int kvh = 0; kvh < a.kv_heads; ++kvh) {
        seal_unit<typename P::Unit, typename P::Open>(
            Host{}, {.unit = a.pool + chunk.page_ids[page] * a.page_bytes +
                             std::int64_t{kvh} * P::Unit::kBytes,
                     .keys = chunk.open_keys + std::int64_t{kvh} * kDim * cache::kPageTokens,
                     .values = chunk.open_values + std::int64_t{kvh} * cache::kPageTokens * kDim});
      }
    }
  }
}

}  // namespace lmd::kernels
