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

/// What a block, and a warp of it, computes: blocks or clusters share out the row tiles, the warps of a block or
/// of all blocks of a cluster the chunks of a tile.
template <class S>
struct SkinnyShare {
  using F = typename S::F;
  int chunks;        ///< of a row tile
  int first_tile;    ///< of the block
  int tiles;         ///< of the block
  int block_chunk;   ///< of the block, the first
  int columns;       ///< of the block
  int first_chunk;   ///< of the warp
  int last_chunk;    ///< behind it
  int most_columns;  ///< of any block
  int most_tiles;    ///< of any block

  __device__ __forceinline__ SkinnyShare(int n, int k, int warp)
      : chunks(ceil_div(k, F::kChunkColumns)) {
    const int n_tiles = ceil_div(n, F::kTileRows);
    const int cluster = PassTotals<S>::blocks();
    const int rank = PassTotals<S>::rank();
    const int clusters = static_cast<int>(gridDim.x) / cluster;
    // Blocks i and i + grid / 2 tend to run on one multiprocessor: they take neighbouring shares, so
    // that its sum is rounded once.
    const int per_sm = clusters % S::kTuning.blocks_per_sm == 0 ? S::kTuning.blocks_per_sm : 1;
    const int number = static_cast<int>(blockIdx.x) / cluster;
    const int place = number % (clusters / per_sm) * per_sm + number / (clusters / per_sm);
    first_tile = begin_of(n_tiles, place, clusters);
    tiles = begin_of(n_tiles, place + 1, clusters) - first_tile;
    block_chunk = begin_of(chunks, rank, cluster);
    columns = (begin_of(chunks, rank + 1, cluster) - block_chunk) * F::kChunkColumns;
    first_chunk = begin_of(chunks, rank * S::kWarps + warp, cluster * S::kWarps);
    last_chunk = begin_of(chunks, rank * S::kWarps + warp + 1, cluster * S::kWarps);
    most_columns = ceil_div(chunks, cluster) * F::kChunkColumns;
    most_tiles = ceil_div(n_tiles, clusters);
  }

 private:
  /// Of share i of n.
  [[nodiscard]] static __device__ __forceinline__ int begin_of(int all, int i, int n) {
    return static_cast<int>(std::int64_t{all} * i / n);
  }
};

