/// \file  Words of AWQ checkpoints -> the fragment stream, on the device.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/core/activation.hpp>
#include <lmd/core/launch.cuh>
#include <lmd/quant/awq_checkpoint.hpp>
#include <lmd/quant/fragment_weights.hpp>

namespace lmd::quant {

enum class AwqScaleType { kHalf, kBFloat16, kFloat };

/// The tensors of one module, as AwqTensors, but for the type of the scales.
struct AwqModule {
  const std::uint32_t* qweight = nullptr;  ///< [k, n / 8] words
  const std::uint32_t* qzeros = nullptr;   ///< [k / GroupSize, n / 8] words
  const void* scales = nullptr;            ///< [k / GroupSize, n]
  int n = 0;                               ///< a multiple of 8
  AwqScaleType scale_type = AwqScaleType::kHalf;
};

/// Where eight neighbouring rows of a matrix come from: one word of each row of qweight.
struct AwqWord {
  int module = 0;
  int word = 0;  ///< [0, n / 8) of the module
};

/// Every pointer is to device memory.
struct AwqPackArgs {
  std::uint8_t* stream = nullptr;  ///< [FragmentWeights::stream_bytes(n, k)]
  AwqModule modules[3] = {};
  const AwqWord* words = nullptr;  ///< [n / 8]
  int n = 0;                       ///< a multiple of 8
  int k = 0;                       ///< a multiple of the group
};

namespace detail {

inline constexpr int kPackAwqThreads = 256;

__device__ __forceinline__ Half awq_scale(const AwqModule& m, std::int64_t i) {
  if (m.scale_type == AwqScaleType::kHalf) return static_cast<const Half*>(m.scales)[i];
  if (m.scale_type == AwqScaleType::kFloat) return to_half(static_cast<const float*>(m.scales)[i]);
  return to_half(to_float(static_cast<const BFloat16*>(m.scales)[i]));
}

/// A block puts one chunk together in shared memory; a thread takes words: eight rows of a column.
template <int GroupSize>
__global__ void __launch_bounds__(kPackAwqThreads) pack_awq_kernel(AwqPackArgs a) {
  using W = WeightInt4<GroupSize>;
  using F = FragmentWeights<W>;
  __shared__ __align__(16) std::uint32_t chunk[F::kChunkBytes / 4];
  const int chunks = ceil_div(a.k, F::kChunkColumns);
  const int first_row = static_cast<int>(blockIdx.x) / chunks * F::kTileRows;
  const int first_column = static_cast<int>(blockIdx.x) % chunks * F::kChunkColumns;
  for (int i = threadIdx.x; i < F::kChunkBytes / 4; i += kPackAwqThreads)
    chunk[i] = 0;
  __syncthreads();
  for (int i = threadIdx.x; i < 2 * F::kChunkColumns; i += kPackAwqThreads) {
    const int j = first_row + i % 2 * 8;
    const int l = first_column + i / 2;
    if (j >= a.n || l >= a.k) continue;
    const AwqWord at = a.words[j / 8];
    const AwqModule& m = a.modules[at.module];
    const std::uint32_t word = m.qweight[std::int64_t{l} * (m.n / 8) + at.word];
#pragma unroll
    for (int c = 0; c < 8; ++c) {
      const int bit = F::code_bit(j + c, l);
      atomicOr(&chunk[bit / 32], awq_code(word, c) << (bit % 32));
    }
  }
  for (int i = threadIdx.x; i < F::kTileRows * F::kChunkGroups; i += kPackAwqThreads) {
    const int j = first_row + i % F::kTileRows;
    const int l = first_column + i / F::kTileRows * GroupSize;
    if (j >= a.n || l >= a.k) continue;
    const AwqWord at = a.words[j / 8];
    const AwqModule& m = a.modules[at.module];
    const std::int64_t group = l / GroupSize;
    const std::uint32_t zero = awq_code(m.qzeros[group * (m.n / 8) + at.word], j % 8);
    const FragmentParams<W> p = to_fragment_params<W>(
        {awq_scale(m, group * m.n + at.word * 8 + j % 8), static_cast<std::uint8_t>(zero), 0});
    *reinterpret_cast<FragmentParams<W>*>(reinterpret_cast<std::uint8_t*>(chunk) +
                                          F::params_byte(j, l)) = p;
  }
  __syncthreads();
  auto* to = reinterpret_cast<std::uint32_t*>(a.stream + std::int64_t{blockIdx.x} * F::kChunkBytes);
  for (int i = threadIdx.x; i < F::kChunkBytes / 4; i += kPackAwqThreads)
    to[i] = chunk[i];
}

}  // namespace detail

/// The very bytes of pack_fragments for the rows that unpack_awq makes, in the order of `words`.
///
/// Errors:  cudaErrorInvalidValue for more than 2^31 - 1 chunks; the status of the launch.
/// Stream:  one kernel on ctx.stream.
/// Oracle:  unpack_awq, then pack_fragments(RowWeights)
template <int GroupSize>
[[nodiscard]] cudaError_t pack_awq(Cuda ctx, const AwqPackArgs& a) {
  using F = FragmentWeights<WeightInt4<GroupSize>>;
  const std::int64_t blocks = F::stream_bytes(a.n, a.k) / F::kChunkBytes;
  if (blocks == 0) return cudaSuccess;
  if (blocks > INT32_MAX) return cudaErrorInvalidValue;
  return launch(ctx, {.grid = static_cast<unsigned>(blocks), .block = detail::kPackAwqThreads},
                detail::pack_awq_kernel<GroupSize>, a);
}

}  // namespace lmd::quant
