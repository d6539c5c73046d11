/// \file  Sealing full pages: one unit by a block of threads, and all that a decode step fills. Cuda.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/cache/fragment_tile.hpp>
#include <lmd/core/launch.cuh>
#include <lmd/kernels/attention/policy.hpp>
#include <lmd/kernels/cache/seal.hpp>
#include <lmd/kernels/cache/seal_args.cuh>

#include <type_traits>

namespace lmd::kernels {

namespace detail {

inline constexpr int kSealThreads = 256;
inline constexpr int kMaxSealChunks = 1024;

struct TileElement {
  int t, d;
};

/// Inverse of cache::detail::fragment_bit.
struct FragmentPlace {
  int step, row, t, e;
};

/// Whose code is number `code` of 16-byte vector `vector` of a tile.
template <int Bits, int Steps>
LMD_HD FragmentPlace fragment_place(int vector, int code) {
  FragmentPlace place{};
  if constexpr (Bits == 16) {  // the vector is a row of a core matrix
    const int matrix = vector / 8;
    const int rows = matrix / (2 * Steps);
    place.step = rows / 2 * Steps + matrix % (2 * Steps) / 2;
    place.row = rows % 2 * 8 + vector % 8;
    place.t = code / 2;
    place.e = matrix % 2 * 2 + code % 2;
    return place;
  }
  const int lane = vector % 32;
  constexpr int kPerStep = 8;  // codes of a lane
  const int n = code % kPerStep;
  place.step = vector / 32 * (16 / Bits) + code / kPerStep;
  int upper = 0;
  if constexpr (Bits == 4) {
    upper = n % 2;
    place.e = n / 4 + n / 2 % 2 * 2;
  } else if constexpr (Bits == 8) {
    upper = n / 4;
    place.e = n % 4 / 2 + n % 2 * 2;
  }
  place.row = lane / 4 + upper * 8;
  place.t = lane % 4;
  return place;
}

/// Inverse of Tile::first_bit, by vectors of 16 bytes.
template <class Tile>
struct TileOrder;

template <int Bits, int HeadDim>
struct TileOrder<cache::FragmentKeyTile<Bits, HeadDim>> {
  static LMD_HD TileElement element(int vector, int code) {
    const FragmentPlace p = fragment_place<Bits, HeadDim / 16>(vector, code);
    const int tile = p.step / (HeadDim / 16);
    const int step = p.step % (HeadDim / 16);
    const int g = p.row % 8;
    return {g / 2 * 16 + tile * 4 + g % 2 * 2 + p.row / 8,
            step / 2 * 32 + p.t * 8 + step % 2 * 4 + p.e};
  }
};

template <int Bits, int HeadDim>
struct TileOrder<cache::FragmentValueTile<Bits, HeadDim>> {
  static LMD_HD TileElement element(int vector, int code) {
    const FragmentPlace p = fragment_place<Bits, 1>(vector, code);
    const int tile = p.step / (HeadDim / 16);
    const int step = p.step % (HeadDim / 16);
    return {p.t * 16 + tile * 4 + p.e % 2 * 2 + p.e / 2, step * 16 + p.row};
  }
};

/// Shared memory of seal_unit_by_block: one tile at 16 bit, token after token. Kernels place it in
/// bytes, as variables of shared memory cannot have initial values.
template <int HeadDim>
struct SealShared {
  static constexpr int kStride =
      HeadDim + 2;  // an odd number of words: columns miss bank conflicts
  static constexpr int kParams = HeadDim > cache::kPageTokens ? HeadDim : cache::kPageTokens;
  alignas(16) Half elements[cache::kPageTokens * kStride];
  quant::AffineParams params[kParams];  ///< by token or by channel

