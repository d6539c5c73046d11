/// \file  Sums over a block, in an order that depends on the number of threads alone.
// SPDX-License-Identifier: Apache-2.0
#pragma once

namespace lmd::kernels {

inline constexpr int kWarp = 32;
inline constexpr int kMaxWarps = 32;

/// Groups of `Lanes` neighbouring lanes each get their sum.
template <int Lanes>
__device__ __forceinline__ float sum_over_lanes(float x) {
#pragma unroll
  for (int step = Lanes / 2; step > 0; step /= 2)
    x += __shfl_xor_sync(0xffffffffu, x, step);
  return x;
}
__device__ __forceinline__ float warp_sum(float x) {
  return sum_over_lanes<kWarp>(x);
}

/// The sum over the block's threads, in all of them. `partial` is shared memory that nothing else
/// uses between this call and the next barrier; the block is made of whole warps.
__device__ __forceinline__ float block_sum(float x, float (&partial)[kMaxWarps]) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  x = warp_sum(x);
  if (lane == 0) partial[threadIdx.x / kWarp] = x;
  __syncthreads();
  return warp_sum(lane < static_cast<int>(blockDim.x) / kWarp ? partial[lane] : 0.0f);
}

}  // namespace lmd::kernels