template <class S, int Tokens>
__global__ void __launch_bounds__(S::kThreads, S::kTuning.blocks_per_sm)
    skinny_linear_kernel(const __grid_constant__ BasicLinearArgs<typename S::T> a) {
  using F = typename S::F;
  extern __shared__ __align__(128) std::uint8_t shared[];
  const int warp = threadIdx.x / 32;
  const int lane = threadIdx.x % 32;
  const SkinnyShare<S> share(a.n, a.k, warp);
  const int slice = share.last_chunk - share.first_chunk;
  const typename S::Shared at(share.most_columns, share.most_tiles, a.m);

  SliceOfWeights<S> weights{
      .ring = {.bytes = shared + warp * S::kRingBytes,
               .barriers = shared_address(shared + at.barriers) + warp * S::kTuning.stages * 8,
               .left = share.tiles * ceil_div(slice, S::kStageChunks)},
      .from = a.codes +
              (std::int64_t{share.first_tile} * share.chunks + share.first_chunk) * F::kChunkBytes,
      .chunks = share.chunks,
      .slice = slice};
  weights.start();
  SliceOfX<S, Tokens> slice_of_x{.a = a,
                                 .block_column = share.block_chunk * F::kChunkColumns,
                                 .first_column = share.first_chunk * F::kChunkColumns,
                                 .last_column = share.last_chunk * F::kChunkColumns};
  slice_of_x.prefetch_weights();
  wait_for_previous_kernel();
  allow_next_kernel();

  auto* xs = reinterpret_cast<std::uint16_t*>(shared + at.x);
  auto* x_sums = reinterpret_cast<float*>(shared + at.x_sums);
  auto* squares = reinterpret_cast<float*>(shared + at.squares);
  slice_of_x.stage(share.columns, xs, x_sums, squares);
  __syncwarp();
  const int column = Tokens == 1 ? 0 : lane % 4 * 2;  // of the product's, the first of this lane
  const float inverse_scale[2] = {slice_of_x.scale_of(column).inverse(),
                                  slice_of_x.scale_of(Tokens == 1 ? 0 : column + 1).inverse()};
  // Lanes without a token read the last one; their columns of the product are not used.
  xs += Tokens == 1 ? 0 : std::int64_t{min(lane / 4, a.m - 1)} * (share.columns + S::kRowPad);

  float* sums = reinterpret_cast<float*>(shared + at.sums);
  float* parts = reinterpret_cast<float*>(shared + at.parts);
  const int before = share.first_chunk - share.block_chunk;
  for (int done = 0; done < share.tiles; done += S::kPassTiles) {
    const int pass = min(S::kPassTiles, share.tiles - done);
    const int buffer = done / S::kPassTiles % 2;
    float* pass_sums = sums + buffer * S::kPassSums * S::kWarps;
    for (int tile = 0; tile < pass; ++tile) {
      float acc[4] = {};
      for (int chunk = 0; chunk < slice; chunk += S::kStageChunks) {
        const std::uint8_t* in = weights.ring.wait();
#pragma unroll
        for (int u = 0; u < S::kStageChunks; ++u) {
          if (chunk + u < slice) {
            multiply_chunk<S, Tokens>(acc, in + u * F::kChunkBytes, xs, x_sums,
                                      (before + chunk + u) * F::kChunkColumns, lane);
          }
        }
        weights.release();
      }
      keep_sums<Tokens>(acc, inverse_scale, pass_sums + warp * S::kPassSums + tile * S::kTileSums,
                        lane);
    }
    __syncthreads();
    store_tiles<S, Tokens>(
        a,
        PassTotals<S>{
            .sums = pass_sums, .squares = squares, .parts = parts + buffer * S::kPassSums},
        share.first_tile + done, pass);
  }
  if constexpr (S::kIsCluster) cluster_sync();  // others may still read this block's sums
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

template <LinearPolicy P, int Tokens, bool IsCluster, int Cc = 0>
using SkinnyOf =
    Skinny<P, Tokens, Tokens == 1 ? &one_token_tuning : &few_tokens_tuning, IsCluster, Cc>;

/// How a number of tokens is computed in one pass over the weights.
template <Activation T>
struct SkinnyPlan {
  void (*kernel)(BasicLinearArgs<T>) = nullptr;  ///< null: there is no room for so many
  LaunchShape shape = {};
};

/// By blocks alone.
template <LinearPolicy P, int Tokens>
[[nodiscard]] cudaError_t plan_blocks(Cuda ctx,
                                      const BasicLinearArgs<typename P::Act>& a,
                                      int tokens,
                                      std::size_t room,
                                      SkinnyPlan<typename P::Act>* plan) {
  const auto kernel = &skinny_linear_kernel<SkinnyOf<P, Tokens, false>, Tokens>;
  int sms = 0;
  LMD_CUDA_RETURN_IF_ERROR(multiprocessors(ctx, &sms));
  return with_tuned_arch(ctx, kernel, [&]<int kCc>() {
    using S = SkinnyOf<P, Tokens, false, kCc>;
    const int tiles = ceil_div(a.n, S::F::kTileRows);
    const int grid = std::min(tiles, sms * S::kTuning.blocks_per_sm);
    const typename S::Shared shared(round_up(a.k, S::F::kChunkColumns), ceil_div(tiles, grid),
                                    tokens);
    plan->shape = {.grid = static_cast<unsigned>(grid),
                   .block = static_cast<unsigned>(S::kThreads),
                   .shared_bytes = static_cast<std::size_t>(shared.bytes)};
    if (plan->shape.shared_bytes <= room) plan->kernel = kernel;
    return cudaSuccess;
  });
}

/// By clusters of two blocks or of four, as many as run at once.
template <LinearPolicy P, int Tokens>
[[nodiscard]] cudaError_t plan_clusters(Cuda ctx,
                                        const BasicLinearArgs<typename P::Act>& a,
                                        int tokens,
                                        std::size_t room,
                                        SkinnyPlan<typename P::Act>* plan) {
  const auto kernel = &skinny_linear_kernel<SkinnyOf<P, Tokens, true>, Tokens>;
  return with_tuned_arch(ctx, kernel, [&]<int kCc>() -> cudaError_t {
    if (!tuned_arch(kCc).has_clusters()) return cudaSuccess;
    using S = SkinnyOf<P, Tokens, true, kCc>;
    const int tiles = ceil_div(a.n, S::F::kTileRows);
    const int chunks = ceil_div(a.k, S::F::kChunkColumns);
    for (const int cluster : {2, 4}) {
      const typename S::Shared shared(ceil_div(chunks, cluster) * S::F::kChunkColumns, tiles,
                                      tokens);
      if (static_cast<std::size_t>(shared.bytes) > room) continue;
      plan->shape = {.grid = static_cast<unsigned>(cluster),
                     .block = static_cast<unsigned>(S::kThreads),
                     .shared_bytes = static_cast<std::size_t>(shared.bytes),
                     .cluster = cluster};
      int n = 0;
      LMD_CUDA_RETURN_IF_ERROR(max_clusters(ctx, plan->shape, kernel, &n));
      if (n == 0) continue;
      plan->shape.grid = static_cast<unsigned>(std::min(tiles, n) * cluster);
      plan->kernel = kernel;
      return cudaSuccess;
    }
    return cudaSuccess;
  });
}

template <LinearPolicy P>
[[nodiscard]] cudaError_t plan_skinny(Cuda ctx,
                                      const BasicLinearArgs<typename P::Act>& a,
                                      int tokens,
                                      SkinnyPlan<typename P::Act>* plan) {
  *plan = {};
  int bytes = 0;
  LMD_CUDA_RETURN_IF_ERROR(shared_bytes_of_block(ctx, &bytes));
  const auto room = static_cast<std::size_t>(bytes);
  if (tokens == 1) return plan_blocks<P, 1>(ctx, a, tokens, room, plan);
  LMD_CUDA_RETURN_IF_ERROR((plan_blocks<P, kSkinnyTokens>(ctx, a, tokens, room, plan)));
  if (plan->kernel != nullptr) return cudaSuccess;
  return plan_clusters<P, kSkinnyTokens>(ctx, a, tokens, room, plan);
}

/// What skinny_linear asks of a layer.
template <Activation T>
[[nodiscard]] bool is_skinny_layer(const BasicLinearArgs<T>& a) {
  return a.m >= 0 && a.n > 0 && a.k > 0 && a.k % 8 == 0 && a.x_stride % 8 == 0 &&
         (a.epilogue != LinearEpilogue::kSiluMul || a.n % 16 == 0) &&
         (a.epilogue != LinearEpilogue::kBest || (a.best != nullptr && a.n <= kMaxVocab));
}

/// skinny_linear, where it reads the weights once.
template <LinearPolicy P>
[[nodiscard]] cudaError_t try_one_pass(Cuda ctx,
                                       const BasicLinearArgs<typename P::Act>& a,
                                       bool* is_launched) {
  *is_launched = false;
  if (a.m > kSkinnyTokens) return cudaSuccess;
  if (!is_skinny_layer(a)) return cudaErrorInvalidValue;
  if (a.m > 0) {
    SkinnyPlan<typename P::Act> plan;
    LMD_CUDA_RETURN_IF_ERROR(plan_skinny<P>(ctx, a, a.m, &plan));
    if (plan.kernel == nullptr) return cudaSuccess;
    LMD_CUDA_RETURN_IF_ERROR(launch(ctx, plan.shape, plan.kernel, a));
  }
  *is_launched = true;
  return cudaSuccess;
}

}  // namespace detail

