/// \file  Linear layer for a few to some hundred tokens on Cuda, by the products of sm_90a: the
///        weights are read once for up to 64 tokens.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/kernels/linear/tile.cuh>
#include <lmd/kernels/linear/warpgroup_rings.cuh>
#include <lmd/kernels/primitive/cluster.cuh>
#include <lmd/kernels/primitive/signal.cuh>
#include <lmd/kernels/primitive/wgmma.cuh>

namespace lmd::kernels {

namespace detail {

/// The A fragments of one row tile of a chunk.
template <class S>
__device__ __forceinline__ void decode_chunk(std::uint32_t (&a)[S::kSteps][4],
                                             const std::uint8_t* chunk,
                                             int lane) {
  using F = typename S::F;
  constexpr int kGroup = S::W::kGroupSize == 0 ? F::kChunkColumns : S::W::kGroupSize;
  typename S::Operands group;
#pragma unroll
  for (int block = 0; block < S::kBlocks; ++block) {
    typename S::Operands::Decoder codes;
    codes.load(chunk + block * F::kBlockBytes, lane);
#pragma unroll
    for (int s = 0; s < 4; ++s) {
      const int column = block * 64 + s * 16;
      if (column % kGroup == 0)
        group.load(chunk + F::kCodeBytes + column / kGroup * F::kTileRows * F::kParamBytes,
                   lane / 4);
      group.step(codes, s, a[block * 4 + s]);
    }
  }
}

template <Activation T>
struct WarpgroupArgs {
  BasicLinearArgs<T> linear;
  std::uint8_t* x;  ///< arranged
  int columns;      ///< of it
  int* counter;     ///< zero before and after
  int cluster;      ///< blocks that share out k
};

/// The blocks arrange x, a row each, and tell each other. Returns when all rows are there for copies of
/// this block's first thread.
template <class S>
__device__ __forceinline__ void arrange_together(const WarpgroupArgs<typename S::T>& args) {
  __shared__ float partial[kMaxWarps];
  const int m = args.linear.m;
  const int blocks = static_cast<int>(gridDim.x);
  int rows = 0;
  for (int token = blockIdx.x; token < m; token += blocks, ++rows) {
    if (rows > 0) __syncthreads();  // partial has been read
    arrange_row(args.linear, args.x, token, S::kTokens, args.columns, partial);
  }
  fence_before_global_copies();
  __syncthreads();
  if (threadIdx.x != 0) return;
  if (rows > 0) add_release(args.counter, rows);
  while (load_acquire(args.counter) < m) {
  }
  fence_before_global_copies();
  // The last block to have seen all rows leaves the counter as it was.
  if (atomicAdd(args.counter, 1) == m + blocks - 1) atomicExch(args.counter, 0);
}

/// A warp's products. While the tensor cores work for some warps, others decode.
template <class S>
struct WarpgroupProducts {
  const ArrangedInput<S>& input;
  WarpgroupWeights<S>& weights;
  int warp;
  int lane;
  int stage = 0;  ///< of x
  std::uint32_t parity = 0;

