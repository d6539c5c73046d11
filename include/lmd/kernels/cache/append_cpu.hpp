/// \file  RoPE and the write into the open page, Cpu backend.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/core/cpu_features.hpp>
#include <lmd/core/task_runner.hpp>
#include <lmd/kernels/cache/append.hpp>
#include <lmd/kernels/primitive/simd.hpp>

#define LMD_SIMD_BODY_ <lmd/kernels/cache/append_cpu.inc>
#include <lmd/kernels/primitive/for_each_isa.inc>

namespace lmd::kernels {

/// append for KV heads [begin, end) and their queries; head_dim % 32 == 0.
using AppendHeads = void (*)(const AppendArgs&, int begin, int end);

/// The function for an instruction set that the processor has.
[[nodiscard]] inline AppendHeads select_append_heads(CpuIsa isa) {
#if defined(__x86_64__)
  if (isa == CpuIsa::kAvx512) return &avx512::append_heads;
  if (isa == CpuIsa::kAvx2) return &avx2::append_heads;
#endif
  (void)isa;
  return &scalar::append_heads;
}

/// A KV head is one task. head_dim % 32 == 0.
///
/// Oracle:  append(Host, ...): equal but for one rounding of a product, where the processor has fma
inline void append(Cpu ctx, const AppendArgs& a) {
  static const AppendHeads chosen = select_append_heads(best_cpu_isa());
  parallel_ranges(ctx.pool, a.kv_heads, 1, [&](std::int64_t begin, std::int64_t end) {
    chosen(a, static_cast<int>(begin), static_cast<int>(end));
  });
}

}  // namespace lmd::kernels
