/// \file  Linear layer for a few to some hundred tokens on Cuda, by the products of sm_90a: the
///        weights are read once for up to 64 tokens.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/kernels/linear/arrange_input.cuh>
#include <lmd/kernels/linear/scaled_operands.cuh>
#include <lmd/kernels/linear/tile.cuh>
#include <lmd/kernels/primitive/cluster.cuh>
#include <lmd/kernels/primitive/wgmma.cuh>

namespace lmd::kernels {

namespace detail {

/// Speed only: no tuning changes more than the order of additions.
struct WarpgroupTuning {
  int warps = 16;         ///< of a block: each 16 outputs
  int weight_stages = 3;  ///< copies in flight for each warp
  int x_stages = 5;       ///< copies in flight for the block, a chunk of all tokens each
};

/// Sizes of a block: groups of four warps multiply a tile of outputs by kTokens tokens.
template <LinearPolicy P, int TokenGroups, WarpgroupTuning (*Tuning)()>
struct Warpgroups {
  using W = typename P::Format;
  using T = typename P::Act;
  using F = quant::FragmentWeights<W>;
  using Operands = ScaledOperands<W, T>;
  static constexpr WarpgroupTuning kTuning = Tuning();
  static constexpr int kWarps = kTuning.warps;
  static constexpr int kThreads = kWarps * 32;
  static constexpr int kTileOutputs = kWarps * F::kTileRows;
  static constexpr int kTokenGroups = TokenGroups;  ///< of 8
  static constexpr int kTokens = TokenGroups * 8;
  static constexpr int kBlocks = F::kChunkColumns / 64;  ///< of 64 columns in a chunk
  static constexpr int kSteps = F::kChunkColumns / 16;
  static_assert(kWarps % 4 == 0, "four warps multiply together");

  static constexpr int kXBlockBytes = kTokens * 128;
  static constexpr int kXStageBytes = kBlocks * kXBlockBytes;
  /// Chunks of a copy: smaller ones than 2 KB keep the copy engine from the memory's rate.
  static constexpr int kStageChunks = F::kChunkBytes < 2048 ? 2 : 1;
  static constexpr int kWeightStageBytes = kStageChunks * F::kChunkBytes;
  static constexpr int kWeightsAt = kTuning.x_stages * kXStageBytes;
  static constexpr int kWeightBarriersAt =
      kWeightsAt + kWarps * kTuning.weight_stages * kWeightStageBytes;
  static constexpr int kXBarriersAt = kWeightBarriersAt + kWarps * kTuning.weight_stages * 8;
  static constexpr int kAlignment = 1024;  ///< of what wgmma reads
  static constexpr int kSharedBytes = kXBarriersAt + 2 * kTuning.x_stages * 8 + kAlignment;
  static_assert(kXStageBytes % kAlignment == 0 && kWeightsAt % 16 == 0, "stages stay aligned");
  static_assert(kTileOutputs * kTokens * 4 <= kWeightBarriersAt, "sums take the rings' place");
};

/// What a block multiplies: some tiles, one after another, over a range of k that the blocks of its
/// cluster share out. A unit is a chunk of a tile.
struct WarpgroupShare {
  int all_chunks;   ///< of a row tile
  int first_chunk;  ///< of the block's range
  int chunks;       ///< in the range
  int first_tile;
  int tile_step;
  int units;

  __device__ __forceinline__ WarpgroupShare(int n_tiles, int n_chunks, int cluster) {
    const int rank = static_cast<int>(blockIdx.x) % cluster;
    all_chunks = n_chunks;
    first_chunk = n_chunks * rank / cluster;
    chunks = n_chunks * (rank + 1) / cluster - first_chunk;
    first_tile = static_cast<int>(blockIdx.x) / cluster;
    tile_step = static_cast<int>(gridDim.x) / cluster;
    units = ceil_div(n_tiles - first_tile, tile_step) * chunks;
  }
};

/// A warp's row tile of each of the block's tiles, streamed through a ring of copies of its own. A copy
/// is some chunks.
template <class S>
struct WarpgroupWeights {
  using F = typename S::F;
  static constexpr int kStages = S::kTuning.weight_stages;