  /// acc += the units [i, end), all of one tile.
  __device__ __forceinline__ void add(float (&acc)[S::kTokenGroups][4], int i, int end) {
    const std::uint64_t x = wgmma_rows(input.ring + S::slice_of(warp) * S::kXChunkBytes);
    std::uint32_t operands[S::kSteps][4];
    for (bool is_first = true; i < end; ++i, is_first = false) {
      if (lane == 0) input.refill(i, warp);
      __syncwarp();
      const std::uint8_t* codes = weights.wait();
      wgmma_wait<0>();  // the products of the unit before
      if (!is_first && lane == 0) arrive_at(input.read(i - 1));
      decode_chunk<S>(operands, codes, lane);
      wait_barrier(input.filled(stage), parity);
      wgmma_fence();
#pragma unroll
      for (int s = 0; s < S::kSteps; ++s) {
        const int bytes = s / 4 * S::kXBlockBytes + s % 4 * 32;
        wgmma<typename S::T>(acc, operands[s], x + (stage * S::kXStageBytes + bytes) / 16);
      }
      wgmma_commit();
      weights.release();
      if (++stage == ArrangedInput<S>::kStages) {
        stage = 0;
        parity ^= 1;
      }
    }
    wgmma_wait<0>();
    if (lane == 0) arrive_at(input.read(end - 1));
  }
};

/// This warp's outputs of a tile that the block has summed alone.
template <class S>
__device__ __forceinline__ void store_outputs(const BasicLinearArgs<typename S::T>& a,
                                              const float (&acc)[S::kTokenGroups][4],
                                              int row_tile,
                                              int lane) {
#pragma unroll
  for (int j = 0; j < S::kTokenGroups; ++j)
    store_sums(a, acc[j], row_tile, j * 8, lane);
}

/// Adds up the sums of the slices of the cluster's blocks in the order of k, a part of the outputs by
/// each block. The block has no other tile.
template <class S>
__device__ __forceinline__ void merge_slices(const WarpgroupArgs<typename S::T>& args,
                                             const float (&acc)[S::kTokenGroups][4],
                                             std::uint8_t* shared,
                                             int tile,
                                             int warp,
                                             int lane) {
  constexpr int kItems = S::kRowTiles * S::kTokenGroups;  // of 16 outputs and 8 tokens
  auto* parts = reinterpret_cast<float4*>(shared);        // [slice][tokens][row tile][lane]
  float4* mine = parts + (warp / S::kRowTiles * kItems + warp % S::kRowTiles) * 32 + lane;
  __syncthreads();  // the rings are not read any more
#pragma unroll
  for (int j = 0; j < S::kTokenGroups; ++j)
    mine[j * S::kRowTiles * 32] = {acc[j][0], acc[j][1], acc[j][2], acc[j][3]};
  cluster_sync();
  const int rank = static_cast<int>(blockIdx.x) % args.cluster;
  const int last = kItems * (rank + 1) / args.cluster;
  for (int item = kItems * rank / args.cluster + warp; item < last; item += S::kWarps) {
    const int tokens = item / S::kRowTiles * 8;
    if (tokens >= args.linear.m) continue;
    float sums[4] = {};
#pragma unroll 4
    for (int block = 0; block < args.cluster; ++block) {
#pragma unroll
      for (int slice = 0; slice < S::kSlices; ++slice) {
        const float4 part = in_block(parts, block)[(slice * kItems + item) * 32 + lane];
        sums[0] += part.x;
        sums[1] += part.y;
        sums[2] += part.z;
        sums[3] += part.w;
      }
    }
    store_sums(args.linear, sums, tile * S::kRowTiles + item % S::kRowTiles, tokens, lane);
  }
  cluster_sync();  // others may still read this block's sums
}

/// Where the architecture lacks these products there is no such kernel: its largest block is one
/// thread, which tells the host.
template <class S>
__global__ void __launch_bounds__(kHasWgmma ? S::kThreads : 1, 1)
    warpgroup_linear_kernel(const __grid_constant__ WarpgroupArgs<typename S::T> args) {
#if !defined(__CUDA_ARCH__) || defined(__CUDA_ARCH_FEAT_SM90_ALL)
  using F = typename S::F;
  extern __shared__ __align__(1024) std::uint8_t unaligned[];
  std::uint8_t* shared =
      unaligned + (S::kAlignment - shared_address(unaligned) % S::kAlignment) % S::kAlignment;
  const BasicLinearArgs<typename S::T>& a = args.linear;
  // From lane 0, so that the compiler keeps what follows from it in uniform registers.
  const int warp = __shfl_sync(0xffffffffu, static_cast<int>(threadIdx.x) / 32, 0);
  const int lane = threadIdx.x % 32;
  const WarpgroupShare share(ceil_div(a.n, S::kTileOutputs), ceil_div(a.k, F::kChunkColumns),
                             args.cluster, S::kSlices);
  const ArrangedInput<S> input{.x = args.x,
                               .ring = shared_address(shared),
                               .barriers = shared_address(shared + S::kXBarriersAt),
                               .share = share};
  WarpgroupWeights<S> weights{
      .codes = a.codes,
      .ring = shared + S::kWeightsAt + warp * S::kTuning.weight_stages * S::kWeightStageBytes,
      .barriers =
          shared_address(shared + S::kWeightBarriersAt) + warp * S::kTuning.weight_stages * 8,
      .share = share,
      .last_row_tile = ceil_div(a.n, F::kTileRows) - 1,
      .row_tile = share.first_tile * S::kRowTiles + warp % S::kRowTiles,
      .slice = S::slice_of(warp),
      .left = share.units};
  weights.start();
  if (threadIdx.x == 0) input.init();
  __syncthreads();
  wait_for_previous_kernel();
  allow_next_kernel();
  arrange_together<S>(args);
  if (threadIdx.x == 0) {
    for (int i = 0; i < ArrangedInput<S>::kStages; ++i)
      input.fetch(i);
  }

  WarpgroupProducts<S> products{.input = input, .weights = weights, .warp = warp, .lane = lane};
  int tile = share.first_tile;
  for (int i = 0; i < share.units; i += share.chunks) {
    float acc[S::kTokenGroups][4] = {};
    products.add(acc, i, i + share.chunks);
    if (S::kSlices == 1 && args.cluster == 1) {
      store_outputs<S>(a, acc, tile * S::kWarps + warp, lane);
    } else {
      merge_slices<S>(args, acc, shared, tile, warp, lane);
    }
    tile += share.tile_step;
  }
#endif
}

/// Three stages of 2176 bytes in each of 16 warps: 104 KB of weights in flight.
template <int Slices>
constexpr WarpgroupTuning warpgroup_tuning() {
  return {.slices = Slices, .x_stages = Slices == 1 ? 5 : 3};
}

/// Blocks that share out the k of a tile: so many that the device is full, but all run at once.
template <class S>
[[nodiscard]] cudaError_t cluster_of_slices(Cuda ctx, int tiles, int chunks, int* cluster) {
  constexpr int kMostBlocks = 4;
  constexpr int kFewestChunks = 2;
  for (*cluster = kMostBlocks; *cluster > 1; --*cluster) {
    if (chunks < kFewestChunks * *cluster * S::kSlices) continue;
    int n = 0;
    LMD_CUDA_RETURN_IF_ERROR(
        max_clusters(ctx,
                     {.grid = static_cast<unsigned>(*cluster),
                      .block = static_cast<unsigned>(S::kThreads),
                      .shared_bytes = static_cast<std::size_t>(S::kSharedBytes),
                      .cluster = *cluster},
                     &warpgroup_linear_kernel<S>, &n));
    if (tiles <= n) break;
  }
  return cudaSuccess;
}

/// Up to 64 tokens. Largest is the same for the most tokens: what it says of clusters holds for any m, so
/// that sums do not depend on m.
template <class S, class Largest>
[[nodiscard]] cudaError_t launch_warpgroups(Cuda ctx,
                                            const BasicLinearArgs<typename S::T>& a,
                                            const LinearWorkspace& workspace,
                                            int n_multiprocessors) {
  static_assert(S::kSharedBytes <= 226 * 1024, "a block's rings fit, and the sums of norms");
  const int tiles = ceil_div(a.n, S::kTileOutputs);
  const int chunks = ceil_div(a.k, S::F::kChunkColumns);
  int cluster = 1;
  if (S::kSlices > 1)
    LMD_CUDA_RETURN_IF_ERROR(cluster_of_slices<Largest>(ctx, tiles, chunks, &cluster));
  const int columns = round_up(chunks, cluster * S::kSlices) * S::F::kChunkColumns;
  if (workspace.scratch_bytes < arranged_bytes(S::kTokens, columns)) return cudaErrorInvalidValue;
  const int grid = std::min(tiles, n_multiprocessors / cluster) * cluster;
  return launch(ctx,
                {.grid = static_cast<unsigned>(grid),
                 .block = static_cast<unsigned>(S::kThreads),
                 .shared_bytes = static_cast<std::size_t>(S::kSharedBytes),
                 .cluster = cluster},
                &warpgroup_linear_kernel<S>,
                WarpgroupArgs<typename S::T>{.linear = a,
                                             .x = workspace.scratch,
                                             .columns = columns,
                                             .counter = workspace.counters,
                                             .cluster = cluster});
}

/// Tiles of 256 outputs where they fill the device, else of 128, one a block: their sums take the place
/// of the rings, which no copy for another tile may use meanwhile.
template <LinearPolicy P, int TokenGroups>
[[nodiscard]] cudaError_t launch_warpgroups_of(Cuda ctx,
                                               const BasicLinearArgs<typename P::Act>& a,
                                               const LinearWorkspace& workspace,
                                               int sms) {
  using Wide = Warpgroups<P, TokenGroups, warpgroup_tuning<1>>;
  using Deep = Warpgroups<P, TokenGroups, warpgroup_tuning<2>>;
  using Largest = Warpgroups<P, kTileTokens / 8, warpgroup_tuning<2>>;
  const bool is_filled = ceil_div(a.n, Wide::kTileOutputs) * 4 >= sms * 3;
  if (is_filled || ceil_div(a.n, Deep::kTileOutputs) > sms)
    return launch_warpgroups<Wide, Wide>(ctx, a, workspace, sms);
  return launch_warpgroups<Deep, Largest>(ctx, a, workspace, sms);
}

}  // namespace detail

/// Bytes of LinearWorkspace::scratch for warpgroup_linear with up to k inputs and any number of tokens.
[[nodiscard]] inline std::int64_t warpgroup_scratch_bytes(int k) {
  constexpr int kMostSlices = 8;
  return arranged_bytes(kTileTokens, k + kMostSlices * 128);
}

/// Whether this program has warpgroup_linear for the device in use: it is built for sm_90a.
template <LinearPolicy P>
[[nodiscard]] bool has_warpgroup_linear() {
  using S = detail::Warpgroups<P, 1, detail::warpgroup_tuning<1>>;
  cudaFuncAttributes kernel{};
  const cudaError_t error = cudaFuncGetAttributes(&kernel, &detail::warpgroup_linear_kernel<S>);
  if (error != cudaSuccess) (void)cudaGetLastError();
  return error == cudaSuccess && kernel.maxThreadsPerBlock >= S::kThreads;
}

/// y = epilogue(norm(x) w^T + bias) for some tokens: one pass over the weights for each 64.
///
/// Weights are rounded to T before they are multiplied, as in wide_linear. Blocks that share out the k of
/// a tile are a cluster and add up through their shared memory, in the order of k: a token's sums
/// are the same bits for any m.
///
/// Shapes:  as BasicLinearArgs; k and x_stride multiples of 8, x, codes and norm_weight 16-byte
///          aligned. With kSiluMul n is a multiple of 16; with norm_weight x_stride is k. Of the
///          workspace the first counter and the scratch are used: warpgroup_scratch_bytes(k).
/// Errors:  cudaErrorInvalidValue when a shape is not one of these. Needs has_warpgroup_linear.
/// Stream:  a kernel on ctx.stream for each 64 tokens. Its blocks wait for each other, one on a
///          multiprocessor: two of these kernels, of two streams or programs, may not run on a device at
///          the same time.
/// Oracle:  linear(Host, ...)
template <LinearPolicy P>
[[nodiscard]] cudaError_t warpgroup_linear(Cuda ctx,
                                           const BasicLinearArgs<typename P::Act>& a,
                                           const LinearWorkspace& workspace) {
  const auto launch_part = [&](const auto& part, int sms) -> cudaError_t {
    const int m = part.linear.m;
    return m <= 8    ? detail::launch_warpgroups_of<P, 1>(ctx, part.linear, workspace, sms)
           : m <= 16 ? detail::launch_warpgroups_of<P, 2>(ctx, part.linear, workspace, sms)
           : m <= 32 ? detail::launch_warpgroups_of<P, 4>(ctx, part.linear, workspace, sms)
                     : detail::launch_warpgroups_of<P, 8>(ctx, part.linear, workspace, sms);
  };
  if (a.norm_weight != nullptr && a.x_stride != a.k) return cudaErrorInvalidValue;
  return detail::for_each_tile_of_tokens(ctx, a, workspace, launch_part);
}

}  // namespace lmd::kernels
