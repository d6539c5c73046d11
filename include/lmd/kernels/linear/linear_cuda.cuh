/// \file  Linear layer on Cuda for any number of tokens: what a model calls.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/kernels/linear/panel.cuh>
#include <lmd/kernels/linear/resident.cuh>
#include <lmd/kernels/linear/skinny.cuh>
#include <lmd/kernels/linear/tile.cuh>
#include <lmd/kernels/linear/warpgroup.cuh>
#include <lmd/kernels/linear/wide.cuh>

namespace lmd::kernels {

/// Up to which number of tokens a kernel is used; skinny_linear while it reads the weights once.
inline constexpr int kSkinnyLinearTokens = 8;
inline constexpr int kWarpgroupLinearTokens = 192;
inline constexpr int kTileLinearTokens = 64;
/// Layers of 4-bit weights, but for the largest, hold x from more tokens than this on, up to
/// kResidentTokens, and take panels beyond one tile of tokens, up to kPanelLinearTokens.
/// 2026-11-28 H200, chained (beyond 256 tokens in bursts), W4 g128, one layer of a 7B model, us:
///   skinny       50.7, 60.0 at 4, 8 tokens
///   resident     52.4, 54.2, 73.5 at 4, 8, 16
///   warp groups  75, 80, 88, 106, 194, 210, 422 at 8, 16, 32, 64, 96, 128, 256
///   panels       153, 157, 163, 251, 416, 482 at 64, 96, 128, 256, 384, 512
///   wide         302, 312, 363, 432, 481 at 64, 128, 256, 384, 512
inline constexpr int kMostTokensBeforeResident = 4;
inline constexpr std::int64_t kMostResidentWeights = std::int64_t{1} << 27;

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
///          norm_weight x_stride is k. The workspace is large enough for m, n and k:
///          tile_part_elements, tile_counters, and the largest of linear_scratch_bytes,
///          warpgroup_scratch_bytes and, up to kPanelLinearTokens, panel_scratch_bytes (with less of
///          those last, panels are not taken).
/// Errors:  cudaErrorInvalidValue when a shape is not one of these.
/// Stream:  queued on ctx.stream; inputs must live until it has run. One stream of a device at a time
///          (warpgroup_linear, tile_linear).
/// Oracle:  linear(Host, ...)
template <LinearPolicy P>
[[nodiscard]] cudaError_t linear(Cuda ctx,
                                 const BasicLinearArgs<typename P::Act>& args,
                                 const LinearWorkspace& workspace) {
  constexpr bool kHasFewBits = P::Format::kBits == 4;
  bool is_launched = false;
  if constexpr (kHasFewBits) {
    if (args.m > kMostTokensBeforeResident && args.m <= kResidentTokens &&
        std::int64_t{args.n} * args.k <= kMostResidentWeights) {
      LMD_CUDA_RETURN_IF_ERROR(try_resident_linear<P>(ctx, args, &is_launched));
      if (is_launched) return cudaSuccess;
    }
  }
  if (args.m <= kSkinnyLinearTokens) {
    LMD_CUDA_RETURN_IF_ERROR(detail::try_one_pass<P>(ctx, args, &is_launched));
    if (is_launched) return cudaSuccess;
  }
  const bool has_warpgroups = has_warpgroup_linear<P>();
  if constexpr (kHasFewBits) {
    if (has_warpgroups && args.m > kTileTokens && args.m <= kPanelLinearTokens) {
      LMD_CUDA_RETURN_IF_ERROR(try_panel_linear<P>(ctx, args, workspace, &is_launched));
      if (is_launched) return cudaSuccess;
    }
  }
  const bool is_rounded = args.y_f32 == nullptr && args.epilogue != LinearEpilogue::kBest;
  const int most = has_warpgroups ? kWarpgroupLinearTokens : kTileLinearTokens;
  if (args.m > most && is_rounded) return wide_linear<P>(ctx, args, workspace);
  return batch_invariant_linear<P>(ctx, args, workspace);
}

}  // namespace lmd::kernels
