/// \file  Linear layer for up to 8 tokens on Cuda: reads the weights once, at the memory's speed.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/core/launch.cuh>
#include <lmd/core/math.hpp>
#include <lmd/kernels/linear/skinny_input.cuh>
#include <lmd/kernels/primitive/async_copy.cuh>
#include <lmd/quant/fast_decode.cuh>

#include <algorithm>

namespace lmd::kernels {

/// Speed only: no tuning changes more than the order of additions.
struct SkinnyTuning {
  int warps = 16;          ///< a block's; each owns a slice of k
  int stages = 4;          ///< copies in flight for each warp
  int stage_bytes = 1088;  ///< about; whole chunks
  int blocks_per_sm = 1;
  int pass_tiles = 4;  ///< between two sums over the warps
};

namespace detail {

inline constexpr int kSkinnyTokens = 8;  // columns of one tensor-core product

/// A block computes some row tiles of 16 outputs. Its warps split k: each streams its slice of every
/// tile through a ring of its own in shared memory, so no warp waits for another until the sums
/// over the slices are put together. Weights do not depend on the kernel before, so the rings are
/// filled before it has ended.
template <LinearPolicy P, int Tokens, SkinnyTuning (*Tuning)(Arch), int Cc = 0>
struct Skinny {
  using W = typename P::Format;
  using T = typename P::Act;
  using F = quant::FragmentWeights<W>;
  using Decoder = quant::FragmentDecoder<W::kBits, T>;
  static constexpr SkinnyTuning kTuning = Tuning(tuned_arch(Cc));
  static constexpr int kWarps = kTuning.warps;
  static constexpr int kThreads = kWarps * 32;
  static constexpr int kStageChunks =
      (kTuning.stage_bytes + F::kChunkBytes / 2) / F::kChunkBytes > 0
          ? (kTuning.stage_bytes + F::kChunkBytes / 2) / F::kChunkBytes
          : 1;
  static constexpr int kStageBytes = kStageChunks * F::kChunkBytes;
  static constexpr int kRingBytes = kTuning.stages * kStageBytes;
  static constexpr int kGroup = W::kGroupSize == 0 ? F::kChunkColumns : W::kGroupSize;
  static constexpr int kGroups = F::kChunkColumns / kGroup;
  static constexpr int kPassTiles = kTuning.pass_tiles;
  static constexpr int kTileSums = F::kTileRows * Tokens;
  /// Rows of x 64 bytes apart modulo 128: 8 lanes then read 8 different sets of 4 banks.
  static constexpr int kRowPad = Tokens == 1 ? 0 : 32;

  struct Shared {
    std::int64_t barriers, x, x_sums, sums, squares, bytes;  // offsets
    LMD_HD Shared(int padded_k, int tiles, int tokens) {
      barriers = kWarps * kRingBytes;
      x = barriers + kWarps * kTuning.stages * 8;
      x_sums = x + std::int64_t{padded_k + kRowPad} * tokens * 2;
      sums = x_sums + std::int64_t{padded_k / kGroup} * Tokens * 4;
      const int buffers = tiles > kPassTiles ? 2 : 1;
      squares = sums + std::int64_t{kPassTiles} * buffers * kTileSums * kWarps * 4;
      bytes = squares + Tokens * kWarps * 4;
    }
  };
};

/// acc += the group's scale and zero point (or minimum) applied to its product.
template <class S>
__device__ __forceinline__ void add_group(float (&acc)[4],
                                          const float (&c)[4],
                                          const std::uint8_t* params,
                                          int g,
                                          const float (&x_sum)[2]) {
  using W = typename S::W;
  if constexpr (W::kGroupSize == 0) {
#pragma unroll
    for (int i = 0; i < 4; ++i)
      acc[i] += c[i];
  } else if constexpr (S::F::kParamBytes == 2) {
    const auto pair = *reinterpret_cast<const std::uint32_t*>(params + g * 4);
    acc[0] = fmaf(low_of<Half>(pair) * S::Decoder::kLowerScale, c[0], acc[0]);
    acc[1] = fmaf(low_of<Half>(pair) * S::Decoder::kLowerScale, c[1], acc[1]);
    acc[2] = fmaf(high_of<Half>(pair) * S::Decoder::kUpperScale, c[2], acc[2]);
    acc[3] = fmaf(high_of<Half>(pair) * S::Decoder::kUpperScale, c[3], acc[3]);
  } else {
    const auto rows = *reinterpret_cast<const uint2*>(params + g * 8);
    const float scale[2] = {low_of<Half>(rows.x), low_of<Half>(rows.y)};
    const float other[2] = {high_of<Half>(rows.x), high_of<Half>(rows.y)};
    const float power[2] = {S::Decoder::kLowerScale, S::Decoder::kUpperScale};
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int half = i / 2;
      if constexpr (requires(typename W::Params p) { p.zero; }) {
        // (code - zero) scale: the difference first, so that nothing is lost in the scale.
        acc[i] = fmaf(scale[half], fmaf(c[i], power[half], -other[half] * x_sum[i % 2]), acc[i]);
      } else {
        acc[i] = fmaf(scale[half] * power[half], c[i], fmaf(other[half], x_sum[i % 2], acc[i]));
      }
    }
  }
}

/// The product of one chunk and the x in shared memory, added to acc.
template <class S, int Tokens>
__device__ __forceinline__ void multiply_chunk(float (&acc)[4],
                                               const std::uint8_t* chunk,
                                               const std::uint16_t* xs,
                                               const float* x_sums,
                                               int columns_before,
                                               int lane) {
  using F = typename S::F;
  constexpr int kBlocks = F::kChunkColumns / 64;
  const int g = lane / 4;
  const int t = lane % 4;
  float c[kBlocks * 2][4] = {};  // a chain of sums for each 32 columns: products wait for none
#pragma unroll
  for (int block = 0; block < kBlocks; ++block) {
    typename S::Decoder weights;
    weights.load(chunk + block * F::kBlockBytes, lane);
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const uint4 x =
          *reinterpret_cast<const uint4*>(xs + columns_before + block * 64 + half * 32 + t * 8);
      std::uint32_t a[4];
      weights.step(half * 2, a);
      mma_16x8x16<typename S::T>(c[block * 2 + half], a, x.x, x.y);
      weights.step(half * 2 + 1, a);
      mma_16x8x16<typename S::T>(c[block * 2 + half], a, x.z, x.w);
    }
  }
#pragma unroll
  for (int group = 0; group < S::kGroups; ++group) {
    constexpr int kChains = S::kGroup / 32;
#pragma unroll
    for (int i = 1; i < kChains; ++i)
#pragma unroll
      for (int j = 0; j < 4; ++j)
        c[group * kChains][j] += c[group * kChains + i][j];
    const float* sums = x_sums + (columns_before / S::kGroup + group) * Tokens;
    const float x_sum[2] = {sums[Tokens == 1 ? 0 : 2 * t], sums[Tokens == 1 ? 0 : 2 * t + 1]};
    add_group<S>(acc, c[group * kChains],
                 chunk + F::kCodeBytes + group * F::kTileRows * F::kParamBytes, g, x_sum);
  }
}

