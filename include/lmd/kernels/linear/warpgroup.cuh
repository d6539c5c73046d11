/// \file  Linear layer for a few to some hundred tokens on Cuda, by the products of sm_90a: the
///        weights are read once for up to 64 tokens.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/kernels/linear/arrange_input.cuh>
#include <lmd/kernels/linear/scaled_operands.cuh>
#include <lmd/kernels/linear/tile.cuh>
#include <lmd/kernels/primitive/wgmma.cuh>

namespace lmd::kernels {

namespace detail {

/// Sizes of a block: groups of four warps multiply a tile of 256 outputs by kTokens tokens. Members
/// as Tile's, whose functions take either.
template <LinearPolicy P, int TokenGroups, TileTuning (*Tuning)()>
struct WarpgroupTile {
  using W = typename P::Format;
  using T = typename P::Act;
  using F = quant::FragmentWeights<W>;
  using Operands = ScaledOperands<W, T>;
  static constexpr TileTuning kTuning = Tuning();
  static constexpr int kWarps = kTuning.warps;
  static constexpr int kThreads = kWarps * 32;
  static constexpr int kRowTiles = 1;  ///< of a warp
  static constexpr int kBlockRowTiles = kWarps * kRowTiles;
  static constexpr int kTokenGroups = TokenGroups;
  static constexpr int kTokens = TokenGroups * 8;
  static constexpr int kTileSums = kBlockRowTiles * F::kTileRows * kTokens;
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

  [[nodiscard]] LMD_HD static TileSplit split(int n, int k, int blocks) {
    const int chunks = ceil_div(k, F::kChunkColumns);
    return {.chunks = chunks,
            .units = ceil_div(n, kBlockRowTiles * F::kTileRows) * chunks,
            .blocks = blocks};
  }
};

/// A warp's row tile of every chunk of the block's run, streamed through a ring of copies of its own.
/// A copy is some chunks of one row tile.
template <class S>
struct WarpgroupWeights {
  using F = typename S::F;
  static constexpr int kStages = S::kTuning.weight_stages;

  const std::uint8_t* codes;
  std::uint8_t* ring;
  std::uint32_t barriers;
  int chunks;         ///< of a row tile
  int last_row_tile;  ///< what lies behind it is read as this one, and not stored
  int row_tile;       ///< of the next copy
  struct Place {
    int chunk;  ///< the next one
    int left;   ///< chunks of the run

