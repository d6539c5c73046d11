/// \file  GELU, the exact form with erf, Cpu backend.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/core/cpu_features.hpp>
#include <lmd/core/math.hpp>
#include <lmd/kernels/elementwise/gelu.hpp>
#include <lmd/kernels/primitive/partial.hpp>
#include <lmd/kernels/primitive/row_ranges.hpp>
#include <lmd/kernels/primitive/simd_math.hpp>

#include <algorithm>

#define LMD_SIMD_BODY_ <lmd/kernels/elementwise/gelu_cpu.inc>
#include <lmd/kernels/primitive/for_each_isa.inc>

namespace lmd::kernels {

using GeluFunction = void (*)(Cpu, const GeluArgs&);

/// The function for an instruction set that the processor has.
[[nodiscard]] inline GeluFunction select_gelu(CpuIsa isa) {
#if defined(__x86_64__)
  if (isa == CpuIsa::kAvx512) return &avx512::gelu;
  if (isa == CpuIsa::kAvx2) return &avx2::gelu;
#endif
  return &scalar::gelu;
}

/// Within 1e-6 max(1, |x|) of the definition.
///
/// Oracle:  gelu(Host, ...)
inline void gelu(Cpu ctx, const GeluArgs& a) {
  static const GeluFunction chosen = select_gelu(best_cpu_isa());
  chosen(ctx, a);
}

}  // namespace lmd::kernels
