/// \file  Attention of several queries of one page, host backend: the definition of the operation.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/cache/kv_view.hpp>
#include <lmd/core/activation.hpp>
#include <lmd/core/backend.hpp>
#include <lmd/kernels/attention/policy.hpp>

#include <cmath>
#include <limits>
#include <vector>

namespace lmd::kernels {

/// `n` consecutive tokens of one sequence, all in the same page: position % 64 + n <= 64.
template <Activation T>
struct BasicPrefillAttnArgs {
  T* out = nullptr;             ///< [n, heads, head_dim], rows out_stride apart
  const T* q = nullptr;         ///< [n, heads, head_dim] after RoPE, rows q_stride apart
  std::int64_t out_stride = 0;  ///< elements
  std::int64_t q_stride = 0;    ///< elements
  cache::KvView kv;             ///< the open page holds these tokens' keys and values already
  int position = 0;             ///< of the first query
  int n = 0;
  int heads = 0;
  int kv_heads = 0;  ///< divides heads
};
using PrefillAttnArgs = BasicPrefillAttnArgs<float>;

/// Key and value element d of token t as a query of page `own_page` sees them.
template <AttentionPolicy P>
struct KvReader {
  static constexpr int kOpenTile = cache::kPageTokens * P::kHeadDim;  ///< elements
  const cache::KvView& kv;
  int own_page = 0;

  [[nodiscard]] LMD_HD float key(int kvh, int t, int d) const {
    const int page = t / cache::kPageTokens;
    const int i = t % cache::kPageTokens;
    if (page < own_page) return P::Unit::key(kv.unit(page, kvh, P::Unit::kBytes), i, d);
    return to_float(kv.open_keys[kvh * kOpenTile + P::Open::key_at(i, d, P::kHeadDim)]);
  }
  [[nodiscard]] LMD_HD float value(int kvh, int t, int d) const {
    const int page = t / cache::kPageTokens;
    const int i = t % cache::kPageTokens;
    if (page < own_page) return P::Unit::value(kv.unit(page, kvh, P::Unit::kBytes), i, d);
    return to_float(kv.open_values[kvh * kOpenTile + P::Open::value_at(i, d, P::kHeadDim)]);
  }
};

/// Every query attends to all tokens up to its own.
///
///   out[i, h] = sum_t softmax_t(q[i, h] . k[t] / sqrt(head_dim)) v[t],   t <= position + i
template <AttentionPolicy P, Activation T = float>
void prefill_attention(Host, const BasicPrefillAttnArgs<T>& a) {
  const float scale = 1.0f / std::sqrt(static_cast<float>(P::kHeadDim));
  const KvReader<P> cache{a.kv, a.position / cache::kPageTokens};
  std::vector<float> p;  // scores, then weights
  for (int i = 0; i < a.n; ++i) {
    const int tokens = a.position + i + 1;
    p.resize(static_cast<std::size_t>(tokens));
    for (int h = 0; h < a.heads; ++h) {
      const int kvh = h / (a.heads / a.kv_heads);
      const T* q = a.q + i * a.q_stride + h * P::kHeadDim;
      T* out = a.out + i * a.out_stride + h * P::kHeadDim;
      float max = -std::numeric_limits<float>::infinity();
      for (int t = 0; t < tokens; ++t) {
        float dot = 0.0f;
        for (int d = 0; d < P::kHeadDim; ++d)
          dot += to_float(q[d]) * cache.key(kvh, t, d);
        p[t] = dot * scale;
        max = std::fmax(max, p[t]);
      }
      float sum = 0.0f;
      for (float& x : p) {
        x = std::exp(x - max);
        sum += x;
      }
      for (int d = 0; d < P::kHeadDim; ++d) {
        float acc = 0.0f;
        for (int t = 0; t < tokens; ++t)
          acc += p[t] * cache.value(kvh, t, d);
        out[d] = from_float<T>(acc / sum);
      }
    }
  }
}

}  // namespace lmd::kernels
