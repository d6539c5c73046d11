/// \file  Embedding lookup over any weight format, Cpu backend.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/core/cpu_features.hpp>
#include <lmd/kernels/elementwise/embed.hpp>
#include <lmd/kernels/linear/weight_block.hpp>
#include <lmd/kernels/primitive/row_ranges.hpp>

#include <algorithm>
#include <cstring>

#define LMD_SIMD_BODY_ <lmd/kernels/elementwise/embed_cpu.inc>
#include <lmd/kernels/primitive/for_each_isa.inc>

namespace lmd::kernels {

using EmbedFunction = void (*)(Cpu, const EmbedArgs&);

/// The function for an instruction set that the processor has.
template <CpuLinearPolicy P>
[[nodiscard]] EmbedFunction select_embed(CpuIsa isa) {
#if defined(__x86_64__)
  if (isa == CpuIsa::kAvx512) return &avx512::embed<P>;
  if (isa == CpuIsa::kAvx2) return &avx2::embed<P>;
#endif
  return &scalar::embed<P>;
}

/// The very floats of the definition.
///
/// Oracle:  embed(Host, ...)
template <CpuLinearPolicy P>
void embed(Cpu ctx, const EmbedArgs& a) {
  static const EmbedFunction chosen = select_embed<P>(best_cpu_isa());
  chosen(ctx, a);
}

}  // namespace lmd::kernels