    /// Chunks that one copy brings.
    [[nodiscard]] __device__ __forceinline__ int of_copy(int all) const {
      return min(S::kStageChunks, min(all - chunk, left));
    }
  };
  Place copied;  ///< before it all is copied, or on its way
  Place read;
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
    const int n = copied.of_copy(chunks);
    if (threadIdx.x % 32 == 0) {
      expect_bytes(barriers + into * 8, n * F::kChunkBytes);
      bulk_copy(shared_address(ring + into * S::kWeightStageBytes),
                codes + (std::int64_t{min(row_tile, last_row_tile)} * chunks + copied.chunk) *
                            F::kChunkBytes,
                n * F::kChunkBytes, barriers + into * 8);
    }
    copied.left -= n;
    copied.chunk += n;
    if (copied.chunk == chunks) {
      copied.chunk = 0;
      row_tile += S::kBlockRowTiles;
    }
  }
  /// Waits for the next chunk.
  [[nodiscard]] const __device__ __forceinline__ std::uint8_t* wait() const {
    if (in_stage == 0) wait_barrier(barriers + stage * 8, parity);
    return ring + stage * S::kWeightStageBytes + in_stage * F::kChunkBytes;
  }
  /// The warp has read it.
  __device__ __forceinline__ void release() {
    const int n = Place{read.chunk - in_stage, read.left + in_stage}.of_copy(chunks);
    --read.left;
    if (++read.chunk == chunks) read.chunk = 0;
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
  int chunks;  ///< of a tile
  int first_chunk;
  int units;

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
  /// Queues the copy for unit i of the run. One thread.
  __device__ __forceinline__ void fetch(int i) const {
    if (i >= units) return;
    const int stage = i % kStages;
    expect_bytes(filled(stage), S::kXStageBytes);
    bulk_copy(ring + stage * S::kXStageBytes,
              x + std::int64_t{(first_chunk + i) % chunks} * S::kXStageBytes, S::kXStageBytes,
              filled(stage));
  }
  /// At unit i: the stage of unit i - 2 has been read by most warps, and is filled again. Warps take
  /// turns. One thread of each calls.
  __device__ __forceinline__ void refill(int i, int warp) const {
    const int done = i - 2;
    if (done < 0 || done % S::kWarps != warp || done + kStages >= units) return;
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
  TileArgs<T> tile;
  const std::uint8_t* x;  ///< arranged
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

  /// acc += the units [i, end) of the run, all of one tile.
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

/// A block multiplies its run of units, as tile_linear_kernel does. Where the architecture lacks these products there
/// is no such kernel: its largest block is one thread, which tells the host.
template <class S>
__global__ void __launch_bounds__(kHasWgmma ? S::kThreads : 1, 1)
    warpgroup_linear_kernel(const __grid_constant__ WarpgroupArgs<typename S::T> args) {
#if !defined(__CUDA_ARCH__) || defined(__CUDA_ARCH_FEAT_SM90_ALL)
  using F = typename S::F;
  extern __shared__ __align__(1024) std::uint8_t unaligned[];
  std::uint8_t* shared =
      unaligned + (S::kAlignment - shared_address(unaligned) % S::kAlignment) % S::kAlignment;
  const BasicLinearArgs<typename S::T>& a = args.tile.linear;
  const int warp = threadIdx.x / 32;
  const int lane = threadIdx.x % 32;
  const TileSplit split = S::split(a.n, a.k, gridDim.x);
  const int first = split.first_of(blockIdx.x);
  const int units = split.first_of(blockIdx.x + 1) - first;
  int tile = first / split.chunks;
  int chunk = first % split.chunks;
  const ArrangedInput<S> input{.x = args.x,
                               .ring = shared_address(shared),
                               .barriers = shared_address(shared + S::kXBarriersAt),
                               .chunks = split.chunks,
                               .first_chunk = chunk,
                               .units = units};
  WarpgroupWeights<S> weights{
      .codes = a.codes,
      .ring = shared + S::kWeightsAt + warp * S::kTuning.weight_stages * S::kWeightStageBytes,
      .barriers =
          shared_address(shared + S::kWeightBarriersAt) + warp * S::kTuning.weight_stages * 8,
      .chunks = split.chunks,
      .last_row_tile = ceil_div(a.n, F::kTileRows) - 1,
      .row_tile = tile * S::kBlockRowTiles + warp,
      .copied = {chunk, units},
      .read = {chunk, units}};
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
  for (int i = 0; i < units; ++tile) {
    const int end = min(units, i + split.chunks - chunk);
    const bool is_whole = end - i == split.chunks;
    float acc[S::kRowTiles][S::kTokenGroups][4] = {};
    products.add(acc[0], i, end);
    if (is_whole) {
      store_tile<S>(a, acc, tile, warp, lane);
    } else {
      keep_part<S>(args.tile, split, acc, tile, warp, lane);
    }
    i = end;
    chunk = 0;
  }
  merge_shared_tiles<S>(args.tile, split);
#endif
}

/// Three stages of 2176 bytes in each of 16 warps: 104 KB of weights in flight.
constexpr TileTuning warpgroup_tuning() {
  return {.warps = 16, .row_tiles = 1, .weight_stages = 3, .x_stages = 5};
}

/// Up to 64 tokens; `arranged` is room for kTokens of them.
template <LinearPolicy P, int TokenGroups, TileTuning (*Tuning)()>
[[nodiscard]] cudaError_t launch_warpgroup(Cuda ctx,
                                           const TileArgs<typename P::Act>& args,
                                           std::uint8_t* arranged,
                                           int n_multiprocessors) {
  using S = WarpgroupTile<P, TokenGroups, Tuning>;
  static_assert(S::kSharedBytes <= 227 * 1024, "a block's rings fit into shared memory");
  static_assert(S::kTileSums <= kMaxTileSums, "the workspace holds two tiles for each block");
  LMD_CUDA_RETURN_IF_ERROR(arrange_input(ctx, args.linear, S::kTokens, arranged));
  // A run of fewer columns costs more in sums to merge than it saves.
  constexpr int kMinRun = 512 / S::F::kChunkColumns;
  const TileSplit one = S::split(args.linear.n, args.linear.k, 1);
  const int grid = std::clamp(one.units / kMinRun, 1, n_multiprocessors);
  return launch(ctx,
                {.grid = static_cast<unsigned>(grid),
                 .block = static_cast<unsigned>(S::kThreads),
                 .shared_bytes = static_cast<std::size_t>(S::kSharedBytes)},
                &warpgroup_linear_kernel<S>,
                WarpgroupArgs<typename P::Act>{.tile = args, .x = arranged});
}

}  // namespace detail

/// Whether this program has warpgroup_linear for the device in use: it is built for sm_90a.
template <LinearPolicy P>
[[nodiscard]] bool has_warpgroup_linear() {
  using S = detail::WarpgroupTile<P, 1, detail::warpgroup_tuning>;
  cudaFuncAttributes kernel{};
  const cudaError_t error = cudaFuncGetAttributes(&kernel, &detail::warpgroup_linear_kernel<S>);
  if (error != cudaSuccess) (void)cudaGetLastError();
  return error == cudaSuccess && kernel.maxThreadsPerBlock >= S::kThreads;
}

/// As tile_linear, with three differences: weights are rounded to T before they are multiplied, as in
/// wide_linear; a norm_weight may be given; the workspace has a scratch of
/// arranged_bytes(min(m, 64) rounded up to a power of two, k). The sums of a token are the same
/// bits for any m. Needs has_warpgroup_linear.
///
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
    return m <= 8    ? detail::launch_warpgroup<P, 1, kTuning>(ctx, part, x, sms)
           : m <= 16 ? detail::launch_warpgroup<P, 2, kTuning>(ctx, part, x, sms)
           : m <= 32 ? detail::launch_warpgroup<P, 4, kTuning>(ctx, part, x, sms)
                     : detail::launch_warpgroup<P, 8, kTuning>(ctx, part, x, sms);
  };
  if (a.norm_weight != nullptr && a.x_stride != a.k) return cudaErrorInvalidValue;
  return detail::for_each_tile_of_tokens(ctx, a, workspace, launch_part);
}

}  // namespace lmd::kernels