/// y = epilogue(x w^T + bias) for few tokens: one pass over the weights for each 8 tokens (fewer
/// where so many rows of x do not fit into the shared memory of four blocks).
///
/// Shapes:  as BasicLinearArgs; k and x_stride multiples of 8, x 16-byte aligned, norm_weight too.
///          With kSiluMul n is a multiple of 16, with kBest at most kMaxVocab.
/// Errors:  cudaErrorInvalidValue when a shape is not one of these, or x too long for one token.
/// Stream:  queued on ctx.stream; inputs must live until it has run.
/// Oracle:  linear(Host, ...)
template <LinearPolicy P>
[[nodiscard]] cudaError_t skinny_linear(Cuda ctx, const BasicLinearArgs<typename P::Act>& a) {
  if (!detail::is_skinny_layer(a)) return cudaErrorInvalidValue;
  BasicLinearArgs<typename P::Act> part = a;
  for (int i = 0; i < a.m; i += part.m) {
    part.x = a.x + i * a.x_stride;
    if (a.y_f32 != nullptr) part.y_f32 = a.y_f32 + i * a.y_stride;
    if (a.y != nullptr) part.y = a.y + i * a.y_stride;
    if (a.best != nullptr) part.best = a.best + std::int64_t{i} * best_parts(a.n);
    part.m = std::min(a.m - i, detail::kSkinnyTokens);
    detail::SkinnyPlan<typename P::Act> plan;
    LMD_CUDA_RETURN_IF_ERROR(detail::plan_skinny<P>(ctx, a, part.m, &plan));
    while (plan.kernel == nullptr) {
      if (--part.m == 0) return cudaErrorInvalidValue;
      LMD_CUDA_RETURN_IF_ERROR(detail::plan_skinny<P>(ctx, a, part.m, &plan));
    }
    LMD_CUDA_RETURN_IF_ERROR(launch(ctx, plan.shape, plan.kernel, part));
  }
  return cudaSuccess;
}

}  // namespace lmd::kernels
