/// \file  How a block of the skinny linear layer gets its activations: normalised, in shared memory.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/core/math.hpp>
#include <lmd/kernels/linear/linear.hpp>
#include <lmd/kernels/primitive/block_sum.cuh>
#include <lmd/kernels/primitive/mma.cuh>
#include <lmd/kernels/primitive/pack.cuh>

namespace lmd::kernels::detail {

/// Weights of the norm for eight neighbouring elements.
struct NormWeights {
  float4 low{}, high{};
};

/// A power of two and its inverse.
struct PowerOfTwo {
  int exponent = 0;  ///< -126 to 126

  [[nodiscard]] __device__ __forceinline__ float value() const {
    return __uint_as_float(static_cast<std::uint32_t>(127 + exponent) << 23);
  }
  [[nodiscard]] __device__ __forceinline__ float inverse() const {
    return PowerOfTwo{-exponent}.value();
  }
};

/// What brings numbers up to `largest` below 2^6: halves end at 2^16, which leaves room for weights of the
/// norm up to 2^10, and have all their bits down to 2^-14.
__device__ __forceinline__ PowerOfTwo scale_below_64(float largest) {
  const int exponent = static_cast<int>(__float_as_uint(largest) >> 23) - 127;
  return {min(max(5 - exponent, -126), 126)};
}

/// The larger magnitudes of two times eight halves, as bits; of NaN, more than infinity's.
__device__ __forceinline__ uint4 larger_halves(const uint4& a, const uint4& b) {
  constexpr std::uint32_t kNoSigns = 0x7fff7fffu;
  return {__vmaxu2(a.x, b.x & kNoSigns), __vmaxu2(a.y, b.y & kNoSigns),
          __vmaxu2(a.z, b.z & kNoSigns), __vmaxu2(a.w, b.w & kNoSigns)};
}
/// The largest of a warp's, which have no signs.
__device__ __forceinline__ float largest_half(const uint4& v) {
  const std::uint32_t pair = __vmaxu2(__vmaxu2(v.x, v.y), __vmaxu2(v.z, v.w));
  const std::uint32_t bits = __reduce_max_sync(0xffffffffu, max(pair & 0xffffu, pair >> 16));
  return to_float(Half{static_cast<std::uint16_t>(bits)});
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
  int block_column;  // the first of the block's, which has all of its columns in shared memory
  int first_column;
  int last_column;
  NormWeights first_weights{};  // of the first piece: often the only one
  float largest_x = 0.0f;       // in the slice of the token that has the number of the lane
  PowerOfTwo scale{};           // of the same

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
  __device__ __forceinline__ void prefetch_weights() { first_weights = load_weights(0); }

  /// What x of a token is multiplied by, and its sums by the inverse. A whole warp calls it.
  [[nodiscard]] __device__ __forceinline__ PowerOfTwo scale_of(int token) const {
    if constexpr (Tokens == 1 || !kIsScaled) return scale;
    return {__shfl_sync(0xffffffffu, scale.exponent, token)};
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

  [[nodiscard]] __device__ __forceinline__ uint4 load(int token, int piece) const {
    return is_inside(piece)
               ? *reinterpret_cast<const uint4*>(a.x + token * a.x_stride + column(piece))
               : uint4{};
  }

  /// Notes the largest x of a token's piece, or of several.
  __device__ __forceinline__ void note_largest(int token, const uint4& v) {
    const float largest = largest_half(v);
    if (Tokens == 1 || static_cast<int>(threadIdx.x) % 32 == token)
      largest_x = fmaxf(largest_x, largest);
    scale = scale_below_64(largest_x);
  }

  /// -> xs [token, columns + padding], x_sums [group, token]. With a norm, squares [token, warp] gets the
  /// slice's sum of squares.
  __device__ __forceinline__ void stage(int columns,
                                        std::uint16_t* xs,
                                        float* x_sums,
                                        float* squares) {
    const int warp = threadIdx.x / 32;
    const int lane = threadIdx.x % 32;
    const bool has_norm = a.norm_weight != nullptr;
    const bool has_scale = kIsScaled && has_norm;
    const int last_piece = pieces() - 1;
    if (last_piece < 0) {
      if (has_norm && lane < Tokens) squares[lane * S::kWarps + warp] = 0.0f;
      return;
    }
    const int n = (Tokens == 1 ? 1 : a.m) * pieces();
    // A batch is whole slices of tokens, whose scales are known before they are written. Slices that
    // are longer than a batch are read twice: that is rare, and need not be quick.
    const bool is_long = pieces() > kBatch;
    if (has_scale && is_long) {
#pragma unroll 1
      for (int token = 0; token < (Tokens == 1 ? 1 : a.m); ++token) {
#pragma unroll 1
        for (int piece = 0; piece < pieces(); ++piece)
          note_largest(token, larger_halves({}, load(token, piece)));
      }
    }
    const int step = is_long || Tokens == 1 ? kBatch : kBatch / pieces() * pieces();
    float square = 0.0f;  // of this lane's elements of a token
#pragma unroll 1
    for (int base = 0; base < n; base += step) {
      const int end = min(base + step, n);
      uint4 v[kBatch];
      for_each_piece(base, end, [&](int u, int token, int piece) { v[u] = load(token, piece); });
      if (has_scale && !is_long) {
        uint4 largest{};
        for_each_piece(base, end, [&](int u, int token, int piece) {
          largest = larger_halves(piece == 0 ? uint4{} : largest, v[u]);
          if (Tokens > 1) note_largest(token, largest);
        });
        if (Tokens == 1) note_largest(0, largest);
      }
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
                             scale_of(token).value());
          x = unpack<T>(v[u]);  // the sums are of what is multiplied
        }
        float sum = 0.0f;
#pragma unroll
        for (int e = 0; e < 8; ++e)
          sum += x.x[e];
        sum = sum_over_lanes<S::kGroup / 8>(sum);
        if (column(piece) >= last_column) return;
        const int at = column(piece) - block_column;
        *reinterpret_cast<uint4*>(xs + std::int64_t{token} * (columns + S::kRowPad) + at) = v[u];
        if (at % S::kGroup == 0) x_sums[at / S::kGroup * Tokens + token] = sum;
      });
    }
  }
};

}  // namespace lmd::kernels::detail
