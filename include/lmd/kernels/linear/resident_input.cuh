/// \file  How a block of the resident linear layer gets its activations: in shared memory, for all weights.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/core/math.hpp>
#include <lmd/kernels/linear/resident_rings.cuh>
#include <lmd/kernels/linear/row_params.cuh>
#include <lmd/kernels/linear/skinny_input.cuh>
#include <lmd/kernels/primitive/block_sum.cuh>
#include <lmd/kernels/primitive/pack.cuh>

namespace lmd::kernels::detail {

/// Whether weights have something beside their scale, that multiplies sums of x.
template <class S>
inline constexpr bool ResidentHasOther = [] {
  if constexpr (S::W::kGroupSize == 0) {
    return false;
  } else {
    return RowParams<typename S::W>::kHasOther;
  }
}();

/// Where the block's x goes.
struct HeldInput {
  std::uint8_t* x;  ///< rows
  int row_bytes;
  float* sums;     ///< [group, token]: what zero points are multiplied by
  float* scales;   ///< [token]: what takes the scale of a token's x back
  float* squares;  ///< [token]: of the norm
};

/// A token's columns times the norm's weights. Not yet normalised, a row has no range that is known before: it is
/// scaled by a power of two. BFloat16 reaches as far as f32 and is not scaled.
template <class S>
__device__ __forceinline__ void weigh_row(
    uint4 (&v)[S::kHeldUnits], const float* gains, int end, const HeldInput& to, int token) {
  using T = typename S::T;
  const int lane = threadIdx.x % 32;
  PowerOfTwo scale{};
  if constexpr (std::same_as<T, Half>) {
    uint4 largest{};
#pragma unroll
    for (int u = 0; u < S::kHeldUnits; ++u)
      largest = larger_halves(largest, v[u]);
    scale = scale_below_64(largest_half(largest));
  }
  float squares = 0.0f;
#pragma unroll
  for (int u = 0; u < S::kHeldUnits; ++u) {
    const int column = u * 256 + lane * 8;
    if (column >= end) continue;
    const Pack<T> x = unpack<T>(v[u]);
#pragma unroll
    for (int e = 0; e < 8; ++e)
      squares = fmaf(x.x[e], x.x[e], squares);
    const auto* from = reinterpret_cast<const float4*>(gains + column);
    v[u] = weighted<T>(x, {from[0], from[1]}, scale.value());
  }
  squares = warp_sum(squares);
  if (lane != 0) return;
  to.scales[token] = scale.inverse();
  to.squares[token] = squares;
}

/// The block's columns of x -> shared memory, zeros behind k and behind m. With a norm it is x times the norm's
/// weights: the norm's factor multiplies the outputs.
template <class S, bool HasNorm>
__device__ __forceinline__ void hold_input(const BasicLinearArgs<typename S::T>& a,
                                           const HeldInput& to,
                                           int first_column,
                                           int columns) {
  using T = typename S::T;
  const int warp = threadIdx.x / 32;
  const int lane = threadIdx.x % 32;
  const int end = min(a.k - first_column, columns);
#pragma unroll 1
  for (int token = warp; token < S::kTokens; token += S::kHeldRows * S::kWarps) {
    int base = 0;
    do {
      uint4 v[S::kHeldRows][S::kHeldUnits] = {};
#pragma unroll
      for (int row = 0; row < S::kHeldRows; ++row) {
        const int i = token + row * S::kWarps;
#pragma unroll
        for (int u = 0; u < S::kHeldUnits; ++u) {
          const int column = base + u * 256 + lane * 8;
          if (i < a.m && column < end)
            v[row][u] =
                *reinterpret_cast<const uint4*>(a.x + i * a.x_stride + first_column + column);
        }
      }
#pragma unroll
      for (int row = 0; row < S::kHeldRows; ++row) {
        const int i = token + row * S::kWarps;
        if constexpr (HasNorm) weigh_row<S>(v[row], a.norm_weight + first_column, end, to, i);
#pragma unroll
        for (int u = 0; u < S::kHeldUnits; ++u) {
          const int column = base + u * 256 + lane * 8;
          if (column < columns)
            *reinterpret_cast<uint4*>(to.x + i * to.row_bytes + column * 2) = v[row][u];
          if constexpr (ResidentHasOther<S>) {
            const Pack<T> x = unpack<T>(v[row][u]);
            float sum = 0.0f;
#pragma unroll
            for (int e = 0; e < 8; ++e)
              sum += x.x[e];
            sum = sum_over_lanes<S::kGroup / 8>(sum);
            if (column < columns && column % S::kGroup == 0)
              to.sums[column / S::kGroup * S::kTokens + i] = sum;
          }
        }
      }
      base += S::kHeldColumns;
    } while (base < columns);
  }
}

/// Brings the norm's weights of the block's columns closer: they do not depend on the kernel before.
template <Activation T>
__device__ __forceinline__ void prefetch_gains(const BasicLinearArgs<T>& a,
                                               int first_column,
                                               int columns) {
  constexpr int kLine = 32;  // floats
  const int column = static_cast<int>(threadIdx.x) * kLine;
  if (a.norm_weight != nullptr && column < columns && first_column + column < a.k)
    prefetch_line(a.norm_weight + first_column + column);
}

}  // namespace lmd::kernels::detail
