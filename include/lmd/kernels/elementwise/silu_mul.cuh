/// \file  The gate of a SwiGLU MLP, Cuda backend.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/core/launch.cuh>
#include <lmd/kernels/elementwise/silu_mul.hpp>
#include <lmd/kernels/primitive/pack.cuh>

namespace lmd::kernels {

namespace detail {

inline constexpr int kSiluThreads = 256;

/// x / (1 + exp(-x)) by exp(-|x|): the divisor stays in [1, 2], where a division needs no other way
/// for large numbers.
__device__ __forceinline__ float silu(float x) {
  const float e = expf(-fabsf(x));
  return __fdividef(x < 0.0f ? x * e : x, 1.0f + e);
}

/// Block b computes kSiluThreads packs of row b / parts.
template <Activation T>
__global__ void __launch_bounds__(kSiluThreads) silu_mul_kernel(BasicSiluMulArgs<T> a) {
  allow_next_kernel();
  const int parts = ceil_div(a.n, kSiluThreads * kPack<T>);
  const std::int64_t i = static_cast<int>(blockIdx.x) / parts;
  const int part = static_cast<int>(blockIdx.x) % parts;
  const int j = (part * kSiluThreads + static_cast<int>(threadIdx.x)) * kPack<T>;
  if (j >= a.n) return;
  const bool is_aligned = rows_are_aligned<T>(a.n, a.out, a.gate_up);
  const T* gate = a.gate_up + i * 2 * a.n + j;
  wait_for_previous_kernel();
  Pack<T> x = load_pack(gate, a.n - j, is_aligned);
  const Pack<T> up = load_pack(gate + a.n, a.n - j, is_aligned);
#pragma unroll
  for (int l = 0; l < kPack<T>; ++l)
    x.x[l] = silu(x.x[l]) * up.x[l];
  store_pack(a.out + i * a.n + j, x, a.n - j, is_aligned);
}

}  // namespace detail

/// As the definition, within a rounding of T where exp(-gate) is finite.
///
/// Shapes:  m times the parts of a row (2048 halves each) is at most 2^31 - 1.
/// Errors:  the status of the launch.
/// Stream:  one kernel on ctx.stream.
/// Oracle:  silu_mul(Host, ...)
template <Activation T>
[[nodiscard]] cudaError_t silu_mul(Cuda ctx, const BasicSiluMulArgs<T>& a) {
  if (a.m == 0 || a.n == 0) return cudaSuccess;
  const std::int64_t blocks = std::int64_t{a.m} * ceil_div(a.n, detail::kSiluThreads * kPack<T>);
  if (blocks > INT32_MAX) return cudaErrorInvalidValue;
  const LaunchShape shape{.grid = dim3(static_cast<unsigned>(blocks)),
                          .block = dim3(detail::kSiluThreads)};
  return launch(ctx, shape, detail::silu_mul_kernel<T>, a);
}

}  // namespace lmd::kernels
