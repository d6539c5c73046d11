/// \file  RoPE and the write into the open page, host backend: the definition of the operation.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/cache/tile.hpp>
#include <lmd/core/half.hpp>
#include <lmd/kernels/elementwise/rope.hpp>

namespace lmd::kernels {

/// `n` consecutive tokens of one sequence, all in the same page: position % 64 + n <= 64.
struct AppendArgs {
  float* qkv = nullptr;             ///< [n, (heads + 2 kv_heads) head_dim]: queries, keys, values
  std::int64_t qkv_stride = 0;      ///< elements from row to row
  const float* rotation = nullptr;  ///< [n, head_dim] as rope_rotation makes it
  Half* open_keys = nullptr;        ///< [kv_heads, head_dim, 64]
  Half* open_values = nullptr;      ///< [kv_heads, 64, head_dim]
  int position = 0;                 ///< of the first token
  int n = 0;
  int heads = 0;
  int kv_heads = 0;
  int head_dim = 0;
};

/// Rotates queries and keys in place; then keys and values go into the open page at 16 bit.
inline void append(Host, const AppendArgs& a) {
  for (int i = 0; i < a.n; ++i) {
    const int t = a.position % cache::kPageTokens + i;
    const float* rotation = a.rotation + std::int64_t{i} * a.head_dim;
    float* q = a.qkv + i * a.qkv_stride;
    float* k = q + a.heads * a.head_dim;
    const float* v = k + a.kv_heads * a.head_dim;
    for (int h = 0; h < a.heads; ++h)
      rotate_head(q + h * a.head_dim, rotation, a.head_dim);
    for (int kvh = 0; kvh < a.kv_heads; ++kvh) {
      rotate_head(k + kvh * a.head_dim, rotation, a.head_dim);
      for (int d = 0; d < a.head_dim; ++d) {
        const int row = kvh * a.head_dim + d;
        a.open_keys[row * cache::kPageTokens + t] = to_half(k[row]);
        a.open_values[(kvh * cache::kPageTokens + t) * a.head_dim + d] = to_half(v[row]);
      }
    }
  }
}

}  // namespace lmd::kernels
