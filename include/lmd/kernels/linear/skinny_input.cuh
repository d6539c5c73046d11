/// \file  How a block of the skinny linear layer gets its activations: normalised, in shared memory.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/core/math.hpp>
#include <lmd/kernels/linear/linear.hpp>
#include <lmd/kernels/primitive/mma.cuh>

namespace lmd::kernels::detail {

/// Adds neighbouring lanes: groups of `Lanes` lanes each get their sum.
template <int Lanes>
__device__ __forceinline__ float sum_over_lanes(float v) {
#pragma unroll
  for (int step = 1; step < Lanes; step *= 2)
    v += __shfl_xor_sync(0xffffffffu, v, step);
  return v;
}

/// 8 neighbouring elements -> f32.
template <Activation T>
__device__ __forceinline__ void unpack_8(const uint4& v, float (&x)[8]) {
  const std::uint32_t pairs[4] = {v.x, v.y, v.z, v.w};
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    x[2 * i] = low_of<T>(pairs[i]);
    x[2 * i + 1] = high_of<T>(pairs[i]);
  }
}

/// Weights of the norm for eight neighbouring elements.
struct NormWeights {
  float4 low{}, high{};
};

/// x times the norm's weights is kept smaller by this: as halves, products up to 524,032 do not overflow,
/// and those below 2^-11 lose bits as subnormals. The norm's factor is not known yet.
inline constexpr float kNormShrink = 0.125f;

/// Eight elements of a row of x times the norm's weights, rounded.
template <Activation T>
__device__ __forceinline__ uint4 weighted(const float (&x)[8], const NormWeights& w) {
  constexpr float s = kNormShrink;
  return {pack_pair<T>(x[0] * (w.low.x * s), x[1] * (w.low.y * s)),
          pack_pair<T>(x[2] * (w.low.z * s), x[3] * (w.low.w * s)),
          pack_pair<T>(x[4] * (w.high.x * s), x[5] * (w.high.y * s)),
          pack_pair<T>(x[6] * (w.high.z * s), x[7] * (w.high.w * s))};
}

/// This warp's slice of x -> shared memory, with the sum of each group (what its zero point is
/// multiplied by). A slice is pieces of 256 columns; a batch of pieces is loaded at once, so that
/// the time is that of one or two loads.
template <class S, int Tokens>
struct SliceOfX {
  using T = typename S::T;
  static constexpr int kBatch = Tokens == 1 ? 4 : 8;
  const BasicLinearArgs<T>& a;
  int first_column;
  int last_column;
  NormWeights first_weights{};  // of the first piece: often the only one

  [[nodiscard]] __device__ __forceinline__ int column(int piece) const {
    return first_column + piece * 256 + static_cast<int>(threadIdx.x) % 32 * 8;
  }
  [[nodiscard]] __device__ __forceinline__ bool is_inside(int piece) const {
    return column(piece) < min(last_column, a.k);
  }
  [[nodiscard]] __device__ __forceinline__ NormWeights load_weights(int piece) const {
    if (a.norm_weight == nullptr || !is_inside(piece)) return {};
    const auto* from = reinterpret_cast<const float4*>(a.norm_weight + column(piece));
    return {from[0], from[1]};
  }
  /// Weights of the norm do not depend on the kernel before.
  __device__ __forceinline__ void prefetch_weights() { first_weights = load_weights(0); }

  /// Calls f(token, piece, elements) for every piece of every token.
  template <class F>
  __device__ __forceinline__ void for_each_piece(F&& f) const {
    const int pieces = ceil_div(last_column - first_column, 256);
    const int n = (Tokens == 1 ? 1 : a.m) * pieces;
    for (int base = 0; base < n; base += kBatch) {
      uint4 v[kBatch];
#pragma unroll
      for (int u = 0; u < kBatch; ++u) {
        const int token = Tokens == 1 ? 0 : (base + u) / pieces;
        const int piece = base + u - token * pieces;
        v[u] = {};
        if (base + u < n && is_inside(piece))
          v[u] = *reinterpret_cast<const uint4*>(a.x + token * a.x_stride + column(piece));
      }
#pragma unroll
      for (int u = 0; u < kBatch; ++u) {
        const int token = Tokens == 1 ? 0 : (base + u) / pieces;
        if (base + u < n) f(token, base + u - token * pieces, v[u]);
      }
    }
  }

  /// With a norm, squares [token, warp] gets the slice's sum of squares: the norm's factor is the same
  /// for all of a token's columns, so that outputs are multiplied by it instead (see norm_factor).
  __device__ __forceinline__ void stage(int padded_k,
                                        std::uint16_t* xs,
                                        float* x_sums,
                                        float* squares) {
    const int warp = threadIdx.x / 32;
    const int lane = threadIdx.x % 32;
    const bool has_norm = a.norm_weight != nullptr;
    const int last_piece = ceil_div(last_column - first_column, 256) - 1;
    if (has_norm && last_piece < 0 && lane < Tokens) squares[lane * S::kWarps + warp] = 0.0f;
    float square = 0.0f;  // of this lane's elements of a token
    for_each_piece([&](int token, int piece, uint4 v) {
      float x[8];
      unpack_8<T>(v, x);
      if (has_norm) {
#pragma unroll
        for (int e = 0; e < 8; ++e)
          square = fmaf(x[e], x[e], square);
        if (piece == last_piece) {
          square = sum_over_lanes<32>(square);
          if (lane == 0) squares[token * S::kWarps + warp] = square;
          square = 0.0f;
        }
        v = weighted<T>(x, piece == 0 ? first_weights : load_weights(piece));
        unpack_8<T>(v, x);  // the sums are of what is multiplied
      }
      float sum = 0.0f;
#pragma unroll
      for (int e = 0; e < 8; ++e)
        sum += x[e];
      sum = sum_over_lanes<S::kGroup / 8>(sum);
      const int at = column(piece);
      if (at >= last_column) return;
      *reinterpret_cast<uint4*>(xs + std::int64_t{token} * (padded_k + S::kRowPad) + at) = v;
      if (at % S::kGroup == 0) x_sums[at / S::kGroup * Tokens + token] = sum;
    });
  }
};

/// What a token's products are multiplied by: 1 / rms, and the way back from kNormShrink.
template <class S>
__device__ __forceinline__ float norm_factor(const BasicLinearArgs<typename S::T>& a,
                                             const float* squares,
                                             int token) {
  float sum = 0.0f;
#pragma unroll
  for (int warp = 0; warp < S::kWarps; ++warp)
    sum += squares[token * S::kWarps + warp];
  return rsqrtf(sum / a.k + a.norm_eps) * (1.0f / kNormShrink);
}

}  // namespace lmd::kernels::detail
