/// \file  RMSNorm with an optional residual, Cuda backend.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/kernels/norm/rms_norm.hpp>
#include <lmd/kernels/norm/row_registers.cuh>

namespace lmd::kernels {

namespace detail {

template <Activation T, int Packs>
__global__ void __launch_bounds__(kRowThreads<Packs>, kRowBlocks<Packs>)
    rms_norm_kernel(BasicRmsNormArgs<T> a) {
  __shared__ float partial[kMaxWarps];
  RowRegisters<BasicRmsNormArgs<T>, T, Packs> row(a);
  row.prefetch(a.weight);
  wait_for_previous_kernel();
  row.load();
  float squares = 0.0f;
  row.for_each_pack([&](int, const Pack<T>& x) {
#pragma unroll
    for (int i = 0; i < kPack<T>; ++i)
      squares += x.x[i] * x.x[i];
  });
  // Not earlier: waiting blocks of the next kernel would crowd some multiprocessors.
  allow_next_kernel();
  squares = block_sum(squares, partial);
  const float scale = 1.0f / sqrtf(squares / static_cast<float>(a.n) + a.eps);
  row.for_each_pack([&](int j, Pack<T> x) {
    const Pack<T> w = row.parameters(a.weight, j);
#pragma unroll
    for (int i = 0; i < kPack<T>; ++i)
      x.x[i] = x.x[i] * scale * w.x[i];
    row.store(j, x);
  });
}

}  // namespace detail

/// As the definition, with sums in f32. A row's result does not depend on other rows.
///
/// Errors:  the status of the launch.
/// Stream:  one kernel on ctx.stream; `weight` may not be written by the kernel before it.
/// Oracle:  rms_norm(Host, ...)
template <Activation T>
[[nodiscard]] cudaError_t rms_norm(Cuda ctx, const BasicRmsNormArgs<T>& a) {
  const bool is_aligned = rows_are_aligned<T>(a.n, a.out, a.x, a.residual, a.weight);
  return detail::launch_rows<T>(ctx, a, is_aligned, detail::rms_norm_kernel<T, 0>,
                                detail::rms_norm_kernel<T, 1>, detail::rms_norm_kernel<T, 2>,
                                detail::rms_norm_kernel<T, 4>);
}

}  // namespace lmd::kernels
