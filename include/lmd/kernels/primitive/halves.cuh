/// \file  Arithmetic on packed pairs of halves, each result rounded once.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

namespace lmd::kernels {

__device__ __forceinline__ std::uint32_t plus_halves(std::uint32_t a, std::uint32_t b) {
  std::uint32_t out;
  asm("add.rn.f16x2 %0, %1, %2;" : "=r"(out) : "r"(a), "r"(b));
  return out;
}
__device__ __forceinline__ std::uint32_t multiply_halves(std::uint32_t a, std::uint32_t b) {
  std::uint32_t out;
  asm("mul.rn.f16x2 %0, %1, %2;" : "=r"(out) : "r"(a), "r"(b));
  return out;
}
/// a * b + c.
__device__ __forceinline__ std::uint32_t fma_halves(std::uint32_t a,
                                                    std::uint32_t b,
                                                    std::uint32_t c) {
  std::uint32_t out;
  asm("fma.rn.f16x2 %0, %1, %2, %3;" : "=r"(out) : "r"(a), "r"(b), "r"(c));
  return out;
}

}  // namespace lmd::kernels
