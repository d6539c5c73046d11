/// \file  Linear layer for some hundred tokens on Cuda, by the products of sm_90a: weights are decoded into
///        registers once for a panel of 128 tokens.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/kernels/linear/packed_output.cuh>
#include <lmd/kernels/linear/panel_input.cuh>
#include <lmd/kernels/linear/panel_rings.cuh>
#include <lmd/kernels/linear/warpgroup.cuh>

namespace lmd::kernels {

namespace detail {

/// Decodes a row tile's block of 64 columns, a step of 16 at a time.
template <class S>
struct BlockDecoder {
  using F = typename S::F;
  static constexpr int kGroup = S::W::kGroupSize == 0 ? F::kChunkColumns : S::W::kGroupSize;
  typename S::Operands group;
  typename S::Operands::Decoder codes;
  const std::uint8_t* params;

  __device__ __forceinline__ BlockDecoder(const std::uint8_t* chunk, int block, int lane) {
    codes.load(chunk + block * F::kBlockBytes, lane);
    params = chunk + F::kCodeBytes + block * 64 / kGroup * F::kTileRows * F::kParamBytes;
    group.load(params, lane / 4);
  }
  __device__ __forceinline__ void step(int s, std::uint32_t (&a)[4], int lane) {
    if (s > 0 && s * 16 % kGroup == 0)
      group.load(params + s * 16 / kGroup * F::kTileRows * F::kParamBytes, lane / 4);
    group.step(codes, s, a);
  }
};

/// A warp's sums: of each of its row tiles, 8 tokens after 8 tokens.
template <class S>
using PanelSums = float[S::kWarpTiles][S::kTokenGroups][4];

/// A warp's products. Between those of one row tile, whose registers the tensor cores read, the next weights of
/// the other one are decoded.
template <class S>
struct PanelProducts {
  using Fragments = std::uint32_t[4][4];  ///< of 64 columns

  PanelInput<S>& input;
  PanelWeights<S>& weights;
  int warp;
  int lane;
  int stage = 0;  ///< of x
  std::uint32_t parity = 0;
  int units = 0;  ///< that have been multiplied

  /// acc += a b, and the fragments of `next` are made meanwhile.
  __device__ __forceinline__ void multiply(float (&acc)[S::kTokenGroups][4],
                                           const Fragments& a,
                                           std::uint64_t b,
                                           BlockDecoder<S> next,
                                           Fragments& made) const {
#pragma unroll
    for (int s = 0; s < 4; ++s) {
      wgmma_fence();  // each time: the compiler takes all registers for written
      wgmma<typename S::T>(acc, a[s], b + s * 32 / 16);
      wgmma_commit();
      next.step(s, made[s], lane);
    }
  }

