/// \file  How a block of the skinny linear layer gets its activations: normalised, in shared memory.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/core/math.hpp>
#include <lmd/kernels/linear/linear.hpp>
#include <lmd/kernels/primitive/block_sum.cuh>
#include <lmd/kernels/primitive/mma.cuh>
#include <lmd/kernels/primitive/pack.cuh>

namespace lmd::kernels::detail {

/// Adds neighbouring lanes: groups of `Lanes` lanes each get their sum.
template <int Lanes>
__device__ __forceinline__ float sum_over_lanes(float v) {
#pragma unroll
  for (int step = 1; step < Lanes; step *= 2)
    v += __shfl_xor_sync(0xffffffffu, v, step);
  return v;
}

/// Weights of the norm for eight neighbouring elements.
struct NormWeights {
  float4 low{}, high{};

  [[nodiscard]] __device__ __forceinline__ float largest() const {
    return fmaxf(fmaxf(fmaxf(fabsf(low.x), fabsf(low.y)), fmaxf(fabsf(low.z), fabsf(low.w))),
                 fmaxf(fmaxf(fabsf(high.x), fabsf(high.y)), fmaxf(fabsf(high.z), fabsf(high.w))));
  }
};

/// The power of two that brings products of |x| <= `x` and |w| <= `w` below 2^15, close to where
/// halves end: what is 2^29 times smaller still has all its bits. Its inverse is a float too.
__device__ __forceinline__ float product_scale(float x, float w) {
  constexpr int kBias = 127;
  // x < 2^(exponent + 1), and so is w.
  const int exponents = static_cast<int>((__float_as_uint(x) >> 23) + (__float_as_uint(w) >> 23));
  const int exponent = min(max(15 - 2 - (exponents - 2 * kBias), 1 - kBias), kBias - 1);
  return __uint_as_float(static_cast<std::uint32_t>(exponent + kBias) << 23);
}

/// The bits of the largest magnitude of eight halves; of NaN, more than infinity's.
__device__ __forceinline__ std::uint32_t largest_half(const uint4& v) {
  constexpr std::uint32_t kNoSigns = 0x7fff7fffu;
  const std::uint32_t pair =
      __vmaxu2(__vmaxu2(v.x & kNoSigns, v.y & kNoSigns), __vmaxu2(v.z & kNoSigns, v.w & kNoSigns));
  return max(pair & 0xffffu, pair >> 16);
}

/// Eight elements of a row of x times the norm's weights times `scale`, rounded.
template <Activation T>
__device__ __forceinline__ uint4 weighted(const Pack<T>& p, const NormWeights& w, float scale) {
  const float(&x)[8] = p.x;
  return {pack_pair<T>(x[0] * w.low.x * scale, x[1] * w.low.y * scale),
          pack_pair<T>(x[2] * w.low.z * scale, x[3] * w.low.w * scale),
          pack_pair<T>(x[4] * w.high.x * scale, x[5] * w.high.y * scale),
          pack_pair<T>(x[6] * w.high.z * scale, x[7] * w.high.w * scale)};
}

/// This warp's slice of x -> shared memory, with the sum of each group (what its zero point is
/// multiplied by). A slice is pieces of 256 columns; a batch of pieces is loaded at once, so that
/// the time is that of one or two loads.
///
/// With a norm the products are of x times the norm's weights: its factor is the same for all of a
/// token's columns and multiplies the outputs (see norm_factor), so that nothing waits for it. Not yet
/// normalised, x has no range that is known before: each warp scales its slice of a token by a power
/// of two that it takes back from its sums. BFloat16 reaches as far as f32 and is not scaled.
template <class S, int Tokens>
struct SliceOfX {
  using T = typename S::T;
  static constexpr int kBatch = Tokens == 1 ? 4 : 8;
  static constexpr bool kIsScaled = std::same_as<T, Half>;
  const BasicLinearArgs<T>& a;
  int first_column;
  int last_column;
  NormWeights first_weights{};  // of the first piece: often the only one
  float largest_weight = 0.0f;  // of the norm's in the slice
  std::uint32_t largest_x = 0;  // bits, in the slice of the token that has the number of the lane
  float scale = 1.0f;           // of the same

  [[nodiscard]] __device__ __forceinline__ int pieces() const {
    return ceil_div(last_column - first_column, 256);
  }
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
  __device__ __forceinline__ void prefetch_weights() {
    first_weights = load_weights(0);
    if (!kIsScaled || a.norm_weight == nullptr) return;
    float largest = first_weights.largest();
    for (int piece = 1; piece < pieces(); ++piece)
      largest = fmaxf(largest, load_weights(piece).largest());
    largest_weight = __uint_as_float(__reduce_max_sync(0xffffffffu, __float_as_uint(largest)));
  }

