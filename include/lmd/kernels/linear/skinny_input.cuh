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

/// Eight elements of a row of x, RMS-normalised and rounded.
template <Activation T>
__device__ __forceinline__ uint4 normalised(uint4 v, float scale, NormWeights w) {
  float x[8];
  unpack_8<T>(v, x);
  return {pack_pair<T>(x[0] * scale * w.low.x, x[1] * scale * w.low.y),
          pack_pair<T>(x[2] * scale * w.low.z, x[3] * scale * w.low.w),
          pack_pair<T>(x[4] * scale * w.high.x, x[5] * scale * w.high.y),
          pack_pair<T>(x[6] * scale * w.high.z, x[7] * scale * w.high.w)};
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

  __device__ __forceinline__ void stage(int padded_k,
                                        std::uint16_t* xs,
                                        float* x_sums,
                                        float* squares) {
    const int warp = threadIdx.x / 32;
    const int lane = threadIdx.x % 32;
    float scale = 0.0f;  // of one token
    if (a.norm_weight != nullptr) {
      for_each_piece([&](int token, int piece, const uint4& v) {
        float x[8];
        unpack_8<T>(v, x);
        float sum = 0.0f;
#pragma unroll
        for (int e = 0; e < 8; ++e)
          sum = fmaf(x[e], x[e], sum);
        sum = sum_over_lanes<32>(sum);
        float& to = squares[token * S::kWarps + warp];
        if (lane == 0) to = piece == 0 ? sum : to + sum;
      });
      if (first_column == last_column && lane < Tokens) squares[lane * S::kWarps + warp] = 0.0f;
      __syncthreads();
    }
    for_each_piece([&](int token, int piece, uint4 v) {
      if (a.norm_weight != nullptr) {
        if (piece == 0) {
          const float part = lane < S::kWarps ? squares[token * S::kWarps + lane] : 0.0f;
          scale = rsqrtf(sum_over_lanes<32>(part) / a.k + a.norm_eps);
        }
        v = normalised<T>(v, scale, piece == 0 ? first_weights : load_weights(piece));
      }
      float x[8];
      unpack_8<T>(v, x);  // the sums are of what is multiplied
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

}  // namespace lmd::kernels::detail
