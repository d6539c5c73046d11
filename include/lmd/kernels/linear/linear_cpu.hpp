/// \file  Linear layer over any weight format, Cpu backend: SIMD on the pool's threads.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/core/buffer.hpp>
#include <lmd/core/cpu_features.hpp>
#include <lmd/core/math.hpp>
#include <lmd/core/task_runner.hpp>
#include <lmd/kernels/linear/linear.hpp>
#include <lmd/kernels/linear/weight_block.hpp>
#include <lmd/kernels/primitive/partial.hpp>

#include <algorithm>
#include <cstring>

namespace lmd::kernels {

/// Tiles of y that one thread works on at a time. Speed only: y does not depend on them.
struct LinearTiling {
  static constexpr int kColumns = 32;   ///< of a task: whole lines of y
  static constexpr int kTokens = 192;   ///< rows of x that a panel is used for
  static constexpr int kPanelRows = 8;  ///< rows of w held as floats
  /// Inputs of them: 20 KiB stay in the first-level cache, beside a tile's rows of x.
  static constexpr int kPanelInputs = 640;
  /// Inputs of w that are multiplied by a few rows of x, which stay in the first-level cache.
  static constexpr int kFewInputs = 1024;
  static constexpr int kMaxLanes = 16;  ///< of a register of any instruction set
};

/// What a thread needs between two rows: allocated once, at its first product of m > 1.
struct LinearScratch {
  Buffer<float> panel{std::int64_t{LinearTiling::kPanelRows} * LinearTiling::kPanelInputs};
  Buffer<float> sums{std::int64_t{LinearTiling::kTokens} * LinearTiling::kPanelRows *
                     LinearTiling::kMaxLanes};  ///< unfinished, where k takes more than one part
  Buffer<float> outputs{std::int64_t{LinearTiling::kTokens} *
                        LinearTiling::kColumns};  ///< of a task, before bias and epilogue

  static LinearScratch& of_this_thread() {
    static thread_local LinearScratch scratch;
    return scratch;
  }
};

}  // namespace lmd::kernels

#define LMD_SIMD_BODY_ <lmd/kernels/linear/linear_row.inc>
#include <lmd/kernels/primitive/for_each_isa.inc>
#define LMD_SIMD_BODY_ <lmd/kernels/linear/linear_few.inc>
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
