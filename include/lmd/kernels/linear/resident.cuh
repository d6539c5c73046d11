/// \file  Linear layer for up to 16 tokens on Cuda: clusters share out k, so that each block has room for its part of
///        x while all weights pass.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/core/launch.cuh>
#include <lmd/core/math.hpp>
#include <lmd/kernels/linear/resident_input.cuh>
#include <lmd/kernels/linear/resident_rings.cuh>
#include <lmd/kernels/linear/skinny.cuh>
#include <lmd/kernels/linear/tile_merge.cuh>
#include <lmd/kernels/primitive/cluster.cuh>
#include <lmd/kernels/primitive/mma.cuh>

namespace lmd::kernels {

namespace detail {

template <Activation T>
struct ResidentArgs {
  BasicLinearArgs<T> linear;
  int cluster;  ///< blocks that share out k; a power of two
  int stages;   ///< of a warp's ring
};

/// Sums of passes on their way through the cluster: each block adds up its share of a pass's row tiles, in the order
/// of k. A pass is finished while the next one's products are under way.
template <class S, bool HasNorm>
struct ResidentSums {
  const ResidentArgs<typename S::T>& args;
  const ResidentShare& share;
  float4* parts;         ///< [2 passes][own row tile][block][8 tokens][lane]
  const float* squares;  ///< [block, kTokens]
  int warp;
  int lane;

  static constexpr int kPassParts = S::kPartsBytes / 16;

  /// This warp's sums -> the block that its row tile belongs to.
  __device__ __forceinline__ void send(const float (&acc)[S::kTokenGroups][4], int pass) const {
    const int own = warp / args.cluster;
    float4* to = in_block(parts, warp % args.cluster) + pass % 2 * kPassParts +
                 (own * args.cluster + share.rank) * S::kTokenGroups * 32 + lane;
#pragma unroll
    for (int j = 0; j < S::kTokenGroups; ++j)
      to[j * 32] = {acc[j][0], acc[j][1], acc[j][2], acc[j][3]};
  }

  /// Row tile of item `item` of a pass, which is 16 outputs of 8 tokens.
  [[nodiscard]] __device__ __forceinline__ int row_tile(int pass, int item) const {
    return share.first_tile + pass * S::kWarps + item / S::kTokenGroups * args.cluster + share.rank;
  }
  [[nodiscard]] __device__ __forceinline__ int items() const {
    return S::kWarps / args.cluster * S::kTokenGroups;
  }

  /// 1 / rms of a token's x.
  [[nodiscard]] __device__ __forceinline__ float norm_factor(int token) const {
    float sum = 0.0f;
#pragma unroll 1
    for (int block = 0; block < args.cluster; ++block)
      sum += squares[block * S::kTokens + token];
    return rsqrtf(sum / args.linear.k + args.linear.norm_eps);
  }

