/// \file  Tensor-core products of one warp, one instruction a function. Lane = 4 g + t.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/core/activation.hpp>

#include <cstdint>

namespace lmd::kernels {

/// c += a b, with a [16, 16] and b [16, 8] of T, c [16, 8] of f32:
///
///   a[0] (g, 2t)  a[1] (g + 8, 2t)  a[2] (g, 2t + 8)  a[3] (g + 8, 2t + 8), each with its neighbour
///   b0 (2t, g)  b1 (2t + 8, g), each with the row below
///   c[0] (g, 2t)  c[1] (g, 2t + 1)  c[2] (g + 8, 2t)  c[3] (g + 8, 2t + 1)
///
/// Products are exact and sums are f32. Half operands may be subnormal: they count in full.
template <Activation T>
__device__ __forceinline__ void mma_16x8x16(float (&c)[4],
                                            const std::uint32_t (&a)[4],
                                            std::uint32_t b0,
                                            std::uint32_t b1) {
  if constexpr (std::same_as<T, Half>) {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 "
        "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
  } else {
    static_assert(std::same_as<T, BFloat16>, "tensor cores multiply 16-bit operands");
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
        "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
  }
}

/// Transposes an 8 x 8 matrix of 16-bit elements held by the warp: lane 4 g + t gives (g, 2t) and
/// (g, 2t + 1) and receives (2t, g) and (2t + 1, g).
__device__ __forceinline__ std::uint32_t transpose_8x8(std::uint32_t pair) {
  std::uint32_t out;
  asm("movmatrix.sync.aligned.m8n8.trans.b16 %0, %1;" : "=r"(out) : "r"(pair));
  return out;
}

/// Two f32 rounded to nearest even and packed, `low` in the lower half.
template <Activation T>
__device__ __forceinline__ std::uint32_t pack_pair(float low, float high) {
  std::uint32_t out;
  if constexpr (std::same_as<T, Half>) {
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(out) : "f"(high), "f"(low));
  } else {
    static_assert(std::same_as<T, BFloat16>, "a pair is 32 bits");
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(out) : "f"(high), "f"(low));
  }
  return out;
}

/// The lower and the upper element of a packed pair. Exact.
template <Activation T>
__device__ __forceinline__ float low_of(std::uint32_t pair) {
  return to_float(T{static_cast<std::uint16_t>(pair)});
}
template <Activation T>
__device__ __forceinline__ float high_of(std::uint32_t pair) {
  return to_float(T{static_cast<std::uint16_t>(pair >> 16)});
}

}  // namespace lmd::kernels
