/// \file  RMSNorm with an optional residual, Cpu backend.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/core/cpu_features.hpp>
#include <lmd/kernels/norm/rms_norm.hpp>
#include <lmd/kernels/norm/row_sums.hpp>
#include <lmd/kernels/primitive/row_ranges.hpp>

#include <cmath>

#define LMD_SIMD_BODY_ <lmd/kernels/norm/rms_norm_cpu.inc>
#include <lmd/kernels/primitive/for_each_isa.inc>

namespace lmd::kernels {

using RmsNormFunction = void (*)(Cpu, const RmsNormArgs&);

/// The function for an instruction set that the processor has.
[[nodiscard]] inline RmsNormFunction select_rms_norm(CpuIsa isa) {
#if defined(__x86_64__)
  if (isa == CpuIsa::kAvx512) return &avx512::rms_norm;
  if (isa == CpuIsa::kAvx2) return &avx2::rms_norm;
#endif
  return &scalar::rms_norm;
}

/// As the definition, with sums in f32. A row's result does not depend on other rows.
///
/// Oracle:  rms_norm(Host, ...)
inline void rms_norm(Cpu ctx, const RmsNormArgs& a) {
  static const RmsNormFunction chosen = select_rms_norm(best_cpu_isa());
  chosen(ctx, a);
}

}  // namespace lmd::kernels
