/// \file  Linear layer for up to 8 tokens on Cuda: reads the weights once, at the memory's speed.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/core/launch.cuh>
#include <lmd/core/math.hpp>
#include <lmd/kernels/linear/skinny_input.cuh>
#include <lmd/kernels/linear/skinny_output.cuh>
#include <lmd/kernels/linear/skinny_product.cuh>
#include <lmd/kernels/primitive/copy_ring.cuh>

#include <algorithm>

namespace lmd::kernels {

namespace detail {

/// This warp's slice of the tiles' chunks, streamed through a ring of copies.
template <class S>
struct SliceOfWeights {
  using F = typename S::F;

  CopyRing<S::kTuning.stages, S::kStageBytes> ring;
  const std::uint8_t* from;  ///< of the next copy
  int chunks;                ///< of a row tile
  int slice;                 ///< this warp's of them
  int next_chunk = 0;

  __device__ __forceinline__ void start() {
    ring.start([&](auto to, auto barrier) { fetch(to, barrier); });
  }
  __device__ __forceinline__ void release() {
    ring.release([&](auto to, auto barrier) { fetch(to, barrier); });
  }

 private:
  __device__ __forceinline__ void fetch(std::uint32_t to, std::uint32_t barrier) {
    if (threadIdx.x % 32 >= kCopyLanes) return;
    const int n = min(S::kStageChunks, slice - next_chunk);
    expect_bytes(barrier, n * F::kChunkBytes);
    bulk_copy(to, from, n * F::kChunkBytes, barrier);
    end_copies(barrier);
    from += n * F::kChunkBytes;
    next_chunk += n;
    if (next_chunk == slice) {
      next_chunk = 0;
      from += std::int64_t{chunks - slice} * F::kChunkBytes;
    }
  }
};

template <class S, int Tokens>
__global__ void __launch_bounds__(S::kThreads, S::kTuning.blocks_per_sm)
    skinny_linear_kernel(const __grid_constant__ BasicLinearArgs<typename S::T> a) {
  using F = typename S::F;
  extern __shared__ __align__(128) std::uint8_t shared[];
  const int warp = threadIdx.x / 32;
  const int lane = threadIdx.x % 32;
  const int n_tiles = ceil_div(a.n, F::kTileRows);
  const int chunks = ceil_div(a.k, F::kChunkColumns);
  const int padded_k = chunks * F::kChunkColumns;
  const auto share = [](int of, int i, int n) {
    return static_cast<int>(std::int64_t{of} * i / n);
  };
  // Blocks i and i + grid / 2 tend to run on one multiprocessor: they take neighbouring shares, so
  // that its sum is rounded once.
  const int per_sm = gridDim.x % S::kTuning.blocks_per_sm == 0 ? S::kTuning.blocks_per_sm : 1;
  const int sm_blocks = gridDim.x / per_sm;
  const int place = blockIdx.x % sm_blocks * per_sm + blockIdx.x / sm_blocks;
  const int first_tile = share(n_tiles, place, gridDim.x);
  const int tiles = share(n_tiles, place + 1, gridDim.x) - first_tile;
  const int first_chunk = share(chunks, warp, S::kWarps);
  const int last_chunk = share(chunks, warp + 1, S::kWarps);
  const int slice = last_chunk - first_chunk;
  const typename S::Shared at(padded_k, ceil_div(n_tiles, static_cast<int>(gridDim.x)), a.m);

  SliceOfWeights<S> weights{
      .ring = {.bytes = shared + warp * S::kRingBytes,
               .barriers = shared_address(shared + at.barriers) + warp * S::kTuning.stages * 8,
               .left = tiles * ceil_div(slice, S::kStageChunks)},
      .from = a.codes + (std::int64_t{first_tile} * chunks + first_chunk) * F::kChunkBytes,
      .chunks = chunks,
      .slice = slice};
  weights.start();
  SliceOfX<S, Tokens> slice_of_x{.a = a,
                                 .first_column = first_chunk * F::kChunkColumns,
                                 .last_column = last_chunk * F::kChunkColumns};
  slice_of_x.prefetch_weights();
  wait_for_previous_kernel();
  allow_next_kernel();

  auto* xs = reinterpret_cast<std::uint16_t*>(shared + at.x);
  auto* x_sums = reinterpret_cast<float*>(shared + at.x_sums);
  auto* squares = reinterpret_cast<float*>(shared + at.squares);
  slice_of_x.stage(padded_k, xs, x_sums, squares);
  __syncwarp();
  const int column = Tokens == 1 ? 0 : lane % 4 * 2;  // of the product's, the first of this lane
  const float inverse_scale[2] = {slice_of_x.scale_of(column).inverse(),
                                  slice_of_x.scale_of(Tokens == 1 ? 0 : column + 1).inverse()};
  // Lanes without a token read the last one; their columns of the product are not used.
  xs += Tokens == 1 ? 0 : std::int64_t{min(lane / 4, a.m - 1)} * (padded_k + S::kRowPad);

  float* sums = reinterpret_cast<float*>(shared + at.sums);
  constexpr int kPassSums = S::kPassTiles * S::kTileSums;
  for (int done = 0; done < tiles; done += S::kPassTiles) {
    const int pass = min(S::kPassTiles, tiles - done);
    float* pass_sums = sums + done / S::kPassTiles % 2 * kPassSums * S::kWarps;
    for (int tile = 0; tile < pass; ++tile) {
      float acc[4] = {};
      for (int chunk = 0; chunk < slice; chunk += S::kStageChunks) {
        const std::uint8_t* in = weights.ring.wait();
#pragma unroll
        for (int u = 0; u < S::kStageChunks; ++u) {
          if (chunk + u < slice) {
            multiply_chunk<S, Tokens>(acc, in + u * F::kChunkBytes, xs, x_sums,
                                      (first_chunk + chunk + u) * F::kChunkColumns, lane);
          }
        }
        weights.release();
      }
      keep_sums<Tokens>(acc, inverse_scale, pass_sums + warp * kPassSums + tile * S::kTileSums,
                        lane);
    }
    __syncthreads();
    store_tiles<S, Tokens>(a, pass_sums, squares, first_tile + done, pass);
  }
}

/// 2026-11-23 H200, one layer of a 7B model (four matrices, W4 g128), chained: 16 warps and one
/// block 39.1 us, 8 warps and two blocks 36.3 us, the two mixed 45.7 us.
/// Small blocks: two with 4096 columns fit into 100 KiB; not measured.
constexpr SkinnyTuning one_token_tuning(Arch arch) {
  if (!arch.has_large_blocks())
    return {.warps = 8, .stages = 2, .stage_bytes = 1088, .blocks_per_sm = 2, .pass_tiles = 8};
  return {.warps = 8, .stages = 4, .stage_bytes = 2176, .blocks_per_sm = 2, .pass_tiles = 16};
}
/// Eight rows of x leave room for one block.
constexpr SkinnyTuning few_tokens_tuning(Arch arch) {
  if (!arch.has_large_blocks())
    return {.warps = 8, .stages = 2, .stage_bytes = 1088, .blocks_per_sm = 1, .pass_tiles = 2};
  return {.warps = 16, .stages = 4, .stage_bytes = 1088, .blocks_per_sm = 1, .pass_tiles = 4};
}

template <class S>
[[nodiscard]] LaunchShape skinny_shape(const BasicLinearArgs<typename S::T>& a,
                                       int tokens,
                                       int n_multiprocessors) {
  const int tiles = ceil_div(a.n, S::F::kTileRows);
  const int grid = std::min(tiles, n_multiprocessors * S::kTuning.blocks_per_sm);
  const typename S::Shared shared(round_up(a.k, S::F::kChunkColumns), ceil_div(tiles, grid),
                                  tokens);
  return {.grid = static_cast<unsigned>(grid),
          .block = static_cast<unsigned>(S::kThreads),
          .shared_bytes = static_cast<std::size_t>(shared.bytes)};
}

template <LinearPolicy P, int Tokens, SkinnyTuning (*Tuning)(Arch)>
[[nodiscard]] cudaError_t launch_skinny(Cuda ctx,
                                        const BasicLinearArgs<typename P::Act>& a,
                                        int n_multiprocessors) {
  const auto kernel = &skinny_linear_kernel<Skinny<P, Tokens, Tuning>, Tokens>;
  return with_tuned_arch(ctx, kernel, [&]<int kCc>() {
    return launch(ctx, skinny_shape<Skinny<P, Tokens, Tuning, kCc>>(a, a.m, n_multiprocessors),
                  kernel, a);
  });
}

/// Tokens of one pass over the weights: up to 8, where so many rows of x fit into shared memory.
template <LinearPolicy P>
[[nodiscard]] cudaError_t tokens_that_fit(Cuda ctx,
                                          const BasicLinearArgs<typename P::Act>& a,
                                          int n_multiprocessors,
                                          int* tokens) {
  *tokens = std::min(a.m, kSkinnyTokens);
  if (*tokens <= 1) return cudaSuccess;
  int room = 0;
  LMD_CUDA_RETURN_IF_ERROR(shared_bytes_of_block(ctx, &room));
  using Few = Skinny<P, kSkinnyTokens, few_tokens_tuning>;
  return with_tuned_arch(ctx, &skinny_linear_kernel<Few, kSkinnyTokens>, [&]<int kCc>() {
    using S = Skinny<P, kSkinnyTokens, few_tokens_tuning, kCc>;
    while (*tokens > 1 && skinny_shape<S>(a, *tokens, n_multiprocessors).shared_bytes >
                              static_cast<std::size_t>(room))
      --*tokens;
    return cudaSuccess;
  });
}

/// Whether skinny_linear reads the weights once. Shapes that it refuses it would not read at all.
template <LinearPolicy P>
[[nodiscard]] cudaError_t is_one_pass(Cuda ctx,
                                      const BasicLinearArgs<typename P::Act>& a,
                                      bool* is_one) {
  *is_one = true;
  if (a.m <= 1 || a.n <= 0 || a.k <= 0) return cudaSuccess;
  int sms = 0;
  LMD_CUDA_RETURN_IF_ERROR(multiprocessors(ctx, &sms));
  int tokens = 0;
  LMD_CUDA_RETURN_IF_ERROR(tokens_that_fit<P>(ctx, a, sms, &tokens));
  *is_one = tokens == a.m;
  return cudaSuccess;
}

}  // namespace detail

/// y = epilogue(x w^T + bias) for few tokens: one pass over the weights for each 8 tokens (fewer
/// where 8 rows of x do not fit into shared memory).
///
/// Shapes:  as BasicLinearArgs; k and x_stride multiples of 8, x 16-byte aligned, norm_weight too.
///          With kSiluMul n is a multiple of 16, with kBest at most kMaxVocab.
/// Errors:  cudaErrorInvalidValue when a shape is not one of these, or x too long for one token.
/// Stream:  queued on ctx.stream; inputs must live until it has run.
/// Oracle:  linear(Host, ...)
template <LinearPolicy P>
[[nodiscard]] cudaError_t skinny_linear(Cuda ctx, const BasicLinearArgs<typename P::Act>& a) {
  if (a.m < 0 || a.n <= 0 || a.k <= 0 || a.k % 8 != 0 || a.x_stride % 8 != 0 ||
      (a.epilogue == LinearEpilogue::kSiluMul && a.n % 16 != 0) ||
      (a.epilogue == LinearEpilogue::kBest && (a.best == nullptr || a.n > kMaxVocab))) {
    return cudaErrorInvalidValue;
  }
  if (a.m == 0) return cudaSuccess;
  int sms = 0;
  LMD_CUDA_RETURN_IF_ERROR(multiprocessors(ctx, &sms));
  int step = 0;
  LMD_CUDA_RETURN_IF_ERROR(detail::tokens_that_fit<P>(ctx, a, sms, &step));
  for (int i = 0; i < a.m; i += step) {
    BasicLinearArgs<typename P::Act> part = a;
    part.x += i * a.x_stride;
    if (a.y_f32 != nullptr) part.y_f32 += i * a.y_stride;
    if (a.y != nullptr) part.y += i * a.y_stride;
    if (a.best != nullptr) part.best += std::int64_t{i} * best_parts(a.n);
    part.m = std::min(step, a.m - i);
    LMD_CUDA_RETURN_IF_ERROR(
        part.m == 1 ? (detail::launch_skinny<P, 1, detail::one_token_tuning>(ctx, part, sms))
                    : (detail::launch_skinny<P, detail::kSkinnyTokens, detail::few_tokens_tuning>(
                          ctx, part, sms)));
  }
  return cudaSuccess;
}

}  // namespace lmd::kernels
