/// \file  Which instruction sets this processor has, as one value that kernels are chosen by.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/core/error.hpp>

#include <cstdlib>
#include <cstring>
#include <string>

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

/// The environment's upper bound; none where it is not set.
/// \throws Error(kConfig) for a name that is none.
[[nodiscard]] inline CpuIsa allowed_cpu_isa() {
  const char* name = std::getenv("LMD_MAX_CPU_ISA");
  if (name == nullptr || *name == '\0') return CpuIsa::kAvx512;
  for (const CpuIsa isa : {CpuIsa::kScalar, CpuIsa::kAvx2, CpuIsa::kAvx512}) {
    if (std::strcmp(name, to_string(isa)) == 0) return isa;
  }
  throw Error(ErrorCode::kConfig,
              "LMD_MAX_CPU_ISA must be scalar, avx2 or avx512, not " + std::string(name));
}

}  // namespace detail

/// The best set that this processor and its operating system support and that the environment
/// variable LMD_MAX_CPU_ISA (scalar, avx2, avx512) allows: how one machine measures and tests what
/// another one runs. Asked once: cpuid traps to the hypervisor of a virtual machine, which took
/// 20 us on an EPYC (2026-11-22).
/// \throws Error(kConfig) where the variable holds another name.
[[nodiscard]] inline CpuIsa best_cpu_isa() {
  static const CpuIsa best = [] {
    const CpuIsa allowed = detail::allowed_cpu_isa();
    const CpuIsa found = detail::query_cpu_isa();
    return found < allowed ? found : allowed;
  }();
  return best;
}

}  // namespace lmd
