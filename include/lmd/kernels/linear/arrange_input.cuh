/// \file  Activations -> the order in which wgmma reads them from shared memory, RMS-normalised on the
///        way: a stage of the linear layer is then one copy. Blocks share out the rows.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/core/launch.cuh>
#include <lmd/core/math.hpp>
#include <lmd/kernels/linear/linear.hpp>
#include <lmd/kernels/primitive/block_sum.cuh>
#include <lmd/kernels/primitive/pack.cuh>

namespace lmd::kernels {

/// Where 16-byte unit `unit` (0 .. 7) of row `token` of block `block` of 64 columns lies, of `tokens`
/// rows (a multiple of 8): the 128-byte swizzle of wgmma_rows. In bytes.
LMD_HD std::int64_t arranged_at(int token, int block, int unit, int tokens) {
  return (std::int64_t{block} * tokens + token) * 128 + (unit ^ token % 8) * 16;
}

/// Bytes of `tokens` arranged rows of `columns`, padded to whole blocks of 64.
[[nodiscard]] LMD_HD std::int64_t arranged_bytes(int tokens, int columns) {
  return std::int64_t{tokens} * round_up(columns, 64) * 2;
}

namespace detail {

/// 32 columns of a row: four 16-byte units of which each lane t of a product reads one
/// (fragment_column), and which therefore change places by words.
template <Activation T>
struct ArrangePiece {
  uint4 v[4] = {};

  /// Columns behind k are zeros: weights of 0 must not meet something else than a number.
  __device__ __forceinline__ void load(const T* x, int first, int k) {
#pragma unroll
    for (int t = 0; t < 4; ++t) {
      if (first + t * 8 < k) v[t] = *reinterpret_cast<const uint4*>(x + first + t * 8);
    }
  }
  [[nodiscard]] __device__ __forceinline__ float sum_of_squares() const {
    float sum = 0.0f;
#pragma unroll
    for (int t = 0; t < 4; ++t) {
      const Pack<T> p = unpack<T>(v[t]);
#pragma unroll
      for (int i = 0; i < 8; ++i)
        sum = fmaf(p.x[i], p.x[i], sum);
    }
    return sum;
  }
  __device__ __forceinline__ void scale(float factor, const float* gain, int first, int k) {
#pragma unroll
    for (int t = 0; t < 4; ++t) {
      if (first + t * 8 >= k) continue;
      Pack<T> p = unpack<T>(v[t]);
      const Pack<T> g = load_parameters<T>(gain + first + t * 8, 8, true);
#pragma unroll
      for (int i = 0; i < 8; ++i)
        p.x[i] = p.x[i] * factor * g.x[i];
      v[t] = repack<T>(p);
    }
  }
  __device__ __forceinline__ void store(std::uint8_t* out, int token, int piece, int tokens) const {
    const uint4 units[4] = {{v[0].x, v[1].x, v[2].x, v[3].x},
                            {v[0].y, v[1].y, v[2].y, v[3].y},
                            {v[0].z, v[1].z, v[2].z, v[3].z},
                            {v[0].w, v[1].w, v[2].w, v[3].w}};
#pragma unroll
    for (int u = 0; u < 4; ++u)
      *reinterpret_cast<uint4*>(out + arranged_at(token, piece / 2, piece % 2 * 4 + u, tokens)) =
          units[u];
  }
};

/// Row `token` of a's x, normalised where it has a norm, -> out, for blocks of `tokens` rows, with zeros behind
/// k. A whole block calls, of which each thread keeps its first piece between the sum of squares and
/// the scaling: few rows are longer.
template <Activation T>
__device__ __forceinline__ void arrange_row(const BasicLinearArgs<T>& a,
                                            std::uint8_t* out,
                                            int token,
                                            int tokens,
                                            int columns,
                                            float (&partial)[kMaxWarps]) {
  const T* x = a.x + token * a.x_stride;
  const int threads = blockDim.x;
  const int pieces = columns / 32;
  const int mine = threadIdx.x;
  ArrangePiece<T> first;
  first.load(x, mine * 32, a.k);
  float factor = 1.0f;
  if (a.norm_weight != nullptr) {
    float sum = first.sum_of_squares();
    for (int piece = mine + threads; piece < pieces; piece += threads) {
      ArrangePiece<T> other;
      other.load(x, piece * 32, a.k);
      sum += other.sum_of_squares();
    }
    factor = rsqrtf(block_sum(sum, partial) / a.k + a.norm_eps);
  }
  for (int piece = mine; piece < pieces; piece += threads) {
    ArrangePiece<T> p;  // zeros: a piece may lie behind k
    if (piece == mine) {
      p = first;
    } else {
      p.load(x, piece * 32, a.k);
    }
    if (a.norm_weight != nullptr) p.scale(factor, a.norm_weight, piece * 32, a.k);
    p.store(out, token, piece, tokens);
  }
}

}  // namespace detail

}  // namespace lmd::kernels
