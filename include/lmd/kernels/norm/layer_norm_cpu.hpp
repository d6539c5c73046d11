/// \file  LayerNorm with an optional residual, Cpu backend.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/core/cpu_features.hpp>
#include <lmd/kernels/norm/layer_norm.hpp>
#include <lmd/kernels/norm/row_sums.hpp>
#include <lmd/kernels/primitive/row_ranges.hpp>

#include <cmath>

#define LMD_SIMD_BODY_ <lmd/kernels/norm/layer_norm_cpu.inc>
#include <lmd/kernels/primitive/for_each_isa.inc>

namespace lmd::kernels {

using LayerNormFunction = void (*)(Cpu, const LayerNormArgs&);

/// The function for an instruction set that the processor has.
[[nodiscard]] inline LayerNormFunction select_layer_norm(CpuIsa isa) {
#if defined(__x86_64__)
  if (isa == CpuIsa::kAvx512) return &avx512::layer_norm;
  if (isa == CpuIsa::kAvx2) return &avx2::layer_norm;
#endif
  return &scalar::layer_norm;
}

/// As the definition, with mean and sums in f32. A row's result does not depend on other rows.
///
/// Oracle:  layer_norm(Host, ...)
inline void layer_norm(Cpu ctx, const LayerNormArgs& a) {
  static const LayerNormFunction chosen = select_layer_norm(best_cpu_isa());
  chosen(ctx, a);
}

}  // namespace lmd::kernels
