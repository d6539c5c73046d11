/// \file  The gate of a SwiGLU MLP, Cpu backend.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/core/cpu_features.hpp>
#include <lmd/kernels/elementwise/silu_mul.hpp>
#include <lmd/kernels/primitive/partial.hpp>
#include <lmd/kernels/primitive/row_ranges.hpp>
#include <lmd/kernels/primitive/simd_math.hpp>

#define LMD_SIMD_BODY_ <lmd/kernels/elementwise/silu_mul_cpu.inc>
#include <lmd/kernels/primitive/for_each_isa.inc>

namespace lmd::kernels {

using SiluMulFunction = void (*)(Cpu, const SiluMulArgs&);

/// The function for an instruction set that the processor has.
[[nodiscard]] inline SiluMulFunction select_silu_mul(CpuIsa isa) {
#if defined(__x86_64__)
  if (isa == CpuIsa::kAvx512) return &avx512::silu_mul;
  if (isa == CpuIsa::kAvx2) return &avx2::silu_mul;
#endif
  return &scalar::silu_mul;
}

/// out = silu(gate) * up, within 4 ulp of the definition where exp(-gate) is finite.
///
/// Oracle:  silu_mul(Host, ...)
inline void silu_mul(Cpu ctx, const SiluMulArgs& a) {
  static const SiluMulFunction chosen = select_silu_mul(best_cpu_isa());
  chosen(ctx, a);
}

}  // namespace lmd::kernels
