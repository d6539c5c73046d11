/// \file  Open pages -> core matrices, as the products of sm_90a read them.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/cache/fragment_tile.hpp>
#include <lmd/core/half.hpp>

namespace lmd::kernels::detail {

/// A core-matrix row from the same word of four vectors.
__device__ __forceinline__ uint4 word_of(const uint4 (&v)[4], int i) {
  const auto word = [i](const uint4& x) {
    return i == 0 ? x.x : i == 1 ? x.y : i == 2 ? x.z : x.w;
  };
  return {word(v[0]), word(v[1]), word(v[2]), word(v[3])};
}

/// Keys of an open page -> core matrices. Eight lanes take a row each of 8, four of them 32 elements each:
/// words w of the four vectors of a row's 32 elements are the row of matrix w.
template <int HeadDim, int Threads>
__device__ __forceinline__ void arrange_open_keys(std::uint8_t* to, const Half* keys, int thread) {
  constexpr int kSteps = HeadDim / 16;
  const int row = thread % 8;
  const int part = thread / 8 % 4;
  if (part >= HeadDim / 32) return;
#pragma unroll
  for (int rows = thread / 32; rows < cache::kPageTokens / 8; rows += Threads / 32) {
    const int token = row / 2 * 16 + rows / 2 * 4 + row % 2 * 2 + rows % 2;
    const auto* from = reinterpret_cast<const uint4*>(
        keys + cache::FragmentOpenOrder::key_at(token, part * 32, HeadDim));
    const uint4 v[4] = {from[0], from[1], from[2], from[3]};
    std::uint8_t* matrices = to + (rows * 2 * kSteps + part * 4) * 128 + row * 16;
#pragma unroll
    for (int w = 0; w < 4; ++w)
      *reinterpret_cast<uint4*>(matrices + w * 128) = word_of(v, w);
  }
}

/// Values of an open page -> core matrices. A thread has an element of the head, of all tokens.
template <int HeadDim, int Threads>
__device__ __forceinline__ void arrange_open_values(std::uint8_t* to,
                                                    const Half* values,
                                                    int thread) {
  constexpr int kTileBytes = 16 * HeadDim * 2;  // of 16 tokens
#pragma unroll 1
  for (int d = thread; d < HeadDim; d += Threads) {
    std::uint8_t* row = to + d / 8 * 256 + d % 8 * 16;
#pragma unroll
    for (int half = 0; half < 2; ++half) {  // eight tokens of each quarter
      uint4 v[4];
#pragma unroll
      for (int quarter = 0; quarter < 4; ++quarter)
        v[quarter] = *reinterpret_cast<const uint4*>(
            values + cache::FragmentOpenOrder::value_at(quarter * 16 + half * 8, d, HeadDim));
#pragma unroll
      for (int i = 0; i < 2; ++i) {  // token tile: four tokens of each quarter
        const uint4 even = word_of(v, 2 * i);
        const uint4 odd = word_of(v, 2 * i + 1);
        const std::uint32_t a[4] = {even.x, even.y, even.z, even.w};
        const std::uint32_t b[4] = {odd.x, odd.y, odd.z, odd.w};
#pragma unroll
        for (int e = 0; e < 2; ++e) {
          const std::uint32_t pick = e == 0 ? 0x5410 : 0x7632;
          *reinterpret_cast<uint4*>(row + (half * 2 + i) * kTileBytes + e * 128) = {
              __byte_perm(a[0], b[0], pick), __byte_perm(a[1], b[1], pick),
              __byte_perm(a[2], b[2], pick), __byte_perm(a[3], b[3], pick)};
        }
      }
    }
  }
}

}  // namespace lmd::kernels::detail
