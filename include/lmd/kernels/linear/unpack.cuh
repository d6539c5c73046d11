/// \file  A fragment stream -> rows of weights, on Cuda: what a dense product reads.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/core/launch.cuh>
#include <lmd/core/math.hpp>
#include <lmd/kernels/linear/policy.hpp>
#include <lmd/kernels/linear/row_params.cuh>
#include <lmd/kernels/primitive/mma.cuh>
#include <lmd/quant/fast_decode.cuh>

#include <algorithm>

namespace lmd::kernels {

namespace detail {

inline constexpr int kUnpackThreads = 256;

template <Activation T>
struct UnpackArgs {
  T* rows;                    ///< [n, k]
  const std::uint8_t* codes;  ///< the stream
  int n;
  int k;
};

/// W::decode of a code that is a float already.
template <quant::WeightFormat W>
__device__ __forceinline__ float decode_float(float code, float scale, float other) {
  if constexpr (W::kGroupSize == 0) {
    return code;
  } else if constexpr (requires(typename W::Params p) { p.zero; }) {
    return (code - other) * scale;
  } else {
    return fmaf(scale, code, other);  // the product is exact; without a minimum `other` is 0
  }
}

/// A warp decodes blocks of 16 x 64. A lane's two steps of a row are 8 neighbouring weights: four
/// lanes store 64 bytes of a row, and the next warp's block goes on where this one's ends.
template <LinearPolicy P>
__global__ void __launch_bounds__(kUnpackThreads)
    unpack_rows_kernel(const __grid_constant__ UnpackArgs<typename P::Act> a) {
  using W = typename P::Format;
  using T = typename P::Act;
  using F = quant::FragmentWeights<W>;
  using Decoder = quant::FragmentDecoder<W::kBits, T>;
  constexpr int kChunkBlocks = F::kChunkColumns / 64;
  constexpr float kPower[2] = {Decoder::kLowerScale, Decoder::kUpperScale};
  const int lane = threadIdx.x % 32;
  const int g = lane / 4;
  const int chunks = ceil_div(a.k, F::kChunkColumns);
  const std::int64_t row_blocks = std::int64_t{chunks} * kChunkBlocks;  // of a row tile
  const std::int64_t blocks = ceil_div(a.n, F::kTileRows) * row_blocks;
  const std::int64_t step = std::int64_t{gridDim.x} * (kUnpackThreads / 32);
  wait_for_previous_kernel();
  allow_next_kernel();
  for (std::int64_t i = (std::int64_t{blockIdx.x} * kUnpackThreads + threadIdx.x) / 32; i < blocks;
       i += step) {
    const std::uint8_t* chunk = a.codes + i / kChunkBlocks * F::kChunkBytes;
    const int block = static_cast<int>(i % kChunkBlocks);
    const std::int64_t row = i / row_blocks * F::kTileRows + g;
    const int first_column = static_cast<int>(i % row_blocks) * 64 + lane % 4 * 8;
    Decoder weights;
    weights.load(chunk + block * F::kBlockBytes, lane);
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      float scale[2] = {};
      float other[2] = {};
      if constexpr (W::kGroupSize > 0) {
        using Rows = RowParams<W>;
        Rows rows;
        rows.load(
            chunk + F::kCodeBytes + (block * 64 + half * 32) / W::kGroupSize * Rows::kGroupBytes,
            g);
#pragma unroll
        for (int upper = 0; upper < 2; ++upper) {
          scale[upper] = rows.scale(upper);
          if constexpr (Rows::kHasOther) other[upper] = rows.other(upper);
        }
      }
      std::uint32_t even[4];
      std::uint32_t odd[4];
      weights.step(half * 2, even);
      weights.step(half * 2 + 1, odd);
      const int column = first_column + half * 32;
      if (column >= a.k) continue;
#pragma unroll
      for (int upper = 0; upper < 2; ++upper) {
        if (row + upper * 8 >= a.n) continue;
        const auto decoded = [&](std::uint32_t pair) {
          const float s = scale[upper];
          const float o = other[upper];
          return pack_pair<T>(decode_float<W>(low_of<T>(pair) * kPower[upper], s, o),
                              decode_float<W>(high_of<T>(pair) * kPower[upper], s, o));
        };
        *reinterpret_cast<uint4*>(a.rows + (row + upper * 8) * a.k + column) = {
            decoded(even[upper]), decoded(even[upper + 2]), decoded(odd[upper]),
            decoded(odd[upper + 2])};
      }
    }
  }
}

}  // namespace detail

/// rows[j, l] = W::decode(code j, l), rounded to T.
///
/// Shapes:  codes: the stream of [n, k] weights, 16-byte aligned; rows [n, k], 16-byte aligned; k a
///          multiple of 8.
/// Errors:  cudaErrorInvalidValue when a shape is not one of these.
/// Stream:  one kernel on ctx.stream.
/// Oracle:  FragmentWeights::weight
template <LinearPolicy P>
[[nodiscard]] cudaError_t unpack_rows(
    Cuda ctx, const std::uint8_t* codes, int n, int k, typename P::Act* rows) {
  using F = typename P::Weights;
  if (n <= 0 || k <= 0 || k % 8 != 0) return cudaErrorInvalidValue;
  int sms = 0;
  LMD_CUDA_RETURN_IF_ERROR(multiprocessors(ctx, &sms));
  constexpr int kWarps = detail::kUnpackThreads / 32;
  const std::int64_t blocks = std::int64_t{ceil_div(n, F::kTileRows)} *
                              ceil_div(k, F::kChunkColumns) * (F::kChunkColumns / 64);
  const std::int64_t grid = std::min(ceil_div(blocks, std::int64_t{kWarps}), std::int64_t{sms} * 8);
  const detail::UnpackArgs<typename P::Act> args{.rows = rows, .codes = codes, .n = n, .k = k};
  return launch(ctx, {.grid = static_cast<unsigned>(grid), .block = detail::kUnpackThreads},
                &detail::unpack_rows_kernel<P>, args);
}

}  // namespace lmd::kernels
