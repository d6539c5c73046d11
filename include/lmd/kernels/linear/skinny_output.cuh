/// \file  Where the sums of the skinny linear layer's warps go: together, through the epilogue, into y.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/core/math.hpp>
#include <lmd/kernels/linear/skinny_product.cuh>
#include <lmd/kernels/primitive/cluster.cuh>

namespace lmd::kernels::detail {

/// This warp's sums of one row tile -> shared memory [row, token], without the scales of its slice of x.
template <int Tokens>
__device__ __forceinline__ void keep_sums(const float (&acc)[4],
                                          const float (&inverse_scale)[2],
                                          float* to,
                                          int lane) {
  const int g = lane / 4;
  const int t = lane % 4;
  const float(&s)[2] = inverse_scale;
  if constexpr (Tokens == 1) {
    if (t < 2) to[g + 8 * t] = (t == 0 ? acc[0] : acc[2]) * s[0];  // all columns are the same
  } else {
    *reinterpret_cast<float2*>(to + g * Tokens + 2 * t) = {acc[0] * s[0], acc[1] * s[1]};
    *reinterpret_cast<float2*>(to + (g + 8) * Tokens + 2 * t) = {acc[2] * s[0], acc[3] * s[1]};
  }
}

/// A pass's sums over all of k, put together from the warps' and, in a cluster, the blocks'.
template <class S>
struct PassTotals {
  const float* sums;     ///< [warp][tile, row, token]
  const float* squares;  ///< [token, warp]
  float* parts;          ///< [tile, row, token], of the block; where there is a cluster

  [[nodiscard]] static __device__ __forceinline__ int blocks() {
    if constexpr (S::kIsCluster) return cluster_size();
    return 1;
  }
  [[nodiscard]] static __device__ __forceinline__ int rank() {
    if constexpr (S::kIsCluster) return cluster_rank();
    return 0;
  }
  [[nodiscard]] __device__ __forceinline__ float of_warps(int at) const {
    float sum = 0.0f;
#pragma unroll
    for (int warp = 0; warp < S::kWarps; ++warp)
      sum += sums[warp * S::kPassSums + at];
    return sum;
  }
  /// Tells the other blocks of the cluster `n` sums of this one. They read them until the second barrier from
  /// here.
  __device__ __forceinline__ void share(int n) const {
    if constexpr (S::kIsCluster) {
      for (int i = threadIdx.x; i < n; i += S::kThreads)
        parts[i] = of_warps(i);
      cluster_sync();
    }
  }
  [[nodiscard]] __device__ __forceinline__ float operator()(int at) const {
    if constexpr (!S::kIsCluster) return of_warps(at);
    float sum = 0.0f;
    for (int block = 0; block < blocks(); ++block)
      sum += in_block(parts, block)[at];
    return sum;
  }
  /// What a token's outputs are multiplied by: 1 / rms.
  [[nodiscard]] __device__ __forceinline__ float norm_factor(
      const BasicLinearArgs<typename S::T>& a, int token) const {
    float sum = 0.0f;
    for (int block = 0; block < blocks(); ++block) {
      const float* of_block = S::kIsCluster ? in_block(squares, block) : squares;
#pragma unroll
      for (int warp = 0; warp < S::kWarps; ++warp)
        sum += of_block[token * S::kWarps + warp];
    }
    return rsqrtf(sum / a.k + a.norm_eps);
  }
};

/// The best outputs of a pass's tiles: half a warp for each tile and token.
template <class S, int Tokens>
__device__ __forceinline__ void store_best(const BasicLinearArgs<typename S::T>& a,
                                           const PassTotals<S>& total,
                                           int first_tile,
                                           int tiles) {
  static_assert(kBestFeatures == 16 && S::F::kTileRows == 16, "a lane for each row of a tile");
  const int row = threadIdx.x % 16;
  const std::uint32_t half = 0xffffu << (threadIdx.x & 16);
  constexpr int kHalfWarps = S::kThreads / 16;
  for (int i = total.rank() * kHalfWarps + threadIdx.x / 16; i < tiles * a.m;
       i += total.blocks() * kHalfWarps) {
    const int token = i % a.m;
    const int tile = i / a.m;
    const int j = (first_tile + tile) * 16 + row;
    std::uint64_t key = kNoKey;
    if (j < a.n) {
      float p = total(tile * S::kTileSums + row * Tokens + token);
      if (a.norm_weight != nullptr) p *= total.norm_factor(a, token);
      if (a.bias != nullptr) p += a.bias[j];
      key = checked_rank_key(p, j);
    }
#pragma unroll
    for (int step = 8; step > 0; step /= 2)
      key = min(key, __shfl_xor_sync(half, key, step));
    if (row == 0) a.best[std::int64_t{token} * best_parts(a.n) + first_tile + tile] = key;
  }
}

/// Stores the outputs of a pass, the blocks of a cluster a part each.
template <class S, int Tokens>
__device__ __forceinline__ void store_tiles(const BasicLinearArgs<typename S::T>& a,
                                            const PassTotals<S>& total,
                                            int first_tile,
                                            int tiles) {
  using T = typename S::T;
  total.share(tiles * S::kTileSums);
  if (a.epilogue == LinearEpilogue::kBest)
    return store_best<S, Tokens>(a, total, first_tile, tiles);
  const bool is_gated = a.epilogue == LinearEpilogue::kSiluMul;
  const int n_out = is_gated ? a.n / 2 : a.n;
  for (int i = total.rank() * S::kThreads + threadIdx.x; i < tiles * S::kTileSums;
       i += total.blocks() * S::kThreads) {
    const int token = i % Tokens;
    const int row = i / Tokens % 16;
    const int tile = first_tile + i / S::kTileSums;
    if (token >= a.m || (is_gated && row >= 8)) continue;
    const int j = tile * (is_gated ? 8 : 16) + row;
    if (j >= n_out) continue;
    const std::int64_t to = token * a.y_stride + j;
    const float factor = a.norm_weight == nullptr ? 1.0f : total.norm_factor(a, token);
    float p = total(i) * factor;
    if (is_gated) {
      float up = total(i + 8 * Tokens) * factor;
      if (a.bias != nullptr) {
        p += a.bias[gate_row(j)];
        up += a.bias[up_row(j)];
      }
      p = p / (1.0f + __expf(-p)) * up;
    } else {
      if (a.bias != nullptr) p += a.bias[j];
      if (a.epilogue == LinearEpilogue::kAdd) p += to_float(a.y[to]);
    }
    if (a.y_f32 != nullptr) {
      a.y_f32[to] = p;
    } else {
      a.y[to] = from_float<T>(p);
    }
  }
}

}  // namespace lmd::kernels::detail