  /// What the sums of a token's products are to be multiplied by. A whole warp calls it.
  [[nodiscard]] __device__ __forceinline__ float inverse_scale(int token) const {
    return 1.0f / __shfl_sync(0xffffffffu, scale, token);
  }

  /// Calls f(u, token, piece) for what a batch holds.
  template <class F>
  __device__ __forceinline__ void for_each_piece(int base, int end, F&& f) const {
    int token = Tokens == 1 ? 0 : base / pieces();
    int piece = base - token * pieces();
#pragma unroll
    for (int u = 0; u < kBatch; ++u) {
      if (base + u < end) f(u, token, piece);
      if (++piece < pieces() || Tokens == 1) continue;  // counted, as divisions take longer
      piece = 0;
      ++token;
    }
  }

  __device__ __forceinline__ void load(int base, int end, uint4 (&v)[kBatch]) const {
    for_each_piece(base, end, [&](int u, int token, int piece) {
      v[u] = {};
      if (is_inside(piece))
        v[u] = *reinterpret_cast<const uint4*>(a.x + token * a.x_stride + column(piece));
    });
  }

  /// Notes the largest x of each token of a batch.
  __device__ __forceinline__ void note_largest(int base, int end, const uint4 (&v)[kBatch]) {
    for_each_piece(base, end, [&](int u, int token, int) {
      const std::uint32_t largest = __reduce_max_sync(0xffffffffu, largest_half(v[u]));
      if (static_cast<int>(threadIdx.x) % 32 == token) largest_x = max(largest_x, largest);
    });
    scale = product_scale(to_float(Half{static_cast<std::uint16_t>(largest_x)}), largest_weight);
  }

  /// With a norm, squares [token, warp] gets the slice's sum of squares.
  __device__ __forceinline__ void stage(int padded_k,
                                        std::uint16_t* xs,
                                        float* x_sums,
                                        float* squares) {
    const int warp = threadIdx.x / 32;
    const int lane = threadIdx.x % 32;
    const bool has_norm = a.norm_weight != nullptr;
    const bool has_scale = kIsScaled && has_norm;
    const int last_piece = pieces() - 1;
    if (has_norm && last_piece < 0 && lane < Tokens) squares[lane * S::kWarps + warp] = 0.0f;
    const int n = (Tokens == 1 ? 1 : a.m) * pieces();
    uint4 v[kBatch];
    // A batch is whole slices of tokens, whose scales are known before they are written. Slices that
    // are longer than a batch are read twice.
    const bool is_long = pieces() > kBatch;
    if (has_scale && is_long) {
#pragma unroll 1
      for (int base = 0; base < n; base += kBatch) {
        load(base, min(base + kBatch, n), v);
        note_largest(base, min(base + kBatch, n), v);
      }
    }
    const int step = is_long ? kBatch : kBatch / max(pieces(), 1) * pieces();
    float square = 0.0f;  // of this lane's elements of a token
#pragma unroll 1
    for (int base = 0; base < n; base += step) {
      const int end = min(base + step, n);
      load(base, end, v);
      if (has_scale && !is_long) note_largest(base, end, v);
      for_each_piece(base, end, [&](int u, int token, int piece) {
        Pack<T> x = unpack<T>(v[u]);
        if (has_norm) {
#pragma unroll
          for (int e = 0; e < 8; ++e)
            square = fmaf(x.x[e], x.x[e], square);
          if (piece == last_piece) {
            square = warp_sum(square);
            if (lane == 0) squares[token * S::kWarps + warp] = square;
            square = 0.0f;
          }
          v[u] = weighted<T>(x, piece == 0 ? first_weights : load_weights(piece),
                             kIsScaled ? __shfl_sync(0xffffffffu, scale, token) : 1.0f);
          x = unpack<T>(v[u]);  // the sums are of what is multiplied
        }
        float sum = 0.0f;
#pragma unroll
        for (int e = 0; e < 8; ++e)
          sum += x.x[e];
        sum = sum_over_lanes<S::kGroup / 8>(sum);
        const int at = column(piece);
        if (at >= last_column) return;
        *reinterpret_cast<uint4*>(xs + std::int64_t{token} * (padded_k + S::kRowPad) + at) = v[u];
        if (at % S::kGroup == 0) x_sums[at / S::kGroup * Tokens + token] = sum;
      });
    }
  }
};

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

}  // namespace lmd::kernels::detail
