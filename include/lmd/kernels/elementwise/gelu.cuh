/// \file  GELU, the exact form with erf, Cuda backend.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/core/launch.cuh>
#include <lmd/kernels/elementwise/gelu.hpp>
#include <lmd/kernels/primitive/pack.cuh>

namespace lmd::kernels {

namespace detail {

inline constexpr int kGeluThreads = 256;

/// x / 2 * (1 + erf(x / sqrt 2)), with erf to 1.5e-7: erff takes more instructions than a memory-bound
/// kernel has time for.
/// Source: Abramowitz and Stegun, Handbook of Mathematical Functions, 7.1.26.
__device__ __forceinline__ float gelu_of(float x) {
  constexpr float kInvSqrt2 = 0.70710678f;
  const float z = fabsf(x) * kInvSqrt2;
  const float t = __fdividef(1.0f, fmaf(0.3275911f, z, 1.0f));
  float sum = fmaf(1.061405429f, t, -1.453152027f);
  sum = fmaf(sum, t, 1.421413741f);
  sum = fmaf(sum, t, -0.284496736f);
  sum = fmaf(sum, t, 0.254829592f);
  const float beyond = sum * t * __expf(-z * z);  // 1 - erf(z)
  return 0.5f * x * (x < 0.0f ? beyond : 2.0f - beyond);
}

template <Activation T>
__global__ void __launch_bounds__(kGeluThreads) gelu_kernel(BasicGeluArgs<T> a) {
  allow_next_kernel();
  const std::int64_t i =
      (std::int64_t{blockIdx.x} * kGeluThreads + threadIdx.x) * std::int64_t{kPack<T>};
  if (i >= a.n) return;
  // The last pack may be short; every other one is whole, whatever n is.
  const bool is_aligned = rows_are_aligned<T>(0, a.out, a.x) && a.n - i >= kPack<T>;
  wait_for_previous_kernel();
  Pack<T> x = load_pack(a.x + i, a.n - i, is_aligned);
#pragma unroll
  for (int l = 0; l < kPack<T>; ++l)
    x.x[l] = gelu_of(x.x[l]);
  store_pack(a.out + i, x, a.n - i, is_aligned);
}

}  // namespace detail

/// As the definition, within a rounding of T and 1e-6 max(1, |x|).
///
/// Shapes:  n is at most 2^31 - 1 blocks of 2048 halves.
/// Errors:  the status of the launch.
/// Stream:  one kernel on ctx.stream.
/// Oracle:  gelu(Host, ...)
template <Activation T>
[[nodiscard]] cudaError_t gelu(Cuda ctx, const BasicGeluArgs<T>& a) {
  if (a.n == 0) return cudaSuccess;
  const std::int64_t blocks =
      ceil_div<std::int64_t>(a.n, std::int64_t{detail::kGeluThreads} * kPack<T>);
  if (blocks > INT32_MAX) return cudaErrorInvalidValue;
  const LaunchShape shape{.grid = dim3(static_cast<unsigned>(blocks)),
                          .block = dim3(detail::kGeluThreads)};
  return launch(ctx, shape, detail::gelu_kernel<T>, a);
}

}  // namespace lmd::kernels
