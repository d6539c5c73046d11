/// \file  Counters in device memory by which blocks tell each other what they have written.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/core/cuda.cuh>

namespace lmd::kernels {

/// Who reads a count sees what was written before those additions that made it, by the threads that made
/// them and by those they had synchronised with.
__device__ __forceinline__ int load_acquire(const int* counter) {
  int value = 0;
  asm volatile("ld.acquire.gpu.global.s32 %0, [%1];"
               : "=r"(value)
               : "l"(__cvta_generic_to_global(counter))
               : "memory");
  return value;
}
__device__ __forceinline__ void add_release(int* counter, int n) {
  asm volatile("red.release.gpu.global.add.s32 [%0], %1;" ::"l"(__cvta_generic_to_global(counter)),
               "r"(n)
               : "memory");
}
/// Both at once; the count before.
__device__ __forceinline__ int add_acquire_release(int* counter, int n) {
  int before = 0;
  asm volatile("atom.add.acq_rel.gpu.global.s32 %0, [%1], %2;"
               : "=r"(before)
               : "l"(__cvta_generic_to_global(counter)), "r"(n)
               : "memory");
  return before;
}

}  // namespace lmd::kernels
