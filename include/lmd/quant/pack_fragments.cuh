/// \file  Rows as checkpoints hold them -> the fragment stream, on the device.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/core/activation.hpp>
#include <lmd/core/launch.cuh>
#include <lmd/quant/fragment_weights.hpp>

namespace lmd::quant {

/// Which row of the matrix becomes row j of the stream.
enum class RowOrder {
  kAsTheyAre,
  /// [gate; up] -> blocks of 16 rows: eight gates, then the eight values that they gate.
  kGateUpBlocks,
};

LMD_HD int source_row(RowOrder order, int j, int n) {
  if (order == RowOrder::kAsTheyAre) return j;
  return j / 16 * 8 + j % 8 + (j % 16 < 8 ? 0 : n / 2);
}

/// Every pointer is to device memory.
struct PackArgs {
  std::uint8_t* stream = nullptr;        ///< [FragmentWeights::stream_bytes(n, k)]
  const std::uint8_t* codes = nullptr;   ///< [n, k * bits / 8] bytes in PlainOrder
  const std::uint8_t* params = nullptr;  ///< [n, k / group] of the format's Params
  int n = 0;
  int k = 0;
  RowOrder order = RowOrder::kAsTheyAre;  ///< kGateUpBlocks: n is a multiple of 16
  /// Set to 1 where a number became infinite in 16 bits; null where nothing is rounded.
  int* overflow = nullptr;
};

namespace detail {

inline constexpr int kPackThreads = 256;

/// The code of a weight as W stores it.
template <WeightFormat W, WeightFormat From>
__device__ __forceinline__ std::uint32_t stored_code(std::uint32_t code, int* overflow) {
  if constexpr (std::is_same_v<W, From>) {
    return code;
  } else {
    static_assert(W::kBits == 16 && W::kGroupSize == 0 && From::kGroupSize == 0,
                  "numbers become numbers of 16 bits");
    using T = std::conditional_t<std::is_same_v<W, WeightHalf>, Half, BFloat16>;
    const float x = From::decode(code, {});
    const T rounded = from_float<T>(x);
    if (isinf(to_float(rounded)) && !isinf(x)) *overflow = 1;
    return rounded.bits;
  }
}

/// A block puts one chunk together in shared memory: codes come in anywhere, and leave in order.
template <WeightFormat W, WeightFormat From>
__global__ void __launch_bounds__(kPackThreads) pack_fragments_kernel(PackArgs a) {
  using F = FragmentWeights<W>;
  __shared__ __align__(16) std::uint32_t chunk[F::kChunkBytes / 4];
  const int chunks = ceil_div(a.k, F::kChunkColumns);
  const int tile = static_cast<int>(blockIdx.x / static_cast<unsigned>(chunks));
  const int column =
      static_cast<int>(blockIdx.x % static_cast<unsigned>(chunks)) * F::kChunkColumns;
  for (int i = threadIdx.x; i < F::kChunkBytes / 4; i += kPackThreads)
    chunk[i] = 0;
  __syncthreads();
  using Params = typename From::Params;
  const RowWeights<From> from{a.codes, reinterpret_cast<const Params*>(a.params), a.k, a.n};
  for (int i = threadIdx.x; i < F::kTileRows * F::kChunkColumns; i += kPackThreads) {
    const int j = tile * F::kTileRows + i / F::kChunkColumns;
    const int l = column + i % F::kChunkColumns;
    if (j >= a.n || l >= a.k) continue;
    const int row = source_row(a.order, j, a.n);
    const int bit = F::code_bit(j, l);
    atomicOr(&chunk[bit / 32], stored_code<W, From>(from.code(row, l), a.overflow) << (bit % 32));
    if constexpr (W::kGroupSize > 0) {
      if (l % W::kGroupSize != 0) continue;
      const std::int64_t groups = a.k / W::kGroupSize;
      const FragmentParams<W> p =
          to_fragment_params<W>(from.params[row * groups + l / W::kGroupSize]);
      *reinterpret_cast<FragmentParams<W>*>(reinterpret_cast<std::uint8_t*>(chunk) +
                                            F::params_byte(j, l)) = p;
    }
  }
  __syncthreads();
  auto* to = reinterpret_cast<std::uint32_t*>(a.stream + std::int64_t{blockIdx.x} * F::kChunkBytes);
  for (int i = threadIdx.x; i < F::kChunkBytes / 4; i += kPackThreads)
    to[i] = chunk[i];
}

}  // namespace detail

/// The very bytes of the definition. Where rows are numbers of another format, From, they are
/// rounded to W, of 16 bits.
///
/// Errors:  cudaErrorInvalidValue for more than 2^31 - 1 chunks; the status of the launch.
/// Stream:  one kernel on ctx.stream.
/// Oracle:  pack_fragments(...) of the rows in the given order
template <WeightFormat W, WeightFormat From = W>
[[nodiscard]] cudaError_t pack_fragments(Cuda ctx, const PackArgs& a) {
  using F = FragmentWeights<W>;
  const std::int64_t blocks = F::stream_bytes(a.n, a.k) / F::kChunkBytes;
  if (blocks == 0) return cudaSuccess;
  if (blocks > INT32_MAX) return cudaErrorInvalidValue;
  return launch(ctx, {.grid = static_cast<unsigned>(blocks), .block = detail::kPackThreads},
                detail::pack_fragments_kernel<W, From>, a);
}

}  // namespace lmd::quant
