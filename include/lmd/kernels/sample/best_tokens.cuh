/// \file  The best token of each row from the best of its parts, Cuda backend.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/core/launch.cuh>
#include <lmd/kernels/sample/best_tokens.hpp>
#include <lmd/kernels/sample/row_slice.cuh>

namespace lmd::kernels {

namespace detail {

/// A block for each row. A template, as kernels cannot be inline.
template <class Args>
__global__ void __launch_bounds__(kSampleThreads) best_tokens_kernel(Args a) {
  __shared__ std::uint64_t of_warp[kSampleWarps];
  constexpr int kLoads = 12;  // in flight: a vocabulary of 98,304 at once
  const std::uint64_t* keys = a.keys + std::int64_t{blockIdx.x} * a.parts;
  const int t = static_cast<int>(threadIdx.x);
  wait_for_previous_kernel();
  allow_next_kernel();
  std::uint64_t best = kNoKey;
#pragma unroll 1
  for (int begin = t; begin < a.parts; begin += kLoads * kSampleThreads) {
    std::uint64_t some[kLoads];
#pragma unroll
    for (int u = 0; u < kLoads; ++u) {
      const int i = begin + u * kSampleThreads;
      some[u] = i < a.parts ? keys[i] : kNoKey;
    }
#pragma unroll
    for (int u = 0; u < kLoads; ++u)
      best = Smaller::of(best, some[u]);
  }
  best = warp_reduce<Smaller>(best);
  if (t % kWarp == 0) of_warp[t / kWarp] = best;
  __syncthreads();
  if (t >= kWarp) return;
  best = warp_reduce<Smaller>(t < kSampleWarps ? of_warp[t] : kNoKey);
  if (t == 0) a.ids[blockIdx.x] = best_token(best);
}

}  // namespace detail

/// The very ids of the definition.
///
/// Errors:  cudaErrorInvalidValue without parts; the status of the launch.
/// Stream:  one kernel on ctx.stream.
/// Oracle:  best_tokens(Host, ...)
[[nodiscard]] inline cudaError_t best_tokens(Cuda ctx, const BestTokensArgs& a) {
  if (a.m == 0) return cudaSuccess;
  if (a.m < 0 || a.parts <= 0) return cudaErrorInvalidValue;
  return launch(ctx, {.grid = static_cast<unsigned>(a.m), .block = detail::kSampleThreads},
                &detail::best_tokens_kernel<BestTokensArgs>, a);
}

}  // namespace lmd::kernels
