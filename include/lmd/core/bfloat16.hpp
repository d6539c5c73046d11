/// \file  bfloat16 as bits: the upper half of a float.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/core/config.hpp>

#include <bit>
#include <cstdint>

namespace lmd {

struct BFloat16 {
  std::uint16_t bits = 0;  ///< 1 sign, 8 exponent (bias 127), 7 mantissa
};

/// Exact.
LMD_HD float to_float(BFloat16 b) {
  const std::uint32_t bits = static_cast<std::uint32_t>(b.bits) << 16;
#if defined(__CUDA_ARCH__)
  return __uint_as_float(bits);
#else
  return std::bit_cast<float>(bits);
#endif
}

/// Rounds to nearest, ties to even; a NaN stays a (quiet) NaN.
LMD_HD BFloat16 to_bfloat16(float x) {
#if defined(__CUDA_ARCH__)
  const std::uint32_t bits = __float_as_uint(x);
#else
  const std::uint32_t bits = std::bit_cast<std::uint32_t>(x);
#endif
  if ((bits & 0x7fffffffu) > 0x7f800000u) return {static_cast<std::uint16_t>(bits >> 16 | 0x40)};
  const std::uint32_t lowest_kept = bits >> 16 & 1u;
  return {static_cast<std::uint16_t>((bits + 0x7fffu + lowest_kept) >> 16)};
}

}  // namespace lmd
