/// \file  Linear layer for hundreds of tokens on Cuda: weights are decoded once, then multiplied as
///        dense ones.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/core/launch.cuh>
#include <lmd/core/math.hpp>
#include <lmd/kernels/linear/dense.cuh>
#include <lmd/kernels/linear/linear.hpp>
#include <lmd/kernels/linear/unpack.cuh>
#include <lmd/kernels/linear/workspace.hpp>
#include <lmd/kernels/norm/rms_norm.cuh>
#include <lmd/kernels/primitive/pack.cuh>

namespace lmd::kernels {

namespace detail {

inline constexpr int kWideThreads = 256;

/// Epilogues that the dense product does not have.
template <Activation T>
struct WideArgs {
  BasicLinearArgs<T> linear;
  const T* product;  ///< [m, n]; of kSiluMul
};

/// y += bias, a block for kWideThreads features of a token.
template <Activation T>
__global__ void __launch_bounds__(kWideThreads)
    add_bias_kernel(const __grid_constant__ WideArgs<T> args) {
  const BasicLinearArgs<T>& a = args.linear;
  const int j = static_cast<int>(blockIdx.y * kWideThreads + threadIdx.x);
  wait_for_previous_kernel();
  allow_next_kernel();
  if (j >= a.n) return;
  T* y = a.y + std::int64_t{blockIdx.x} * a.y_stride + j;
  *y = from_float<T>(to_float(*y) + a.bias[j]);
}

/// y = silu(gate + bias) * (up + bias), a thread for 8 outputs: 16 neighbours of the product.
template <Activation T>
__global__ void __launch_bounds__(kWideThreads)
    silu_mul_blocks_kernel(const __grid_constant__ WideArgs<T> args) {
  const BasicLinearArgs<T>& a = args.linear;
  const int block = static_cast<int>(blockIdx.y * kWideThreads + threadIdx.x);
  wait_for_previous_kernel();
  allow_next_kernel();
  if (block >= a.n / 16) return;
  const auto* from = reinterpret_cast<const uint4*>(args.product + std::int64_t{blockIdx.x} * a.n +
                                                    std::int64_t{block} * 16);
  Pack<T> gate = unpack<T>(from[0]);
  const Pack<T> up = unpack<T>(from[1]);
  T* y = a.y + std::int64_t{blockIdx.x} * a.y_stride + std::int64_t{block} * 8;
#pragma unroll
  for (int i = 0; i < 8; ++i) {
    const float gate_bias = a.bias == nullptr ? 0.0f : a.bias[block * 16 + i];
    const float up_bias = a.bias == nullptr ? 0.0f : a.bias[block * 16 + 8 + i];
    const float g = gate.x[i] + gate_bias;
    gate.x[i] = g / (1.0f + __expf(-g)) * (up.x[i] + up_bias);
  }
  store_pack(y, gate, 8, rows_are_aligned<T>(8, y));
}

/// RMS-normalises x into the scratch's first part and makes `a` read it there.
template <Activation T>
[[nodiscard]] cudaError_t normalise_input(Cuda ctx,
                                          BasicLinearArgs<T>& a,
                                          const LinearWorkspace& workspace) {
  if (a.norm_weight == nullptr) return cudaSuccess;
  const std::int64_t bytes = std::int64_t{a.m} * a.k * static_cast<std::int64_t>(sizeof(T));
  if (a.x_stride != a.k || workspace.scratch_bytes < bytes) return cudaErrorInvalidValue;
  T* out = reinterpret_cast<T*>(workspace.scratch);
  // Without a residual x is only read.
  const BasicRmsNormArgs<T> norm{.out = out,
                                 .x = const_cast<T*>(a.x),
                                 .weight = a.norm_weight,
                                 .eps = a.norm_eps,
                                 .m = a.m,
                                 .n = a.k};
  LMD_CUDA_RETURN_IF_ERROR(rms_norm<T>(ctx, norm));
  a.x = out;
  a.norm_weight = nullptr;
  return cudaSuccess;
}

}  // namespace detail

/// y = epilogue(x w^T + bias) by a dense product of decoded weights, each rounded to T. The product
/// is rounded to T before a bias or silu.
///
/// Shapes:  as BasicLinearArgs; k a multiple of 8, x 16-byte aligned. With kSiluMul n is a multiple
///          of 16; with norm_weight x_stride is k. linear_scratch_bytes says how much scratch.
/// Errors:  cudaErrorInvalidValue when a shape is not one of these, with too little scratch,
///          without workspace.dense, or with y_f32 or kBest: the dense product rounds.
/// Stream:  queued on ctx.stream; inputs must live until it has run.
/// Oracle:  linear(Host, ...)
template <LinearPolicy P>
[[nodiscard]] cudaError_t wide_linear(Cuda ctx,
                                      const BasicLinearArgs<typename P::Act>& args,
                                      const LinearWorkspace& workspace) {
  using T = typename P::Act;
  BasicLinearArgs<T> a = args;
  const bool is_gated = a.epilogue == LinearEpilogue::kSiluMul;
  if (a.m < 0 || a.n <= 0 || a.k <= 0 || a.k % 8 != 0 || (is_gated && a.n % 16 != 0) ||
      a.y_f32 != nullptr || a.epilogue == LinearEpilogue::kBest || workspace.dense == nullptr ||
      workspace.scratch_bytes < linear_scratch_bytes(a.m, a.n, a.k)) {
    return cudaErrorInvalidValue;
  }
  if (a.m == 0) return cudaSuccess;
  LMD_CUDA_RETURN_IF_ERROR(detail::normalise_input(ctx, a, workspace));
  const detail::LinearScratch at(a.m, a.n, a.k);
  T* w = reinterpret_cast<T*>(workspace.scratch + at.weights);
  T* product = reinterpret_cast<T*>(workspace.scratch + at.product);
  LMD_CUDA_RETURN_IF_ERROR(unpack_rows<P>(ctx, a.codes, a.n, a.k, w));
  const DenseArgs<T> gemm{.y = is_gated ? product : a.y,
                          .x = a.x,
                          .w = w,
                          .m = a.m,
                          .n = a.n,
                          .k = a.k,
                          .x_stride = a.x_stride,
                          .y_stride = is_gated ? a.n : a.y_stride,
                          .w_stride = a.k,
                          .accumulate = a.epilogue == LinearEpilogue::kAdd};
  LMD_CUDA_RETURN_IF_ERROR(workspace.dense->multiply(ctx, gemm));
  if (!is_gated && a.bias == nullptr) return cudaSuccess;
  const int columns = is_gated ? a.n / 16 : a.n;  // of threads
  return launch(ctx,
                {.grid = dim3(static_cast<unsigned>(a.m),
                              static_cast<unsigned>(ceil_div(columns, detail::kWideThreads))),
                 .block = detail::kWideThreads},
                is_gated ? &detail::silu_mul_blocks_kernel<T> : &detail::add_bias_kernel<T>,
                detail::WideArgs<T>{.linear = a, .product = product});
}

}  // namespace lmd::kernels