  __device__ __forceinline__ float at(int t, int d) const {
    return to_float(elements[t * kStride + d]);
  }
};

/// Keys of an open page -> shared memory.
template <int HeadDim, int Threads>
__device__ __forceinline__ void stage_keys(SealShared<HeadDim>& shared, const Half* keys) {
  constexpr int kVectors = HeadDim / 8;  // of a token
  auto* words = reinterpret_cast<std::uint32_t*>(shared.elements);
  for (int v = threadIdx.x; v < cache::kPageTokens * kVectors; v += Threads) {
    const uint4 x = reinterpret_cast<const uint4*>(keys)[v];
    std::uint32_t* to =
        words + v / kVectors * (SealShared<HeadDim>::kStride / 2) + v % kVectors * 4;
    to[0] = x.x;
    to[1] = x.y;
    to[2] = x.z;
    to[3] = x.w;
  }
}

/// Values of an open page, element after element in quarters of 16 tokens -> shared memory.
template <int HeadDim, int Threads>
__device__ __forceinline__ void stage_values(SealShared<HeadDim>& shared, const Half* values) {
  constexpr int kStride = SealShared<HeadDim>::kStride;
  constexpr int kVectors = HeadDim * 2;  // of a quarter: two for each element
  for (int v = threadIdx.x; v < 4 * kVectors; v += Threads) {
    const uint4 x = reinterpret_cast<const uint4*>(values)[v];
    const int d = v % kVectors / 2;
    const int t = v / kVectors * 16 + v % 2 * 8;
    const std::uint32_t words[4] = {x.x, x.y, x.z, x.w};
    Half* to = shared.elements + t * kStride + d;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      to[2 * i * kStride] = Half{static_cast<std::uint16_t>(words[i])};
      to[(2 * i + 1) * kStride] = Half{static_cast<std::uint16_t>(words[i] >> 16)};
    }
  }
}

/// The staged tile's parameters -> shared memory and the unit. Minima and maxima do not depend on
/// the order, so they are Host's.
template <quant::KvFormat F, class Tile, int HeadDim, int Threads>
__device__ __forceinline__ void fit_params(SealShared<HeadDim>& shared, std::uint8_t* to) {
  auto* params = reinterpret_cast<quant::AffineParams*>(to);
  const float nan = __int_as_float(0x7fc00000);  // the neutral element of fminf and fmaxf
  if constexpr (F::kAxis == quant::ParamAxis::kToken) {
    const int lane = threadIdx.x % 32;
    for (int t = threadIdx.x / 32; t < cache::kPageTokens; t += Threads / 32) {
      float lo = nan;
      float hi = nan;
#pragma unroll
      for (int i = 0; i < HeadDim / 32; ++i) {
        const float x = shared.at(t, lane + 32 * i);
        lo = fminf(lo, x);
        hi = fmaxf(hi, x);
      }
#pragma unroll
      for (int step = 16; step > 0; step /= 2) {
        lo = fminf(lo, __shfl_xor_sync(0xffffffffu, lo, step));
        hi = fmaxf(hi, __shfl_xor_sync(0xffffffffu, hi, step));
      }
      if (lane == 0) {
        const quant::AffineParams p = F::fit(lo + 0.0f, hi);
        shared.params[t] = p;
        params[Tile::token_params_at(t)] = p;
      }
    }
  } else if constexpr (F::kAxis == quant::ParamAxis::kChannel) {
    for (int d = threadIdx.x; d < HeadDim; d += Threads) {
      float lo = nan;
      float hi = nan;
#pragma unroll 16
      for (int t = 0; t < cache::kPageTokens; ++t) {
        const float x = shared.at(t, d);
        lo = fminf(lo, x);
        hi = fmaxf(hi, x);
      }
      const quant::AffineParams p = F::fit(lo + 0.0f, hi);
      shared.params[d] = p;
      params[d] = p;
    }
  }
}

/// Codes of the staged tile, a word of them a thread.
template <quant::KvFormat F, class Tile, int HeadDim, int Threads>
__device__ __forceinline__ void encode_tile(const SealShared<HeadDim>& shared, std::uint8_t* tile) {
  constexpr int kCodes = 32 / F::kBits;  // of a word
  for (int w = threadIdx.x; w < Tile::kBytes / 4; w += Threads) {
    std::uint32_t word = 0;
#pragma unroll
    for (int i = 0; i < kCodes; ++i) {
      const TileElement at = TileOrder<Tile>::element(w / 4, w % 4 * kCodes + i);
      quant::AffineParams p{};
      if constexpr (F::kAxis != quant::ParamAxis::kNone)
        p = shared.params[F::kAxis == quant::ParamAxis::kToken ? at.t : at.d];
      word |= F::encode(shared.at(at.t, at.d), p) << (i * F::kBits);
    }
    reinterpret_cast<std::uint32_t*>(tile)[w] = word;
  }
}

/// The staged keys -> a unit's codes and parameters. All threads of the block, which have synchronised
/// since the tile was staged.
template <class U, int Threads>
__device__ __forceinline__ void seal_staged_keys(SealShared<U::kHeadDim>& shared,
                                                 std::uint8_t* unit) {
  using Key = typename U::Scheme::Key;
  fit_params<Key, typename U::KeyTile, U::kHeadDim, Threads>(shared, unit + U::kKeyParamsAt);
  if constexpr (Key::kAxis != quant::ParamAxis::kNone) __syncthreads();
  encode_tile<Key, typename U::KeyTile, U::kHeadDim, Threads>(shared, unit);
}
/// The same with values.
template <class U, int Threads>
__device__ __forceinline__ void seal_staged_values(SealShared<U::kHeadDim>& shared,
                                                   std::uint8_t* unit) {
  using Value = typename U::Scheme::Value;
  fit_params<Value, typename U::ValueTile, U::kHeadDim, Threads>(shared, unit + U::kValueParamsAt);
  if constexpr (Value::kAxis != quant::ParamAxis::kNone) __syncthreads();
  encode_tile<Value, typename U::ValueTile, U::kHeadDim, Threads>(shared, unit + U::kValuesAt);
}

/// seal_unit by all threads of a block, bit by bit. Padding of the unit is not written.
///
/// Layout:  cache::FragmentOpenOrder and fragment tiles; keys, values and unit 16-byte aligned.
/// Oracle:  seal_unit(Host, ...)
template <class U, int Threads>
__device__ __forceinline__ void seal_unit_by_block(const SealArgs& a,
                                                   SealShared<U::kHeadDim>& shared) {
  __syncthreads();  // what the block staged last has been read
  stage_keys<U::kHeadDim, Threads>(shared, a.keys);
  __syncthreads();
  seal_staged_keys<U, Threads>(shared, a.unit);
  __syncthreads();
  stage_values<U::kHeadDim, Threads>(shared, a.values);
  __syncthreads();
  seal_staged_values<U, Threads>(shared, a.unit);
}

/// Lists the chunks whose token is the last of its page, in order: all blocks find the same list.
/// Returns how many they are. All threads of the block call; `bits` has a bit for each chunk.
__device__ __forceinline__ int list_full_pages(const SequenceChunk* chunks,
                                               int n_chunks,
                                               std::uint32_t (&bits)[kMaxSealChunks / 32],
                                               std::int16_t (&list)[kMaxSealChunks]) {
  const int lane = threadIdx.x % 32;
  bool is_any = false;
  for (int i = threadIdx.x; i < kMaxSealChunks; i += kSealThreads) {
    const bool is_full =
        i < n_chunks && chunks[i].position % cache::kPageTokens == cache::kPageTokens - 1;
    const std::uint32_t ballot = __ballot_sync(0xffffffffu, is_full);
    if (lane == 0) bits[i / 32] = ballot;
    is_any |= is_full;
  }
  const int n = __syncthreads_count(is_any);
  if (n == 0) return 0;
  int before = 0;
  int total = 0;
  for (int word = 0; word < kMaxSealChunks / 32; ++word) {
    if (word == static_cast<int>(threadIdx.x)) before = total;
    total += __popc(bits[word]);
  }
  if (threadIdx.x < kMaxSealChunks / 32) {
    for (std::uint32_t rest = bits[threadIdx.x]; rest != 0; rest &= rest - 1)
      list[before++] = static_cast<std::int16_t>(threadIdx.x * 32 + __ffs(rest) - 1);
  }
  __syncthreads();
  return total;
}

template <AttentionPolicy P>
__global__ void __launch_bounds__(kSealThreads)
    seal_step_kernel(const __grid_constant__ SealStepArgs a) {
  using U = typename P::Unit;
  __shared__ __align__(16) std::uint8_t bytes[sizeof(SealShared<P::kHeadDim>)];
  auto& shared = *reinterpret_cast<SealShared<P::kHeadDim>*>(bytes);
  __shared__ std::uint32_t bits[kMaxSealChunks / 32];
  __shared__ std::int16_t list[kMaxSealChunks];
  wait_for_previous_kernel();
  allow_next_kernel();
  const int full = list_full_pages(a.chunks, a.n_chunks, bits, list);
  const int units = a.layers * a.kv_heads;  // of a page
  for (std::int64_t i = blockIdx.x; i < std::int64_t{full} * units; i += gridDim.x) {
    const SequenceChunk& chunk = a.chunks[list[i / units]];
    const int layer = static_cast<int>(i % units) / a.kv_heads;
    const int kvh = static_cast<int>(i % units) % a.kv_heads;
    const std::int64_t open =
        layer * a.open_layer_stride + std::int64_t{kvh} * cache::kPageTokens * P::kHeadDim;
    const std::int64_t id = chunk.page_ids[chunk.position / cache::kPageTokens];
    seal_unit_by_block<U, kSealThreads>(
        {.unit = a.pool + id * a.page_bytes + layer * a.layer_bytes + std::int64_t{kvh} * U::kBytes,
         .keys = chunk.open_keys + open,
         .values = chunk.open_values + open},
        shared);
  }
}

}  // namespace detail