  const std::uint8_t* codes;
  std::uint8_t* ring;
  std::uint32_t barriers;
  const WarpgroupShare& share;
  int last_row_tile;  ///< what lies behind it is read as this one, and not stored
  int row_tile;       ///< of the next copy
  struct Place {
    int chunk;  ///< the next one of the range
    int left;   ///< units

    /// Chunks that one copy brings.
    [[nodiscard]] __device__ __forceinline__ int of_copy(int all) const {
      return min(S::kStageChunks, min(all - chunk, left));
    }
  };
  Place copied{0, share.units};  ///< before it all is copied, or on its way
  Place read{0, share.units};
  int in_stage = 0;  ///< chunks of the stage that have been read
  int stage = 0;
  std::uint32_t parity = 0;

  __device__ __forceinline__ void start() {
    if (threadIdx.x % 32 == 0) {
      for (int i = 0; i < kStages; ++i)
        init_barrier(barriers + i * 8, 1);
      publish_barriers();
    }
    for (int i = 0; i < kStages; ++i)
      fetch(i);
  }
  __device__ __forceinline__ void fetch(int into) {
    if (copied.left == 0) return;
    const int n = copied.of_copy(share.chunks);
    if (threadIdx.x % 32 == 0) {
      expect_bytes(barriers + into * 8, n * F::kChunkBytes);
      bulk_copy(shared_address(ring + into * S::kWeightStageBytes),
                codes + (std::int64_t{min(row_tile, last_row_tile)} * share.all_chunks +
                         share.first_chunk + copied.chunk) *
                            F::kChunkBytes,
                n * F::kChunkBytes, barriers + into * 8);
    }
    copied.left -= n;
    copied.chunk += n;
    if (copied.chunk == share.chunks) {
      copied.chunk = 0;
      row_tile += share.tile_step * S::kWarps;
    }
  }
  /// Waits for the next chunk.
  [[nodiscard]] const __device__ __forceinline__ std::uint8_t* wait() const {
    if (in_stage == 0) wait_barrier(barriers + stage * 8, parity);
    return ring + stage * S::kWeightStageBytes + in_stage * F::kChunkBytes;
  }
  /// The warp has read it.
  __device__ __forceinline__ void release() {
    const int n = Place{read.chunk - in_stage, read.left + in_stage}.of_copy(share.chunks);
    --read.left;
    if (++read.chunk == share.chunks) read.chunk = 0;
    if (++in_stage < n) return;
    in_stage = 0;
    __syncwarp();
    fetch(stage);
    if (++stage == kStages) {
      stage = 0;
      parity ^= 1;
    }
  }
};

/// The block's ring of stages of arranged x, each all tokens of one chunk: one copy. A second barrier
/// of each stage tells that all warps' products have read it.
template <class S>
struct ArrangedInput {
  static constexpr int kStages = S::kTuning.x_stages;
  const std::uint8_t* x;  ///< arranged
  std::uint32_t ring;
  std::uint32_t barriers;
  const WarpgroupShare& share;

