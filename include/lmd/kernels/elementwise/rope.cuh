/// \file  Angles of rotary position embedding, Cuda backend.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/core/launch.cuh>
#include <lmd/core/math.hpp>
#include <lmd/kernels/elementwise/rope.hpp>

namespace lmd::kernels {

namespace detail {

inline constexpr int kRotationThreads = 128;

/// A thread for each (token, angle). A template, as kernels cannot be inline.
template <class Args>
__global__ void __launch_bounds__(kRotationThreads) rope_rotation_kernel(Args a) {
  wait_for_previous_kernel();
  allow_next_kernel();
  const int half = a.head_dim / 2;
  const std::int64_t at = std::int64_t{blockIdx.x} * kRotationThreads + threadIdx.x;
  if (at >= std::int64_t{a.n} * half) return;
  const auto i = static_cast<int>(at / half);
  const auto r = static_cast<int>(at % half);
  double sine = 0.0;
  double cosine = 0.0;
  sincos(a.positions[i] * a.position_scale * pow(a.bases[i], -2.0 * r / a.head_dim), &sine,
         &cosine);
  float* to = a.rotation + std::int64_t{i} * a.head_dim + r;
  to[0] = static_cast<float>(cosine);
  to[half] = static_cast<float>(sine);
}

}  // namespace detail

/// As the definition, in double: equal to a rounding of the result.
///
/// Errors:  the status of the launch.
/// Stream:  one kernel on ctx.stream; positions and bases lie in device memory.
/// Oracle:  rope_rotation(Host, ...)
[[nodiscard]] inline cudaError_t rope_rotation(Cuda ctx, const RotationArgs& a) {
  const std::int64_t threads = std::int64_t{a.n} * (a.head_dim / 2);
  if (threads == 0) return cudaSuccess;
  const std::int64_t blocks = ceil_div<std::int64_t>(threads, detail::kRotationThreads);
  if (blocks > INT32_MAX) return cudaErrorInvalidValue;
  return launch(ctx, {.grid = static_cast<unsigned>(blocks), .block = detail::kRotationThreads},
                detail::rope_rotation_kernel<RotationArgs>, a);
}

}  // namespace lmd::kernels
