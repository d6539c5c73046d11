/// \file  Where the sums of the skinny linear layer's warps go: together, through the epilogue, into y.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/kernels/linear/linear.hpp>

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

/// What a token's outputs are multiplied by: 1 / rms.
template <class S>
__device__ __forceinline__ float norm_factor(const BasicLinearArgs<typename S::T>& a,
                                             const float* squares,
                                             int token) {
  float sum = 0.0f;
#pragma unroll
  for (int warp = 0; warp < S::kWarps; ++warp)
    sum += squares[token * S::kWarps + warp];
  return rsqrtf(sum / a.k + a.norm_eps);
}

/// Adds up the warps' sums [warp][tile, row, token] of a pass at one place.
template <class S>
__device__ __forceinline__ float total_of_warps(const float* sums, int at) {
  float sum = 0.0f;
#pragma unroll
  for (int warp = 0; warp < S::kWarps; ++warp)
    sum += sums[warp * S::kPassTiles * S::kTileSums + at];
  return sum;
}

/// The best outputs of a pass's tiles: half a warp for each tile and token.
template <class S, int Tokens>
__device__ __forceinline__ void store_best(const BasicLinearArgs<typename S::T>& a,
                                           const float* sums,
                                           const float* squares,
                                           int first_tile,
                                           int tiles) {
  static_assert(kBestFeatures == 16 && S::F::kTileRows == 16, "a lane for each row of a tile");
  const int row = threadIdx.x % 16;
  const std::uint32_t half = 0xffffu << (threadIdx.x & 16);
  for (int i = threadIdx.x / 16; i < tiles * a.m; i += S::kThreads / 16) {
    const int token = i % a.m;
    const int tile = i / a.m;
    const int j = (first_tile + tile) * 16 + row;
    std::uint64_t key = kNoKey;
    if (j < a.n) {
      float p = total_of_warps<S>(sums, tile * S::kTileSums + row * Tokens + token);
      if (a.norm_weight != nullptr) p *= norm_factor<S>(a, squares, token);
      if (a.bias != nullptr) p += a.bias[j];
      key = checked_rank_key(p, j);
    }
#pragma unroll
    for (int step = 8; step > 0; step /= 2)
      key = min(key, __shfl_xor_sync(half, key, step));
    if (row == 0) a.best[std::int64_t{token} * best_parts(a.n) + first_tile + tile] = key;
  }
}

/// Stores the outputs of a pass.
template <class S, int Tokens>
__device__ __forceinline__ void store_tiles(const BasicLinearArgs<typename S::T>& a,
                                            const float* sums,
                                            const float* squares,
                                            int first_tile,
                                            int tiles) {
  using T = typename S::T;
  if (a.epilogue == LinearEpilogue::kBest)
    return store_best<S, Tokens>(a, sums, squares, first_tile, tiles);
  const bool is_gated = a.epilogue == LinearEpilogue::kSiluMul;
  const int n_out = is_gated ? a.n / 2 : a.n;
  for (int i = threadIdx.x; i < tiles * S::kTileSums; i += S::kThreads) {
    const int token = i % Tokens;
    const int row = i / Tokens % 16;
    const int tile = first_tile + i / S::kTileSums;
    if (token >= a.m || (is_gated && row >= 8)) continue;
    const int j = tile * (is_gated ? 8 : 16) + row;
    if (j >= n_out) continue;
    const std::int64_t to = token * a.y_stride + j;
    const float factor = a.norm_weight == nullptr ? 1.0f : norm_factor<S>(a, squares, token);
    float p = total_of_warps<S>(sums, i) * factor;
    if (is_gated) {
      float up = total_of_warps<S>(sums, i + 8 * Tokens) * factor;
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