  __device__ __forceinline__ void init() const {
    for (int i = 0; i < kStages; ++i) {
      init_barrier(barriers + i * 8, 1);
      init_barrier(barriers + (kStages + i) * 8, S::kWarps);
    }
    publish_barriers();
  }
  [[nodiscard]] __device__ __forceinline__ std::uint32_t filled(int stage) const {
    return barriers + stage * 8;
  }
  /// Of unit i's stage.
  [[nodiscard]] __device__ __forceinline__ std::uint32_t read(int i) const {
    return barriers + (kStages + i % kStages) * 8;
  }
  /// Queues the copy for unit i. One thread.
  __device__ __forceinline__ void fetch(int i) const {
    if (i >= share.units) return;
    const int stage = i % kStages;
    expect_bytes(filled(stage), S::kXStageBytes);
    bulk_copy(ring + stage * S::kXStageBytes,
              x + std::int64_t{share.first_chunk + i % share.chunks} * S::kXStageBytes,
              S::kXStageBytes, filled(stage));
  }
  /// At unit i: the stage of unit i - 2 has been read by most warps, and is filled again. Warps take
  /// turns. One thread of each calls.
  __device__ __forceinline__ void refill(int i, int warp) const {
    const int done = i - 2;
    if (done < 0 || done % S::kWarps != warp || done + kStages >= share.units) return;
    wait_barrier(read(done), done / kStages % 2);
    fetch(done + kStages);
  }
};

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

#if !defined(__CUDA_ARCH__) || defined(__CUDA_ARCH_FEAT_SM90_ALL)
inline constexpr bool kHasWgmma = true;
#else
inline constexpr bool kHasWgmma = false;
#endif

template <Activation T>
struct WarpgroupArgs {
  BasicLinearArgs<T> linear;
  const std::uint8_t* x;  ///< arranged
  int cluster;            ///< blocks that share out k
};

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
    const std::uint64_t x = wgmma_rows(input.ring);
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

/// Adds up the sums of the cluster's blocks in the order of k, a part of the outputs by each block.
template <class S>
__device__ __forceinline__ void merge_in_cluster(const WarpgroupArgs<typename S::T>& args,
                                                 const float (&acc)[S::kTokenGroups][4],
                                                 std::uint8_t* shared,
                                                 int tile,
                                                 int warp,
                                                 int lane) {
  auto* parts = reinterpret_cast<float4*>(shared);  // [tokens][warp][lane]
  __syncthreads();                                  // the rings are not read any more
#pragma unroll
  for (int j = 0; j < S::kTokenGroups; ++j)
    parts[(j * S::kWarps + warp) * 32 + lane] = {acc[j][0], acc[j][1], acc[j][2], acc[j][3]};
  cluster_sync();
  constexpr int kItems = S::kWarps * S::kTokenGroups;
  const int rank = static_cast<int>(blockIdx.x) % args.cluster;
  const int last = kItems * (rank + 1) / args.cluster;
  for (int item = kItems * rank / args.cluster + warp; item < last; item += S::kWarps) {
    if (item / S::kWarps * 8 >= args.linear.m) continue;
    float sums[4] = {};
#pragma unroll 8
    for (int block = 0; block < args.cluster; ++block) {
      const float4 part = in_block(parts, block)[item * 32 + lane];
      sums[0] += part.x;
      sums[1] += part.y;
      sums[2] += part.z;
      sums[3] += part.w;
    }
    store_sums(args.linear, sums, tile * S::kWarps + item % S::kWarps, item / S::kWarps * 8, lane);
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
  const int warp = threadIdx.x / 32;
  const int lane = threadIdx.x % 32;
  const WarpgroupShare share(ceil_div(a.n, S::kTileOutputs), ceil_div(a.k, F::kChunkColumns),
                             args.cluster);
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
      .row_tile = share.first_tile * S::kWarps + warp};
  weights.start();
  if (threadIdx.x == 0) input.init();
  __syncthreads();
  wait_for_previous_kernel();
  allow_next_kernel();
  if (threadIdx.x == 0) {
    for (int i = 0; i < ArrangedInput<S>::kStages; ++i)
      input.fetch(i);
  }

  WarpgroupProducts<S> products{.input = input, .weights = weights, .warp = warp, .lane = lane};
  int tile = share.first_tile;
  for (int i = 0; i < share.units; i += share.chunks) {
    float acc[S::kTokenGroups][4] = {};
    products.add(acc, i, i + share.chunks);
    if (args.cluster == 1) {
      store_outputs<S>(a, acc, tile * S::kWarps + warp, lane);
    } else {
      merge_in_cluster<S>(args, acc, shared, tile, warp, lane);
    }
    tile += share.tile_step;
  }
#endif
}

/// Three stages of 2176 bytes in each of 16 warps: 104 KB of weights in flight.
constexpr WarpgroupTuning warpgroup_tuning() {
  return {};
}

/// Up to 64 tokens; `arranged` is room for kTokens of them. A tile takes a block, or as many blocks of
/// a cluster as the device has room for.
template <LinearPolicy P, int TokenGroups, WarpgroupTuning (*Tuning)()>
[[nodiscard]] cudaError_t launch_warpgroups(Cuda ctx,
                                            const BasicLinearArgs<typename P::Act>& a,
                                            std::uint8_t* arranged,
                                            int n_multiprocessors) {
  using S = Warpgroups<P, TokenGroups, Tuning>;
  static_assert(S::kSharedBytes <= 227 * 1024, "a block's rings fit into shared memory");
  constexpr int kMostBlocks = 8;  // of a cluster, on any device
  constexpr int kFewestChunks = 2;
  LMD_CUDA_RETURN_IF_ERROR(arrange_input(ctx, a, S::kTokens, arranged));
  const int tiles = ceil_div(a.n, S::kTileOutputs);
  const int chunks = ceil_div(a.k, S::F::kChunkColumns);
  int cluster = kMostBlocks;
  while (cluster > 1 && (tiles * cluster > n_multiprocessors || chunks < kFewestChunks * cluster)) {
    cluster /= 2;
  }
  const int grid = cluster > 1 ? tiles * cluster : std::min(tiles, n_multiprocessors);
  return launch(ctx,
                {.grid = static_cast<unsigned>(grid),
                 .block = static_cast<unsigned>(S::kThreads),
                 .shared_bytes = static_cast<std::size_t>(S::kSharedBytes),
                 .cluster = cluster},
                &warpgroup_linear_kernel<S>,
                WarpgroupArgs<typename P::Act>{.linear = a, .x = arranged, .cluster = cluster});
}

}  // namespace detail

/// Whether this program has warpgroup_linear for the device in use: it is built for sm_90a.
template <LinearPolicy P>
[[nodiscard]] bool has_warpgroup_linear() {
  using S = detail::Warpgroups<P, 1, detail::warpgroup_tuning>;
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
///          workspace only the scratch is used: arranged_bytes(min(m rounded up to a power of two
///          from 8 on, 64), k).
/// Errors:  cudaErrorInvalidValue when a shape is not one of these. Needs has_warpgroup_linear.
/// Stream:  two kernels on ctx.stream for each 64 tokens.
/// Oracle:  linear(Host, ...)
template <LinearPolicy P>
[[nodiscard]] cudaError_t warpgroup_linear(Cuda ctx,
                                           const BasicLinearArgs<typename P::Act>& a,
                                           const LinearWorkspace& workspace) {
  const auto launch_part = [&](const auto& part, int sms) -> cudaError_t {
    constexpr auto kTuning = detail::warpgroup_tuning;
    const int m = part.linear.m;
    std::uint8_t* x = workspace.scratch;
    const int tokens = m <= 8 ? 8 : m <= 16 ? 16 : m <= 32 ? 32 : 64;
    if (workspace.scratch_bytes < arranged_bytes(tokens, a.k)) return cudaErrorInvalidValue;
    return m <= 8    ? detail::launch_warpgroups<P, 1, kTuning>(ctx, part.linear, x, sms)
           : m <= 16 ? detail::launch_warpgroups<P, 2, kTuning>(ctx, part.linear, x, sms)
           : m <= 32 ? detail::launch_warpgroups<P, 4, kTuning>(ctx, part.linear, x, sms)
                     : detail::launch_warpgroups<P, 8, kTuning>(ctx, part.linear, x, sms);
  };
  if (a.norm_weight != nullptr && a.x_stride != a.k) return cudaErrorInvalidValue;
  return detail::for_each_tile_of_tokens(ctx, a, workspace, launch_part);
}

}  // namespace lmd::kernels
