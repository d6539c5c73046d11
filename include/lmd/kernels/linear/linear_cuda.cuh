/// \file  Linear layer on Cuda for any number of tokens: what a model calls.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/kernels/linear/skinny.cuh>
#include <lmd/kernels/linear/tile.cuh>
#include <lmd/kernels/linear/warpgroup.cuh>
#include <lmd/kernels/linear/wide.cuh>

namespace lmd::kernels {

/// Up to which number of tokens a kernel is used; skinny_linear while it reads the weights once.
/// 2026-11-28 H200, chained, W4 g128, one layer of a 7B model, us: skinny 39.1, 47.1, 50.7, 59.7 at 1, 2, 4, 8
/// tokens and 94 at 16; warp groups 75, 79, 106, 211 at 8, 16, 64, 128; tiles 85, 268, 534 at 8, 64, 128; wide
/// 302, 312, 362 at 64, 128, 256.
inline constexpr int kSkinnyLinearTokens = 8;
inline constexpr int kWarpgroupLinearTokens = 192;
inline constexpr int kTileLinearTokens = 64;

/// y = epilogue(norm(x) w^T + bias) by one kernel for every m, whose sums do not depend on m: a token
/// has the same bits alone and in any batch. For few tokens it is slower than `linear`, for many
/// much slower.
///
/// Shapes, errors, stream, oracle:  as `linear`.
template <LinearPolicy P>
[[nodiscard]] cudaError_t batch_invariant_linear(Cuda ctx,
                                                 const BasicLinearArgs<typename P::Act>& args,
                                                 const LinearWorkspace& workspace) {
  if (has_warpgroup_linear<P>()) return warpgroup_linear<P>(ctx, args, workspace);
  BasicLinearArgs<typename P::Act> a = args;
  LMD_CUDA_RETURN_IF_ERROR(detail::normalise_input(ctx, a, workspace));
  return tile_linear<P>(ctx, a, workspace);
}

/// y = epilogue(norm(x) w^T + bias) by the kernel that suits m.
///
/// Shapes:  as BasicLinearArgs; k and x_stride multiples of 8, x, norm_weight and codes 16-byte
///          aligned. With kSiluMul n is a multiple of 16, with kBest at most kMaxVocab; with
///          norm_weight x_stride is k. The workspace is large enough for m, n and k: tile_part_elements, tile_counters, and the
///          larger of linear_scratch_bytes and warpgroup_scratch_bytes.
/// Errors:  cudaErrorInvalidValue when a shape is not one of these.
/// Stream:  queued on ctx.stream; inputs must live until it has run. One stream of a device at a time
///          (warpgroup_linear, tile_linear).
/// Oracle:  linear(Host, ...)
template <LinearPolicy P>
[[nodiscard]] cudaError_t linear(Cuda ctx,
                                 const BasicLinearArgs<typename P::Act>& args,
                                 const LinearWorkspace& workspace) {
  bool is_launched = false;
  if (args.m <= kSkinnyLinearTokens) {
    LMD_CUDA_RETURN_IF_ERROR(detail::try_one_pass<P>(ctx, args, &is_launched));
    if (is_launched) return cudaSuccess;
  }
  const bool is_rounded = args.y_f32 == nullptr && args.epilogue != LinearEpilogue::kBest;
  const int most = has_warpgroup_linear<P>() ? kWarpgroupLinearTokens : kTileLinearTokens;
  if (args.m > most && is_rounded) return wide_linear<P>(ctx, args, workspace);
  return batch_invariant_linear<P>(ctx, args, workspace);
}

}  // namespace lmd::kernels