/// Seals the pages that a decode step has filled: page position / 64 of each chunk whose position is
/// 63 beyond a multiple of 64, in all layers. Most steps fill none, and then nothing is written.
///
/// Shapes:  at most 1024 chunks of one token each.
/// Layout:  FragmentKvPolicy's pages and open order.
/// Errors:  cudaErrorInvalidValue when there are more chunks.
/// Stream:  queued on ctx.stream. Positions are read from device memory, so a graph can be replayed.
/// Oracle:  seal_unit(Host, ...), bit by bit
template <AttentionPolicy P>
[[nodiscard]] cudaError_t seal_step(Cuda ctx, const SealStepArgs& a) {
  static_assert(std::is_same_v<typename P::Open, cache::FragmentOpenOrder>,
                "open pages are read by vectors of this order");
  if (a.n_chunks < 0 || a.n_chunks > detail::kMaxSealChunks || a.layers < 0 || a.kv_heads <= 0)
    return cudaErrorInvalidValue;
  if (a.n_chunks == 0 || a.layers == 0) return cudaSuccess;
  constexpr int kBlocks =
      2;  // of a multiprocessor: enough to hide one's loads behind another's codes
  int sms = 0;
  LMD_CUDA_RETURN_IF_ERROR(multiprocessors(ctx, &sms));
  return launch(ctx,
                {.grid = static_cast<unsigned>(sms * kBlocks),
                 .block = static_cast<unsigned>(detail::kSealThreads)},
                &detail::seal_step_kernel<P>, a);
}

}  // namespace lmd::kernels
