/// \file  Codes of a fragment stream -> weights in their full meaning, as tensor-core operands.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/kernels/linear/row_params.cuh>
#include <lmd/kernels/primitive/halves.cuh>
#include <lmd/quant/fast_decode.cuh>

#include <concepts>

namespace lmd::kernels::detail {

/// Weights of one group for rows g and g + 8 of a lane: W::decode(code), rounded once to T.
template <quant::WeightFormat W, Activation T>
struct ScaledOperands {
  using Decoder = quant::FragmentDecoder<W::kBits, T>;
  static constexpr bool kHasZero = requires(typename W::Params p) { p.zero; };
  static constexpr bool kHasMinimum = requires(typename W::Params p) { p.minimum; };
  static constexpr bool kInHalves = std::same_as<T, Half>;
  static constexpr bool kIsBiased = kInHalves && W::kBits == 4;

  // Halves: scale, and what is added to the code before (zero) or after (minimum), as pairs.
  // Otherwise the same in f32.
  std::uint32_t scale_pair[2];
  std::uint32_t other_pair[2];
  float scale[2];
  float offset[2];  ///< weight = scale * operand + offset

  /// `params` of the group, in a chunk.
  __device__ __forceinline__ void load(const std::uint8_t* params, int g) {
    if constexpr (W::kGroupSize > 0) {
      RowParams<W> rows;
      rows.load(params, g);
      if constexpr (kInHalves) {
        set_halves(rows);
      } else {
        set_floats(rows);
      }
    }
  }

  /// The A fragment of step s of a block.
  __device__ __forceinline__ void step(const Decoder& codes, int s, std::uint32_t (&a)[4]) const {
    if constexpr (kIsBiased) {
      codes.biased_step(s, a);
    } else {
      codes.step(s, a);
    }
    if constexpr (W::kGroupSize > 0) {
#pragma unroll
      for (int i = 0; i < 4; ++i)
        a[i] = weights(a[i], i % 2);
    }
  }

 private:
  static constexpr std::uint32_t kMinus1024 = 0xe400e400u;
  static constexpr std::uint32_t kMinus64 = 0xd400d400u;
  static constexpr std::uint32_t kOne = 0x3c003c00u;
  static constexpr std::uint32_t kSixteenth = 0x2c002c00u;
  static constexpr std::uint32_t kMinusOne = 0xbc00bc00u;

  __device__ __forceinline__ void set_halves(const auto& rows) {
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      scale_pair[i] = rows.scale_pair(i);
      if constexpr (kHasMinimum) other_pair[i] = rows.other_pair(i);
      // A zero point joins what the bit pattern of a code adds: a small integer, exact.
      if constexpr (kHasZero) {
        other_pair[i] = fma_halves(rows.other_pair(i), kMinusOne,
                                   !kIsBiased ? 0u : (i == 0 ? kMinus1024 : kMinus64));
      }
    }
  }
  __device__ __forceinline__ void set_floats(const auto& rows) {
    constexpr float kPower[2] = {Decoder::kLowerScale, Decoder::kUpperScale};
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const float s = rows.scale(i);
      scale[i] = s * kPower[i];
      offset[i] = 0.0f;  // products of halves are exact
      if constexpr (kHasZero) offset[i] = -s * rows.other(i);
      if constexpr (kHasMinimum) offset[i] = rows.other(i);
    }
  }
  /// Two weights of rows g (`half` 0) or g + 8 (1).
  [[nodiscard]] __device__ __forceinline__ std::uint32_t weights(std::uint32_t codes,
                                                                 int half) const {
    if constexpr (kInHalves) {
      return in_halves(codes, half);
    } else {
      return pack_pair<T>(fmaf(low_of<T>(codes), scale[half], offset[half]),
                          fmaf(high_of<T>(codes), scale[half], offset[half]));
    }
  }
  /// 4-bit codes of rows g + 8 stand four bits higher.
  [[nodiscard]] __device__ __forceinline__ std::uint32_t in_halves(std::uint32_t code,
                                                                   int half) const {
    std::uint32_t x = code;
    if constexpr (kIsBiased) {
      const std::uint32_t added = kHasZero ? other_pair[half] : (half == 0 ? kMinus1024 : kMinus64);
      x = fma_halves(code, half == 0 ? kOne : kSixteenth, added);
    } else if constexpr (kHasZero) {
      x = fma_halves(code, kOne, other_pair[half]);
    }
    if constexpr (kHasMinimum) return fma_halves(x, scale_pair[half], other_pair[half]);
    return multiply_halves(x, scale_pair[half]);
  }
};

}  // namespace lmd::kernels::detail