  /// Adds up and stores what has been sent.
  __device__ __forceinline__ void finish(int pass) const {
    const BasicLinearArgs<typename S::T>& a = args.linear;
#pragma unroll 1
    for (int item = warp; item < items(); item += S::kWarps) {
      const int own = item / S::kTokenGroups;
      const int tokens = item % S::kTokenGroups * 8;
      if (row_tile(pass, item) >= share.last_tile || tokens >= a.m) continue;
      const float4* from = parts + pass % 2 * kPassParts +
                           (own * args.cluster * S::kTokenGroups + item % S::kTokenGroups) * 32 +
                           lane;
      float sums[4] = {};
#pragma unroll 2
      for (int block = 0; block < args.cluster; ++block) {
        const float4 part = from[block * S::kTokenGroups * 32];
        sums[0] += part.x;
        sums[1] += part.y;
        sums[2] += part.z;
        sums[3] += part.w;
      }
      if constexpr (HasNorm) {
        const int token = tokens + lane % 4 * 2;
        const float factors[2] = {norm_factor(token), norm_factor(token + 1)};
#pragma unroll
        for (int i = 0; i < 4; ++i)
          sums[i] *= factors[i % 2];
      }
      store_sums(a, sums, row_tile(pass, item), tokens, lane);
    }
  }
};

/// acc += a chunk of the warp's row tile times x.
template <class S>
__device__ __forceinline__ void add_chunk(float (&acc)[S::kTokenGroups][4],
                                          const std::uint8_t* chunk,
                                          const std::uint8_t* x,
                                          int row_bytes,
                                          const float* x_sums,
                                          int lane) {
  using F = typename S::F;
  float c[S::kGroups * S::kChains][S::kTokenGroups][4] = {};
#pragma unroll
  for (int block = 0; block < S::kBlocks; ++block) {
    typename S::Decoder codes;
    codes.load(chunk + block * F::kBlockBytes, lane);
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int column = block * 64 + half * 32;
      std::uint32_t operands[2][4];
      codes.step(half * 2, operands[0]);
      codes.step(half * 2 + 1, operands[1]);
#pragma unroll
      for (int j = 0; j < S::kTokenGroups; ++j) {
        const uint4 b = *reinterpret_cast<const uint4*>(x + j * 8 * row_bytes + column * 2);
        float(&sums)[4] = c[column / S::kChainColumns][j];
        mma_16x8x16<typename S::T>(sums, operands[0], b.x, b.y);
        mma_16x8x16<typename S::T>(sums, operands[1], b.z, b.w);
      }
    }
  }
#pragma unroll
  for (int group = 0; group < S::kGroups; ++group) {
#pragma unroll
    for (int j = 0; j < S::kTokenGroups; ++j) {
      float(&sums)[4] = c[group * S::kChains][j];
#pragma unroll
      for (int chain = 1; chain < S::kChains; ++chain)
#pragma unroll
        for (int i = 0; i < 4; ++i)
          sums[i] += c[group * S::kChains + chain][j][i];
      const auto of_x =
          *reinterpret_cast<const float2*>(x_sums + group * S::kTokens + j * 8 + lane % 4 * 2);
      const float x_sum[2] = {of_x.x, of_x.y};
      add_group<S>(acc[j], sums, chunk + F::kCodeBytes + group * F::kTileRows * F::kParamBytes,
                   lane / 4, x_sum);
    }
  }
}

/// acc += the warp's row tile times the block's chunks of k.
template <class S>
__device__ __forceinline__ void add_pass(float (&acc)[S::kTokenGroups][4],
                                         ResidentWeights<S>& weights,
                                         const HeldInput& held,
                                         int chunks,
                                         int lane) {
  const std::uint8_t* x = held.x + lane / 4 * held.row_bytes + lane % 4 * 16;
  const float* x_sums = held.sums;
  const auto add = [&](const std::uint8_t* chunk) {
    add_chunk<S>(acc, chunk, x, held.row_bytes, x_sums, lane);
    x += S::F::kChunkColumns * 2;
    x_sums += S::kGroups * S::kTokens;
  };
#pragma unroll 1
  for (int left = chunks; left > 0; left -= S::kStageChunks) {
    const std::uint8_t* codes = weights.wait();
    // Without a branch between them chunks' instructions mix. With two groups of tokens that takes more registers
    // and more time: 2026-11-28 H200, w1w3 of a 7B model, 16 tokens, 32.3 us and 28.0.
    if (S::kTokenGroups == 1 && left >= S::kStageChunks) {
#pragma unroll
      for (int u = 0; u < S::kStageChunks; ++u)
        add(codes + u * S::F::kChunkBytes);
    } else {
#pragma unroll
      for (int u = 0; u < S::kStageChunks; ++u) {
        if (u > 0 && u >= left) break;
        add(codes + u * S::F::kChunkBytes);
      }
    }
    weights.release();
  }
}

template <class S, bool HasNorm>
__global__ void __launch_bounds__(S::kThreads, S::kBlocksPerSm)
    resident_linear_kernel(const __grid_constant__ ResidentArgs<typename S::T> args) {
  using F = typename S::F;
  extern __shared__ __align__(128) std::uint8_t shared[];
  const BasicLinearArgs<typename S::T>& a = args.linear;
  const int warp = threadIdx.x / 32;
  const int lane = threadIdx.x % 32;
  const int n_chunks = ceil_div(a.k, F::kChunkColumns);
  const ResidentShare share(ceil_div(a.n, F::kTileRows), n_chunks, args.cluster);
  const int most_chunks = ceil_div(n_chunks, args.cluster);
  const ResidentShared<S> at(most_chunks, args.stages);
  ResidentWeights<S> weights{
      .codes = a.codes,
      .ring = shared + warp * args.stages * S::kStageBytes,
      .barriers = shared_address(shared + at.barriers) + warp * args.stages * 8,
      .share = share,
      .stages = args.stages,
      .next_tile = share.first_tile + warp,
      .next_chunk = share.first_chunk,
      .tile = share.first_tile + warp};
  weights.start();
  cluster_arrive_relaxed();
  const int first_column = share.first_chunk * F::kChunkColumns;
  const int columns = share.n_chunks() * F::kChunkColumns;
  if constexpr (HasNorm) prefetch_gains(a, first_column, columns);
  wait_for_previous_kernel();
  allow_next_kernel();

  auto* squares = reinterpret_cast<float*>(shared + at.squares);
  const HeldInput held{.x = shared + at.x,
                       .row_bytes = S::row_bytes(most_chunks * F::kChunkColumns),
                       .sums = reinterpret_cast<float*>(shared + at.x_sums),
                       .scales = reinterpret_cast<float*>(shared + at.scales),
                       .squares = squares + share.rank * S::kTokens};
  hold_input<S, HasNorm>(a, held, first_column, columns);
  __syncthreads();
  cluster_wait();  // all blocks have begun
  if (HasNorm && static_cast<int>(threadIdx.x) < args.cluster * S::kTokens) {
    float* mine = held.squares + threadIdx.x % S::kTokens;
    *in_block(mine, static_cast<int>(threadIdx.x) / S::kTokens) = *mine;
  }
  const ResidentSums<S, HasNorm> sums{.args = args,
                                      .share = share,
                                      .parts = reinterpret_cast<float4*>(shared + at.parts),
                                      .squares = squares,
                                      .warp = warp,
                                      .lane = lane};
  const int passes = ceil_div(share.last_tile - share.first_tile, S::kWarps);
#pragma unroll 1
  for (int pass = 0; pass <= passes; ++pass) {
    float acc[S::kTokenGroups][4] = {};
    if (pass < passes) {
      if (weights.has_tile()) add_pass<S>(acc, weights, held, share.n_chunks(), lane);
      weights.next_pass();
      if constexpr (HasNorm) {
#pragma unroll
        for (int j = 0; j < S::kTokenGroups; ++j)
#pragma unroll
          for (int i = 0; i < 4; ++i)
            acc[j][i] *= held.scales[j * 8 + lane % 4 * 2 + i % 2];
      }
    }
    if (pass > 0) {
      cluster_wait();
      sums.finish(pass - 1);
    }
    if (pass < passes) {
      sums.send(acc, pass);
      cluster_arrive();
    }
  }
}

/// Queues the kernel for clusters of `cluster` blocks, where their shares of x and of k are not too long, with
/// blocks_per_sm (1 or 2) on a multiprocessor.
template <class S>
[[nodiscard]] cudaError_t launch_resident(Cuda ctx,
                                          const BasicLinearArgs<typename S::T>& a,
                                          int cluster,
                                          int blocks_per_sm,
                                          bool* is_launched) {
  constexpr int kMostStages = 3;
  constexpr int kFewestStages = 2;
  constexpr int kReserved = 1024;  // bytes of shared memory, of each block
  *is_launched = false;
  const int chunks = ceil_div(ceil_div(a.k, S::F::kChunkColumns), cluster);
  if (a.norm_weight != nullptr && chunks * S::F::kChunkColumns > S::kHeldColumns)
    return cudaSuccess;
  const auto kernel = a.norm_weight != nullptr ? &resident_linear_kernel<S, true>
                                               : &resident_linear_kernel<S, false>;
  PreparedKernel prepared;
  LMD_CUDA_RETURN_IF_ERROR(prepare(ctx, kernel, &prepared));
  if (!prepared.arch.has_clusters()) return cudaSuccess;
  int room = 0;
  int sms = 0;
  LMD_CUDA_RETURN_IF_ERROR(shared_bytes_of_block(ctx, &room));
  LMD_CUDA_RETURN_IF_ERROR(multiprocessors(ctx, &sms));
  room = (room + kReserved) / S::kBlocksPerSm - kReserved;
  int stages = kMostStages;
  while (stages >= kFewestStages && ResidentShared<S>(chunks, stages).bytes > room)
    --stages;
  if (stages < kFewestStages) return cudaSuccess;
  LaunchShape shape{
      .grid = static_cast<unsigned>(cluster),
      .block = static_cast<unsigned>(S::kThreads),
      .shared_bytes = static_cast<std::size_t>(ResidentShared<S>(chunks, stages).bytes),
      .cluster = cluster};
  int n = 0;
  LMD_CUDA_RETURN_IF_ERROR(max_clusters(ctx, shape, kernel, &n));
  n = std::min({n, sms * blocks_per_sm / cluster, ceil_div(a.n, S::F::kTileRows)});
  if (n == 0) return cudaSuccess;
  shape.grid = static_cast<unsigned>(n * cluster);
  *is_launched = true;
  return launch(ctx, shape, kernel,
                ResidentArgs<typename S::T>{.linear = a, .cluster = cluster, .stages = stages});
}

/// The smallest clusters whose blocks have room for x; one block a multiprocessor where a warp has little to do, so
/// that the next kernel's begins beside it.
template <class S>
[[nodiscard]] cudaError_t launch_resident_of(Cuda ctx,
                                             const BasicLinearArgs<typename S::T>& a,
                                             bool* is_launched) {
  constexpr int kFewColumns = 2048;
  int sms = 0;
  LMD_CUDA_RETURN_IF_ERROR(multiprocessors(ctx, &sms));
  *is_launched = false;
  for (int cluster = 2; cluster <= S::kMaxBlocks && !*is_launched; cluster *= 2) {
    const bool is_short = ceil_div(a.n, S::F::kTileRows) <= sms / cluster * S::kWarps &&
                          ceil_div(a.k, cluster) <= kFewColumns;
    LMD_CUDA_RETURN_IF_ERROR(launch_resident<S>(ctx, a, cluster, is_short ? 1 : 2, is_launched));
  }
  return cudaSuccess;
}

}  // namespace detail

