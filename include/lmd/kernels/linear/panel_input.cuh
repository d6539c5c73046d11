/// \file  How the blocks of the panel linear layer arrange its activations, before any of them multiplies.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/core/math.hpp>
#include <lmd/kernels/linear/arrange_input.cuh>
#include <lmd/kernels/primitive/async_copy.cuh>
#include <lmd/kernels/primitive/block_sum.cuh>
#include <lmd/kernels/primitive/signal.cuh>

namespace lmd::kernels::detail {

template <Activation T>
struct PanelArgs {
  BasicLinearArgs<T> linear;
  std::uint8_t* x;  ///< arranged, panel after panel
  int columns;      ///< of it
  int* counter;     ///< zero before and after
  int cluster;      ///< blocks that share out k
};

/// Pieces of 32 columns that a lane arranges, and columns of a warp.
inline constexpr int kArrangePieces = 2;
inline constexpr int kArrangeColumns = kArrangePieces * 32 * 32;

/// kArrangeColumns of a row from `first` on -> out, normalised where the layer has a norm. A whole warp calls it.
template <class S>
__device__ __forceinline__ void arrange_part(const PanelArgs<typename S::T>& args,
                                             int token,
                                             int first) {
  using T = typename S::T;
  const BasicLinearArgs<T>& a = args.linear;
  const T* row = a.x + token * a.x_stride;
  const int lane = threadIdx.x % 32;
  ArrangePiece<T> p[kArrangePieces];
#pragma unroll
  for (int i = 0; i < kArrangePieces; ++i)
    p[i].load(row, first + (lane + i * 32) * 32, a.k);
  if (a.norm_weight != nullptr) {
    float sum = 0.0f;
#pragma unroll
    for (int i = 0; i < kArrangePieces; ++i)
      sum += p[i].sum_of_squares();
    for (int column = lane * 32; column < a.k; column += 1024) {
      if (column >= first && column < first + kArrangeColumns) continue;
      ArrangePiece<T> other;
      other.load(row, column, a.k);
      sum += other.sum_of_squares();
    }
    const float factor = rsqrtf(warp_sum(sum) / a.k + a.norm_eps);
#pragma unroll
    for (int i = 0; i < kArrangePieces; ++i)
      p[i].scale(factor, a.norm_weight, first + (lane + i * 32) * 32, a.k);
  }
  std::uint8_t* out = args.x + token / S::kTokens * arranged_bytes(S::kTokens, args.columns);
#pragma unroll
  for (int i = 0; i < kArrangePieces; ++i) {
    const int piece = first / 32 + lane + i * 32;
    if (piece < args.columns / 32) p[i].store(out, token % S::kTokens, piece, S::kTokens);
  }
}

/// The warps of all blocks arrange x, a part of a row each, and blocks tell each other. Returns when all is
/// there for copies of this block's first thread.
template <class S>
__device__ __forceinline__ void arrange_panels(const PanelArgs<typename S::T>& args) {
  const int of_row = ceil_div(args.columns, kArrangeColumns);
  const int parts = args.linear.m * of_row;
  const auto blocks = static_cast<int>(gridDim.x);
  const auto block = static_cast<int>(blockIdx.x);
#pragma unroll 1
  for (int i = static_cast<int>(threadIdx.x) / 32 * blocks + block; i < parts;
       i += S::kWarps * blocks) {
    const int token = i / of_row;
    arrange_part<S>(args, token, (i - token * of_row) * kArrangeColumns);
  }
  fence_before_global_copies();
  __syncthreads();
  if (threadIdx.x != 0) return;
  if (block < parts) add_release(args.counter, ceil_div(parts - block, blocks));
  while (load_acquire(args.counter) < parts) {
  }
  fence_before_global_copies();
  // The last block to have seen all parts leaves the counter as it was.
  if (atomicAdd(args.counter, 1) == parts + blocks - 1) atomicExch(args.counter, 0);
}

}  // namespace lmd::kernels::detail
