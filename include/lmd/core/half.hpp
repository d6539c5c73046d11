/// \file  IEEE half precision as bits, converted alike on host and device.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/core/config.hpp>

#include <cmath>
#include <cstdint>

namespace lmd {

struct Half {
  std::uint16_t bits = 0;  ///< 1 sign, 5 exponent (bias 15), 10 mantissa
};

/// Exact.
LMD_HD float to_float(Half h) {
#if defined(__CUDA_ARCH__)
  float x;
  asm("cvt.f32.f16 %0, %1;" : "=f"(x) : "h"(h.bits));
  return x;
#else
  const int exponent = (h.bits >> 10) & 31;
  const int mantissa = h.bits & 1023;
  float x = exponent == 0 ? ldexpf(static_cast<float>(mantissa), -24)
                          : ldexpf(static_cast<float>(1024 + mantissa), exponent - 25);
  if (exponent == 31) x = mantissa == 0 ? INFINITY : NAN;
  return (h.bits & 0x8000) != 0 ? -x : x;
#endif
}

/// Rounds to nearest, ties to even; beyond the range gives infinity.
LMD_HD Half to_half(float x) {
#if defined(__CUDA_ARCH__)
  Half h;
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(h.bits) : "f"(x));
  return h;
#else
  const int sign = copysignf(1.0f, x) < 0.0f ? 0x8000 : 0;
  const float size = fabsf(x);
  if (!(size < 65520.0f)) {  // rounds past 65504, or is not a number
    return {static_cast<std::uint16_t>(sign | (size > 0.0f ? 0x7c00 : 0x7e00))};
  }
  int exponent = -14;  // of the smallest normal number: below it the step stays the same
  if (size >= 6.103515625e-05f) {
    (void)frexpf(size, &exponent);
    exponent -= 1;
  }
  const int steps = static_cast<int>(rintf(ldexpf(size, 10 - exponent)));  // 0 .. 2048
  return {static_cast<std::uint16_t>(sign | (((exponent + 14) << 10) + steps))};
#endif
}

}  // namespace lmd
