/// \file  LayerNorm with an optional residual, Cuda backend.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/kernels/norm/layer_norm.hpp>
#include <lmd/kernels/norm/row_registers.cuh>

namespace lmd::kernels {

namespace detail {

template <Activation T, int Packs>
__global__ void __launch_bounds__(kRowThreads<Packs>, kRowBlocks<Packs>)
    layer_norm_kernel(BasicLayerNormArgs<T> a) {
  __shared__ float partial[2][kMaxWarps];
  RowRegisters<BasicLayerNormArgs<T>, T, Packs> row(a);
  row.prefetch(a.weight);
  row.prefetch(a.bias);
  wait_for_previous_kernel();
  row.load();
  float sum = 0.0f;
  row.for_each_pack([&](int, const Pack<T>& x) {
#pragma unroll
    for (int i = 0; i < kPack<T>; ++i)
      sum += x.x[i];
  });
  // Not earlier: waiting blocks of the next kernel would crowd some multiprocessors.
  allow_next_kernel();
  const float mean = block_sum(sum, partial[0]) / static_cast<float>(a.n);
  float squares = 0.0f;
  row.for_each_pack([&](int j, const Pack<T>& x) {
#pragma unroll
    for (int i = 0; i < kPack<T>; ++i) {
      const float at = j + i < a.n ? x.x[i] - mean : 0.0f;
      squares += at * at;
    }
  });
  squares = block_sum(squares, partial[1]);
  const float scale = 1.0f / sqrtf(squares / static_cast<float>(a.n) + a.eps);
  row.for_each_pack([&](int j, Pack<T> x) {
    const Pack<T> w = row.parameters(a.weight, j);
    const Pack<T> b = row.parameters(a.bias, j);
#pragma unroll
    for (int i = 0; i < kPack<T>; ++i)
      x.x[i] = (x.x[i] - mean) * scale * w.x[i] + b.x[i];
    row.store(j, x);
  });
}

}  // namespace detail

/// As the definition, with mean and sums in f32. A row's result does not depend on other rows.
///
/// Errors:  the status of the launch.
/// Stream:  one kernel on ctx.stream; `weight` and `bias` may not be written by the kernel before it.
/// Oracle:  layer_norm(Host, ...)
template <Activation T>
[[nodiscard]] cudaError_t layer_norm(Cuda ctx, const BasicLayerNormArgs<T>& a) {
  const bool is_aligned = rows_are_aligned<T>(a.n, a.out, a.x, a.residual, a.weight, a.bias);
  return detail::launch_rows<T>(ctx, a, is_aligned, detail::layer_norm_kernel<T, 0>,
                                detail::layer_norm_kernel<T, 1>, detail::layer_norm_kernel<T, 2>,
                                detail::layer_norm_kernel<T, 4>);
}

}  // namespace lmd::kernels
