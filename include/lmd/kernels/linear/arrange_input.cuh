/// \file  Activations -> the order in which wgmma reads them from shared memory, RMS-normalised on the
///        way: a stage of the linear layer is then one copy.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/core/launch.cuh>
#include <lmd/core/math.hpp>
#include <lmd/kernels/linear/linear.hpp>
#include <lmd/kernels/primitive/block_sum.cuh>
#include <lmd/kernels/primitive/pack.cuh>

namespace lmd::kernels {

/// Where 16-byte unit `unit` (0 .. 7) of row `token` of block `block` of 64 columns lies, of `tokens`
/// rows (a multiple of 8): the 128-byte swizzle of wgmma_rows. In bytes.
LMD_HD std::int64_t arranged_at(int token, int block, int unit, int tokens) {
  return (std::int64_t{block} * tokens + token) * 128 + (unit ^ token % 8) * 16;
}

/// Bytes of `tokens` arranged rows of `columns`, padded to whole blocks of 64.
[[nodiscard]] inline std::int64_t arranged_bytes(int tokens, int columns) {
  return std::int64_t{tokens} * round_up(columns, 64) * 2;
}

namespace detail {

inline constexpr int kArrangeThreads = 256;

template <Activation T>
struct ArrangeArgs {
  std::uint8_t* out;  ///< [round_up(k, 128) / 64 blocks][tokens] rows of 64
  const T* x;         ///< [m, k], rows x_stride apart
  const float* norm;  ///< [k] or null
  float eps;
  int tokens;  ///< at least m; rows behind m are not written
  int k;
  int columns;  ///< those behind k become zeros
  std::int64_t x_stride;
};

/// A block for each token; a thread takes 32 columns: four 16-byte units of which each lane t of a
/// product reads one (fragment_column), and which therefore change places by words.
template <Activation T>
__global__ void __launch_bounds__(kArrangeThreads)
    arrange_input_kernel(const __grid_constant__ ArrangeArgs<T> a) {
  __shared__ float partial[kMaxWarps];
  const int token = blockIdx.x;
  const T* x = a.x + token * a.x_stride;
  const int pieces = a.columns / 32;
  wait_for_previous_kernel();
  allow_next_kernel();
  float scale = 1.0f;
  if (a.norm != nullptr) {
    float square = 0.0f;
    for (int l = static_cast<int>(threadIdx.x) * 8; l < a.k; l += kArrangeThreads * 8) {
      const Pack<T> p = unpack<T>(*reinterpret_cast<const uint4*>(x + l));
#pragma unroll
      for (int i = 0; i < 8; ++i)
        square = fmaf(p.x[i], p.x[i], square);
    }
    scale = rsqrtf(block_sum(square, partial) / a.k + a.eps);
  }
  for (int piece = threadIdx.x; piece < pieces; piece += kArrangeThreads) {
    uint4 v[4] = {};
#pragma unroll
    for (int t = 0; t < 4; ++t) {
      const int l = piece * 32 + t * 8;
      if (l >= a.k) continue;  // zeros: weights of 0 must not meet something else than a number
      v[t] = *reinterpret_cast<const uint4*>(x + l);
      if (a.norm == nullptr) continue;
      Pack<T> p = unpack<T>(v[t]);
      const Pack<T> gain = load_parameters<T>(a.norm + l, 8, true);
#pragma unroll
      for (int i = 0; i < 8; ++i)
        p.x[i] = p.x[i] * scale * gain.x[i];
      v[t] = repack<T>(p);
    }
    const uint4 units[4] = {{v[0].x, v[1].x, v[2].x, v[3].x},
                            {v[0].y, v[1].y, v[2].y, v[3].y},
                            {v[0].z, v[1].z, v[2].z, v[3].z},
                            {v[0].w, v[1].w, v[2].w, v[3].w}};
#pragma unroll
    for (int u = 0; u < 4; ++u) {
      *reinterpret_cast<uint4*>(
          a.out + arranged_at(token, piece / 2, piece % 2 * 4 + u, a.tokens)) = units[u];
    }
  }
}

}  // namespace detail

/// Arranges the m rows of `a`'s x, normalised where it has a norm, for blocks of `tokens` rows, with zeros
/// behind k.
///
/// Shapes:  out [arranged_bytes(tokens, columns)], 128-byte aligned; columns a multiple of 64; k and x_stride multiples of 8, x and
///          norm_weight 16-byte aligned.
/// Errors:  the status of the launch.
/// Stream:  one kernel on ctx.stream.
template <Activation T>
[[nodiscard]] cudaError_t arrange_input(
    Cuda ctx, const BasicLinearArgs<T>& a, int tokens, int columns, std::uint8_t* out) {
  const detail::ArrangeArgs<T> args{.out = out,
                                    .x = a.x,
                                    .norm = a.norm_weight,
                                    .eps = a.norm_eps,
                                    .tokens = tokens,
                                    .k = a.k,
                                    .columns = columns,
                                    .x_stride = a.x_stride};
  return launch(ctx, {.grid = static_cast<unsigned>(a.m), .block = detail::kArrangeThreads},
                &detail::arrange_input_kernel<T>, args);
}

}  // namespace lmd::kernels
