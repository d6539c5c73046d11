/// \file  RoPE and the write into the open page, host backend: the definition of the operation.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/cache/tile.hpp>
#include <lmd/core/activation.hpp>
#include <lmd/kernels/elementwise/rope.hpp>

namespace lmd::kernels {

/// `n` consecutive tokens of one sequence, all in the same page: position % 64 + n <= 64.
template <Activation T>
struct BasicAppendArgs {
  T* qkv = nullptr;                 ///< [n, (heads + 2 kv_heads) head_dim]: queries, keys, values
  std::int64_t qkv_stride = 0;      ///< elements from row to row
  const float* rotation = nullptr;  ///< [n, head_dim] as rope_rotation makes it
  Half* open_keys = nullptr;        ///< [kv_heads, head_dim * 64] in the open order
  Half* open_values = nullptr;      ///< [kv_heads, head_dim * 64] in the open order
  int position = 0;                 ///< of the first token
  int n = 0;
  int heads = 0;
  int kv_heads = 0;
  int head_dim = 0;
};
using AppendArgs = BasicAppendArgs<float>;

/// Rotates queries and keys in place; then keys and values go into the open page at 16 bit.
template <class Open = cache::PlainOpenOrder, Activation T = float>
void append(Host, const BasicAppendArgs<T>& a) {
  for (int i = 0; i < a.n; ++i) {
    const int t = a.position % cache::kPageTokens + i;
    const float* rotation = a.rotation + std::int64_t{i} * a.head_dim;
    T* q = a.qkv + i * a.qkv_stride;
    T* k = q + a.heads * a.head_dim;
    const T* v = k + a.kv_heads * a.head_dim;
    for (int h = 0; h < a.heads; ++h)
      rotate_head(q + h * a.head_dim, rotation, a.head_dim);
    for (int kvh = 0; kvh < a.kv_heads; ++kvh) {
      rotate_head(k + kvh * a.head_dim, rotation, a.head_dim);
      for (int d = 0; d < a.head_dim; ++d) {
        const int row = kvh * a.head_dim + d;
        const int tile = kvh * a.head_dim * cache::kPageTokens;
        a.open_keys[tile + Open::key_at(t, d, a.head_dim)] = to_half(to_float(k[row]));
        a.open_values[tile + Open::value_at(t, d, a.head_dim)] = to_half(to_float(v[row]));
      }
    }
  }
}

}  // namespace lmd::kernels
