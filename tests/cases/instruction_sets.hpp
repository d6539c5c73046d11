/// \file  The instruction sets that a test can run here.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/core/cpu_features.hpp>

#include <vector>

namespace lmd::test {

[[nodiscard]] inline std::vector<CpuIsa> runnable_isas() {
  std::vector<CpuIsa> isas;
  for (const CpuIsa isa : {CpuIsa::kScalar, CpuIsa::kAvx2, CpuIsa::kAvx512}) {
    if (isa <= best_cpu_isa()) isas.push_back(isa);
  }
  return isas;
}

}  // namespace lmd::test