/// Adds up the warps' sums [warp][tile, row, token] of a pass and stores the outputs.
template <class S, int Tokens>
__device__ __forceinline__ void store_tiles(const BasicLinearArgs<typename S::T>& a,
                                            const float* sums,
                                            const float* squares,
                                            int first_tile,
                                            int tiles) {
  using T = typename S::T;
  const bool is_gated = a.epilogue == LinearEpilogue::kSiluMul;
  const int n_out = is_gated ? a.n / 2 : a.n;
  const auto total = [&](int at) {
    float sum = 0.0f;
#pragma unroll
    for (int warp = 0; warp < S::kWarps; ++warp)
      sum += sums[warp * S::kPassTiles * S::kTileSums + at];
    return sum;
  };
  for (int i = threadIdx.x; i < tiles * S::kTileSums; i += S::kThreads) {
    const int token = i % Tokens;
    const int row = i / Tokens % 16;
    const int tile = first_tile + i / S::kTileSums;
    if (token >= a.m || (is_gated && row >= 8)) continue;
    const int j = tile * (is_gated ? 8 : 16) + row;
    if (j >= n_out) continue;
    const std::int64_t to = token * a.y_stride + j;
    const float factor = a.norm_weight == nullptr ? 1.0f : norm_factor<S>(a, squares, token);
    float p = total(i) * factor;
    if (is_gated) {
      float up = total(i + 8 * Tokens) * factor;
      if (a.bias != nullptr) {
        p += a.bias[gate_row(j)];
        up += a.bias[up_row(j)];
      }
      p = p / (1.0f + __expf(-p)) * up;
    } else {
      if (a.bias != nullptr) p += a.bias[j];
      if (a.epilogue == LinearEpilogue::kAdd) p += to_float(a.y[to]);
    }
    if (a.y_f32 != nullptr) {
      a.y_f32[to] = p;
    } else {
      a.y[to] = from_float<T>(p);
    }
  }
}

/// This warp's slice of the tiles' chunks, streamed through a ring of copies.
template <class S>
struct WeightRing {
  using F = typename S::F;
  static constexpr int kStages = S::kTuning.stages;

  const std::uint8_t* from;  ///< of the next copy
  std::uint8_t* ring;
  std::uint32_t barriers;
  int chunks;        ///< of a row tile
  int slice;         ///< this warp's of them
  int stages_total;  ///< copies
  int next_chunk = 0;
  int fetched = 0;
  int stage = 0;
  std::uint32_t parity = 0;

