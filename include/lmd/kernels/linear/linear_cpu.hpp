/// \file  Linear layer over any weight format, Cpu backend: SIMD on the pool's threads.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/core/buffer.hpp>
#include <lmd/core/cpu_features.hpp>
#include <lmd/core/math.hpp>
#include <lmd/core/thread_pool.hpp>
#include <lmd/kernels/linear/linear.hpp>
#include <lmd/kernels/linear/weight_block.hpp>

#include <algorithm>
#include <cstring>

namespace lmd::kernels {

/// Tiles of y that one thread works on at a time. Speed only: y does not depend on them.
struct LinearTiling {
  static constexpr int kPanelRows = 24;  ///< rows of w held as floats
  static constexpr int kPanelInputs =
      1024;                             ///< inputs of them: 96 KiB stay in the second-level cache
  static constexpr int kTokens = 192;   ///< rows of x that a panel is used for
  static constexpr int kMaxLanes = 16;  ///< of a register of any instruction set
};

/// What a thread needs between two rows: allocated once, at its first product of m > 1.
struct LinearScratch {
  /// From one row of the panel to the next: a line more than its inputs, so that rows of a tile do
  /// not meet in the same set of the first-level cache.
  static constexpr int kStride = LinearTiling::kPanelInputs + 16;

  Buffer<float> panel{std::int64_t{LinearTiling::kPanelRows} * kStride};
  Buffer<float> sums{std::int64_t{LinearTiling::kTokens} * LinearTiling::kPanelRows *
                     LinearTiling::kMaxLanes};  ///< unfinished, where k > kPanelInputs

  static LinearScratch& of_this_thread() {
    static thread_local LinearScratch scratch;
    return scratch;
  }
};

}  // namespace lmd::kernels

#define LMD_SIMD_BODY_ <lmd/kernels/linear/linear_row.inc>
#include <lmd/kernels/primitive/for_each_isa.inc>
#define LMD_SIMD_BODY_ <lmd/kernels/linear/linear_cpu.inc>
#include <lmd/kernels/primitive/for_each_isa.inc>

namespace lmd::kernels {

using LinearFunction = void (*)(Cpu, const LinearArgs&);

/// The function for an instruction set that the processor has.
template <CpuLinearPolicy P>
[[nodiscard]] LinearFunction select_linear(CpuIsa isa) {
#if defined(__x86_64__)
  if (isa == CpuIsa::kAvx512) return &avx512::linear<P>;
  if (isa == CpuIsa::kAvx2) return &avx2::linear<P>;
#endif
  return &scalar::linear<P>;
}

/// y[i, j] = sum_l x[i, l] w[j, l] + bias[j] with exact activations, accumulated in f32.
///
/// Lane (l mod lanes) of one register adds up w * x in order of l, then the lanes are added by one
/// fixed tree: y[i, j] depends on x[i], w[j] and the instruction set alone, not on m, on the number
/// of threads or on other rows.
///
/// Shapes:  k a multiple of the group, of 32 under 4 bits; any m and n.
/// Layout:  4-bit codes in PairedOrder; codes aligned to their element.
/// Oracle:  linear(Host, ...)
template <CpuLinearPolicy P>
void linear(Cpu ctx, const LinearArgs& a) {
  static const LinearFunction chosen = select_linear<P>(best_cpu_isa());
  chosen(ctx, a);
}

}  // namespace lmd::kernels
