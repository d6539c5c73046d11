/// \file  Attention of one query per sequence, host backend: the definition of the operation.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/kernels/attention/prefill.hpp>

namespace lmd::kernels {

/// Plain data, the same for every backend and every policy.
template <Activation T>
struct BasicDecodeAttnArgs {
  T* out = nullptr;                   ///< [batch, heads, head_dim], rows out_stride apart
  const T* q = nullptr;               ///< [batch, heads, head_dim] after RoPE, rows q_stride apart
  std::int64_t out_stride = 0;        ///< elements
  std::int64_t q_stride = 0;          ///< elements
  const cache::KvView* kv = nullptr;  ///< [batch] open pages hold the new tokens already
  const int* positions = nullptr;     ///< [batch] of the query
  int batch = 0;
  int heads = 0;
  int kv_heads = 0;  ///< divides heads
};
using DecodeAttnArgs = BasicDecodeAttnArgs<float>;

/// out[b, h] = sum_t softmax_t(q[b, h] . k[b, t] / sqrt(head_dim)) v[b, t],   t <= positions[b]
template <AttentionPolicy P, Activation T = float>
void decode_attention(Host, const BasicDecodeAttnArgs<T>& a) {
  for (int b = 0; b < a.batch; ++b) {
    prefill_attention<P, T>(Host{}, {.out = a.out + b * a.out_stride,
                                     .q = a.q + b * a.q_stride,
                                     .out_stride = a.out_stride,
                                     .q_stride = a.q_stride,
                                     .kv = a.kv[b],
                                     .position = a.positions[b],
                                     .n = 1,
                                     .heads = a.heads,
                                     .kv_heads = a.kv_heads});
  }
}

}  // namespace lmd::kernels