  __device__ __forceinline__ void start() {
    if (threadIdx.x % 32 == 0) {
      for (int i = 0; i < kStages; ++i)
        init_barrier(barriers + i * 8, kCopyLanes);
      publish_barriers();
    }
    sync_copy_lanes();
    for (int i = 0; i < kStages; ++i)
      fetch(i);
  }
  /// Queues the next copy into a stage that has been read.
  __device__ __forceinline__ void fetch(int into) {
    if (fetched == stages_total) return;
    ++fetched;
    if (threadIdx.x % 32 >= kCopyLanes) return;
    const int n = min(S::kStageChunks, slice - next_chunk);
    expect_bytes(barriers + into * 8, n * F::kChunkBytes);
    bulk_copy(shared_address(ring + into * S::kStageBytes), from, n * F::kChunkBytes,
              barriers + into * 8);
    end_copies(barriers + into * 8);
    from += n * F::kChunkBytes;
    next_chunk += n;
    if (next_chunk == slice) {
      next_chunk = 0;
      from += std::int64_t{chunks - slice} * F::kChunkBytes;
    }
  }
  /// Waits for the oldest copy.
  [[nodiscard]] const __device__ __forceinline__ std::uint8_t* wait() const {
    wait_barrier(barriers + stage * 8, parity);
    return ring + stage * S::kStageBytes;
  }
  __device__ __forceinline__ void release() {
    __syncwarp();
    fetch(stage);
    if (++stage == kStages) {
      stage = 0;
      parity ^= 1;
    }
  }
};

/// This warp's sums of one row tile -> shared memory [row, token].
template <int Tokens>
__device__ __forceinline__ void keep_sums(const float (&acc)[4], float* to, int lane) {
  const int g = lane / 4;
  const int t = lane % 4;
  if constexpr (Tokens == 1) {
    if (t < 2) to[g + 8 * t] = t == 0 ? acc[0] : acc[2];  // all columns are the same
  } else {
    *reinterpret_cast<float2*>(to + g * Tokens + 2 * t) = {acc[0], acc[1]};
    *reinterpret_cast<float2*>(to + (g + 8) * Tokens + 2 * t) = {acc[2], acc[3]};
  }
}

template <class S, int Tokens>
__global__ void __launch_bounds__(S::kThreads, 2)
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

  WeightRing<S> ring{
      .from = a.codes + (std::int64_t{first_tile} * chunks + first_chunk) * F::kChunkBytes,
      .ring = shared + warp * S::kRingBytes,
      .barriers = shared_address(shared + at.barriers) + warp * S::kTuning.stages * 8,
      .chunks = chunks,
      .slice = slice,
      .stages_total = tiles * ceil_div(slice, S::kStageChunks)};
  ring.start();
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
        const std::uint8_t* in = ring.wait();
#pragma unroll
        for (int u = 0; u < S::kStageChunks; ++u) {
          if (chunk + u < slice) {
            multiply_chunk<S, Tokens>(acc, in + u * F::kChunkBytes, xs, x_sums,
                                      (first_chunk + chunk + u) * F::kChunkColumns, lane);
          }
        }
        ring.release();
      }
      keep_sums<Tokens>(acc, pass_sums + warp * kPassSums + tile * S::kTileSums, lane);
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

}  // namespace detail

/// y = epilogue(x w^T + bias) for few tokens: one pass over the weights for each 8 tokens (fewer
/// where 8 rows of x do not fit into shared memory).
///
/// Shapes:  as BasicLinearArgs; k and x_stride multiples of 8, x 16-byte aligned, norm_weight too.
///          With kSiluMul n is a multiple of 16.
/// Errors:  cudaErrorInvalidValue when a shape is not one of these, or x too long for one token.
/// Stream:  queued on ctx.stream; inputs must live until it has run.
/// Oracle:  linear(Host, ...)
template <LinearPolicy P>
[[nodiscard]] cudaError_t skinny_linear(Cuda ctx, const BasicLinearArgs<typename P::Act>& a) {
  if (a.m < 0 || a.n <= 0 || a.k <= 0 || a.k % 8 != 0 || a.x_stride % 8 != 0 ||
      (a.epilogue == LinearEpilogue::kSiluMul && a.n % 16 != 0)) {
    return cudaErrorInvalidValue;
  }
  int sms = 0;
  LMD_CUDA_RETURN_IF_ERROR(multiprocessors(ctx, &sms));
  int step = 0;
  LMD_CUDA_RETURN_IF_ERROR(detail::tokens_that_fit<P>(ctx, a, sms, &step));
  for (int i = 0; i < a.m; i += step) {
    BasicLinearArgs<typename P::Act> part = a;
    part.x += i * a.x_stride;
    if (a.y_f32 != nullptr) part.y_f32 += i * a.y_stride;
    if (a.y != nullptr) part.y += i * a.y_stride;
    part.m = std::min(step, a.m - i);
    LMD_CUDA_RETURN_IF_ERROR(
        part.m == 1 ? (detail::launch_skinny<P, 1, detail::one_token_tuning>(ctx, part, sms))
                    : (detail::launch_skinny<P, detail::kSkinnyTokens, detail::few_tokens_tuning>(
                          ctx, part, sms)));
  }
  return cudaSuccess;
}

}  // namespace lmd::kernels
