/// \file  Prefill's attention by the products of sm_90a: one warpgroup brings pages into a ring, the others
///        multiply.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/kernels/attention/prefill_fill.cuh>
#include <lmd/kernels/attention/prefill_rows.cuh>

namespace lmd::kernels::detail {

inline constexpr int kFillRegisters = 120;
inline constexpr int kRowRegisters = 192;
static_assert((kFillRegisters + kRowWarpgroups * kRowRegisters) * kGroupThreads <= 65536,
              "a multiprocessor has as many registers");

/// Where the architecture lacks these products there is no such kernel: its largest block is one
/// thread, which tells the host.
template <AttentionPolicy P, Activation T>
__global__ void __launch_bounds__(kHasWgmma ? kRingThreads : 1, 1)
    prefill_warpgroup_kernel(const __grid_constant__ PrefillStepArgs<T> args) {
#if !defined(__CUDA_ARCH__) || defined(__CUDA_ARCH_FEAT_SM90_ALL)
  extern __shared__ __align__(128) std::uint8_t shared[];
  const PageRing<P> ring{shared};
  // From lane 0, so that the compiler keeps what follows from it in uniform registers.
  const int warp = __shfl_sync(0xffffffffu, static_cast<int>(threadIdx.x) / 32, 0);
  const int lane = threadIdx.x % 32;
  if (threadIdx.x == 0) ring.init();
  __syncthreads();
  wait_for_previous_kernel();
  allow_next_kernel();
  if (warp < kGroupWarps) {
    give_registers<kFillRegisters>();
    fill_ring<P, T>(args, ring, warp, lane);
  } else {
    take_registers<kRowRegisters>();
    RingReader<P, T> reader{
        .out = args.step.out, .ring = ring, .warp = warp - kGroupWarps, .lane = lane};
    reader.read();
  }
#endif
}

}  // namespace lmd::kernels::detail