inline constexpr int kResidentTokens = 16;

/// y = epilogue(norm(x) w^T + bias) for up to kResidentTokens tokens: reads the weights once. Nothing is launched
/// where x is too long, or without clusters.
///
/// Shapes:  as BasicLinearArgs; k and x_stride multiples of 8, x, codes and norm_weight 16-byte aligned. With
///          kSiluMul n is a multiple of 16, with kBest at most kMaxVocab.
/// Errors:  cudaErrorInvalidValue when a shape is not one of these.
/// Stream:  queued on ctx.stream; inputs must live until it has run.
/// Oracle:  linear(Host, ...)
template <LinearPolicy P>
[[nodiscard]] cudaError_t try_resident_linear(Cuda ctx,
                                              const BasicLinearArgs<typename P::Act>& a,
                                              bool* is_launched) {
  *is_launched = false;
  if (!detail::is_skinny_layer(a) || reinterpret_cast<std::uintptr_t>(a.x) % 16 != 0)
    return cudaErrorInvalidValue;
  if (a.m == 0 || a.m > kResidentTokens) return cudaSuccess;
  return a.m <= 8 ? detail::launch_resident_of<detail::Resident<P, 1, 8>>(ctx, a, is_launched)
                  : detail::launch_resident_of<detail::Resident<P, 2, 8>>(ctx, a, is_launched);
}

}  // namespace lmd::kernels
