/// \file  Tokens that the device does not have yet -> behind those that it has, Cuda backend.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/core/launch.cuh>
#include <lmd/kernels/sample/token_runs.hpp>

namespace lmd::kernels {

namespace detail {

inline constexpr int kTokenRunThreads = 128;

/// A block for each run: usually one token, once a prompt. A template, as kernels cannot be inline.
template <class Args>
__global__ void __launch_bounds__(kTokenRunThreads) copy_token_runs_kernel(Args a) {
  wait_for_previous_kernel();
  allow_next_kernel();
  const TokenRun run = a.runs[blockIdx.x];
  for (int i = threadIdx.x; i < run.n; i += kTokenRunThreads)
    run.to[i] = run.from[i];
}

}  // namespace detail

/// Errors:  the status of the launch.
/// Stream:  one kernel on ctx.stream; the runs may come from the kernel before it.
/// Oracle:  copy_token_runs(Host, ...)
[[nodiscard]] inline cudaError_t copy_token_runs(Cuda ctx, const TokenRunArgs& a) {
  if (a.n_runs == 0) return cudaSuccess;
  return launch(ctx, {.grid = static_cast<unsigned>(a.n_runs), .block = detail::kTokenRunThreads},
                detail::copy_token_runs_kernel<TokenRunArgs>, a);
}

}  // namespace lmd::kernels
