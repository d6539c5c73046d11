/// \file  Which instruction sets this processor has, as one value that kernels are chosen by.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#if defined(__x86_64__)
#  include <cpuid.h>
#endif

namespace lmd {

/// Ordered: each set contains the ones before it. No kernel needs anything between two of them.
enum class CpuIsa {
  kScalar,  ///< plain C++
  kAvx2,    ///< AVX2, FMA, F16C
  kAvx512,  ///< AVX-512 F, BW, DQ, VL
};

[[nodiscard]] inline const char* to_string(CpuIsa isa) {
  return isa == CpuIsa::kAvx512 ? "avx512" : isa == CpuIsa::kAvx2 ? "avx2" : "scalar";
}

namespace detail {

[[nodiscard]] inline CpuIsa query_cpu_isa() {
#if defined(__x86_64__)
  __builtin_cpu_init();
  unsigned a = 0, b = 0, c = 0, d = 0;
  const bool has_f16c = __get_cpuid(1, &a, &b, &c, &d) != 0 && (c >> 29 & 1u) != 0;
  const bool has_avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && has_f16c;
  if (!has_avx2) return CpuIsa::kScalar;
  const bool has_avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                          __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
  return has_avx512 ? CpuIsa::kAvx512 : CpuIsa::kAvx2;
#else
  return CpuIsa::kScalar;
#endif
}

}  // namespace detail

/// The best set that this processor and its operating system support. The processor is asked once:
/// cpuid traps to the hypervisor of a virtual machine, which took 20 us on an EPYC (2026-11-22).
[[nodiscard]] inline CpuIsa best_cpu_isa() {
  static const CpuIsa best = detail::query_cpu_isa();
  return best;
}

}  // namespace lmd