  /// acc += the next piece of work.
  __device__ __forceinline__ void add(PanelSums<S>& acc, int chunks) {
    const std::uint64_t x = wgmma_rows(input.ring + warp / S::kSliceWarps * S::kXBlockBytes);
    Fragments first;
    Fragments second;
    const std::uint8_t* codes = weights.wait();
    BlockDecoder<S> before(codes, 0, lane);
#pragma unroll
    for (int s = 0; s < 4; ++s)
      before.step(s, first[s], lane);
    for (int chunk = 0; chunk < chunks; ++chunk) {
#pragma unroll
      for (int block = 0; block < S::kBlocks; ++block) {
        const std::uint64_t x_stage = x + stage * S::kXStageBytes / 16;
        const BlockDecoder<S> of_second(codes + S::kCopyBytes, block, lane);
        wait_barrier(input.filled(stage), parity);
        wgmma_wait<0>();  // the second row tile's products of the unit before
        if (lane == 0 && (block > 0 || chunk > 0))
          arrive_at(input.read(stage == 0 ? S::kXStages - 1 : stage - 1));
        multiply(acc[0], first, x_stage, of_second, second);
        if (block == S::kBlocks - 1) {
          weights.release();
          // Behind the last chunk there is none to wait for: what is decoded then is not used.
          codes = chunk + 1 < chunks ? weights.wait() : codes;
        }
        const BlockDecoder<S> of_first(codes, (block + 1) % S::kBlocks, lane);
        if (units > 1) input.refill(warp, lane);
        ++units;
        __syncwarp();
        wgmma_wait<0>();  // the first row tile's
        multiply(acc[1], second, x_stage, of_first, first);
        if (++stage == S::kXStages) {
          stage = 0;
          parity ^= 1;
        }
      }
    }
    wgmma_wait<0>();
    if (lane == 0) arrive_at(input.read(stage == 0 ? S::kXStages - 1 : stage - 1));
  }
};

/// This warp's outputs of a piece of work that the block has summed alone.
template <class S, bool IsGated>
__device__ __forceinline__ void store_piece(const BasicLinearArgs<typename S::T>& a,
                                            const PanelSums<S>& acc,
                                            int tile,
                                            int panel,
                                            int warp,
                                            int lane) {
  static_assert(S::kWarpTiles == 2 && S::kTokenGroups % 2 == 0, "sums are stored by pairs");
#pragma unroll
  for (int j = 0; j < S::kTokenGroups; j += 2) {
    float sums[2][2][4];
#pragma unroll
    for (int i = 0; i < 16; ++i)
      sums[i / 8][i / 4 % 2][i % 4] = acc[i / 8][j + i / 4 % 2][i % 4];
    store_pairs<IsGated>(a, sums, tile * S::kRowTiles + warp * S::kWarpTiles,
                         panel * S::kTokens + j * 8, lane);
  }
}

/// Adds up the sums of the slices of the cluster's blocks in the order of k, a part of the outputs by
/// each block. The block has no other piece of work.
template <class S, bool IsGated>
__device__ __forceinline__ void merge_panels(const PanelArgs<typename S::T>& args,
                                             const PanelShare& share,
                                             const PanelSums<S>& acc,
                                             std::uint8_t* shared,
                                             int warp,
                                             int lane) {
  constexpr int kSliceParts = S::kTokenGroups * S::kRowTiles * 32;
  auto* parts = reinterpret_cast<float4*>(shared);  // [slice][8 tokens][row tile][lane]
  float4* mine = parts + warp / S::kSliceWarps * kSliceParts +
                 warp % S::kSliceWarps * S::kWarpTiles * 32 + lane;
  __syncthreads();  // the rings are not read any more
#pragma unroll
  for (int i = 0; i < S::kWarpTiles; ++i)
#pragma unroll
    for (int j = 0; j < S::kTokenGroups; ++j)
      mine[(j * S::kRowTiles + i) * 32] = {acc[i][j][0], acc[i][j][1], acc[i][j][2], acc[i][j][3]};
  cluster_sync();
  constexpr int kPairs = S::kRowTiles / 2;
  constexpr int kItems = kPairs * (S::kTokenGroups / 2);  // of two row tiles and 16 tokens
  const int last = kItems * (share.rank + 1) / args.cluster;
#pragma unroll 1
  for (int item = kItems * share.rank / args.cluster + warp; item < last; item += S::kWarps) {
    const int pair = item % kPairs;
    const int groups = item / kPairs * 2;
    const int tokens = share.panel(0) * S::kTokens + groups * 8;
    if (tokens >= args.linear.m) continue;
    float sums[2][2][4] = {};
#pragma unroll 2
    for (int block = 0; block < args.cluster; ++block) {
      const float4* from = in_block(parts, block) + (groups * S::kRowTiles + pair * 2) * 32 + lane;
#pragma unroll
      for (int slice = 0; slice < S::kSlices; ++slice) {
#pragma unroll
        for (int e = 0; e < 4; ++e) {  // row tile and tokens
          const float4 one = from[slice * kSliceParts + (e % 2 * S::kRowTiles + e / 2) * 32];
          sums[e / 2][e % 2][0] += one.x;
          sums[e / 2][e % 2][1] += one.y;
          sums[e / 2][e % 2][2] += one.z;
          sums[e / 2][e % 2][3] += one.w;
        }
      }
    }
    store_pairs<IsGated>(args.linear, sums, share.tile(0) * S::kRowTiles + pair * 2, tokens, lane);
  }
}

template <class S, bool IsGated>
__global__ void __launch_bounds__(kHasWgmma ? S::kThreads : 1, 1)
    panel_linear_kernel(const __grid_constant__ PanelArgs<typename S::T> args) {
#if !defined(__CUDA_ARCH__) || defined(__CUDA_ARCH_FEAT_SM90_ALL)
  using F = typename S::F;
  extern __shared__ __align__(1024) std::uint8_t unaligned[];
  std::uint8_t* shared =
      unaligned + (S::kAlignment - shared_address(unaligned) % S::kAlignment) % S::kAlignment;
  const BasicLinearArgs<typename S::T>& a = args.linear;
  // From lane 0, so that the compiler keeps what follows from it in uniform registers.
  const int warp = __shfl_sync(0xffffffffu, static_cast<int>(threadIdx.x) / 32, 0);
  const int lane = threadIdx.x % 32;
  const PanelShare share(ceil_div(a.n, S::kTileOutputs), ceil_div(a.k, F::kChunkColumns),
                         ceil_div(a.m, S::kTokens), args.cluster, S::kSlices);
  const int of_piece = share.chunks * S::kBlocks;
  PanelInput<S> input{.x = args.x,
                      .panel_bytes = arranged_bytes(S::kTokens, args.columns),
                      .ring = shared_address(shared),
                      .barriers = shared_address(shared + S::kXBarriersAt),
                      .share = share,
                      .of_piece = of_piece,
                      .units = share.n_pieces * of_piece};
  PanelWeights<S> weights{
      .codes = a.codes,
      .ring = shared + S::kWeightsAt + warp * S::kWeightStages * S::kWeightStageBytes,
      .barriers = shared_address(shared + S::kWeightBarriersAt) + warp * S::kWeightStages * 8,
      .share = share,
      .last_row_tile = ceil_div(a.n, F::kTileRows) - 1,
      .in_tile = warp % S::kSliceWarps * S::kWarpTiles,
      .slice = warp / S::kSliceWarps};
  weights.start();
  if (threadIdx.x == 0) input.init();
  __syncthreads();  // barriers are there
  wait_for_previous_kernel();
  allow_next_kernel();
  arrange_panels<S>(args);
  input.start(threadIdx.x == 0);

  PanelProducts<S> products{.input = input, .weights = weights, .warp = warp, .lane = lane};
  for (int i = 0; i < share.n_pieces; ++i) {
    PanelSums<S> acc = {};
    products.add(acc, share.chunks);
    if (S::kSlices == 1 && args.cluster == 1) {
      store_piece<S, IsGated>(a, acc, share.tile(i), share.panel(i), warp, lane);
    } else {
      merge_panels<S, IsGated>(args, share, acc, shared, warp, lane);
    }
  }
  if (args.cluster > 1) cluster_sync();  // others may still read this block's sums
#endif
}

/// Queues the kernel for clusters of `cluster` blocks. Where k is shared out, in a cluster or in a block, each block
/// has one piece of work: nothing is launched where those are more than run at once.
template <class S>
[[nodiscard]] cudaError_t launch_panels(Cuda ctx,
                                        const BasicLinearArgs<typename S::T>& a,
                                        const LinearWorkspace& workspace,
                                        int cluster,
                                        bool* is_launched) {
  const int panels = ceil_div(a.m, S::kTokens);
  const int pieces = ceil_div(a.n, S::kTileOutputs) * panels;
  const int columns =
      round_up(ceil_div(a.k, S::F::kChunkColumns), cluster * S::kSlices) * S::F::kChunkColumns;
  *is_launched = false;
  if (workspace.scratch_bytes < arranged_bytes(S::kTokens, columns) * panels) return cudaSuccess;
  const auto kernel = a.epilogue == LinearEpilogue::kSiluMul ? &panel_linear_kernel<S, true>
                                                             : &panel_linear_kernel<S, false>;
  LaunchShape shape{.grid = static_cast<unsigned>(cluster),
                    .block = static_cast<unsigned>(S::kThreads),
                    .shared_bytes = static_cast<std::size_t>(S::kSharedBytes),
                    .cluster = cluster};
  int n = 0;
  LMD_CUDA_RETURN_IF_ERROR(max_clusters(ctx, shape, kernel, &n));
  if (n == 0 || (S::kSlices * cluster > 1 && pieces > n)) return cudaSuccess;
  shape.grid = static_cast<unsigned>(std::min(pieces, n) * cluster);
  *is_launched = true;
  return launch(ctx, shape, kernel,
                PanelArgs<typename S::T>{.linear = a,
                                         .x = workspace.scratch,
                                         .columns = columns,
                                         .counter = workspace.counters,
                                         .cluster = cluster});
}

}  // namespace detail

/// Tokens up to which `linear` takes panels.
inline constexpr int kPanelLinearTokens = 384;

/// Bytes of LinearWorkspace::scratch for panel_linear with up to m tokens and k inputs.
[[nodiscard]] inline std::int64_t panel_scratch_bytes(int m, int k) {
  constexpr int kMostSlices = 8;
  constexpr int kTokens = 128;
  return arranged_bytes(round_up(m, kTokens), k + kMostSlices * 128);
}

/// y = epilogue(norm(x) w^T + bias) for some hundred tokens: one pass over the weights for each 128. Nothing is
/// launched where rows of y are not whole 16-byte units, for y_f32, kBest, or too little scratch.
///
/// Weights are rounded to T before they are multiplied, as in wide_linear. Blocks take tiles of 256 outputs
/// where those fill the device; else of 128, and share out k, as many as run at once.
///
/// Shapes:  as BasicLinearArgs; k and x_stride multiples of 8, x, codes and norm_weight 16-byte
///          aligned; with norm_weight x_stride is k. Of the workspace the first counter and the scratch are
///          used: panel_scratch_bytes(m, k).
/// Errors:  cudaErrorInvalidValue when a shape is not one of these. Needs has_warpgroup_linear.
/// Stream:  a kernel on ctx.stream, as warpgroup_linear's: one of them on a device at a time.
/// Oracle:  linear(Host, ...)
template <LinearPolicy P>
[[nodiscard]] cudaError_t try_panel_linear(Cuda ctx,
                                           const BasicLinearArgs<typename P::Act>& a,
                                           const LinearWorkspace& workspace,
                                           bool* is_launched) {
  using Wide = detail::Panels<P, 16, 1>;
  using Deep = detail::Panels<P, 16, 2>;
  *is_launched = false;
  if (a.m < 0 || a.n <= 0 || a.k <= 0 || a.k % 8 != 0 || a.x_stride % 8 != 0 ||
      reinterpret_cast<std::uintptr_t>(a.x) % 16 != 0 ||
      (a.norm_weight != nullptr && a.x_stride != a.k))
    return cudaErrorInvalidValue;
  if (a.m == 0 || !detail::has_packed_rows(a)) return cudaSuccess;
  int sms = 0;
  LMD_CUDA_RETURN_IF_ERROR(multiprocessors(ctx, &sms));
  const int pieces = ceil_div(a.n, Wide::kTileOutputs) * ceil_div(a.m, Wide::kTokens);
  if (pieces * 4 < sms * 3) {
    constexpr int kMostBlocks = 4;
    constexpr int kFewestChunks = 2;
    const int chunks = ceil_div(a.k, Deep::F::kChunkColumns);
    for (int cluster = kMostBlocks; cluster >= 1; --cluster) {
      if (cluster > 1 && chunks < kFewestChunks * cluster * Deep::kSlices) continue;
      LMD_CUDA_RETURN_IF_ERROR(
          detail::launch_panels<Deep>(ctx, a, workspace, cluster, is_launched));
      if (*is_launched) return cudaSuccess;
    }
  }
  return detail::launch_panels<Wide>(ctx, a, workspace, 1, is_launched);
}

}  // namespace lmd::kernels
