/// \file  The gate of a SwiGLU MLP, host backend: the definition of the operation.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/core/backend.hpp>

#include <cmath>
#include <cstdint>

namespace lmd::kernels {

struct SiluMulArgs {
  float* out = nullptr;            ///< [m, n]
  const float* gate_up = nullptr;  ///< [m, 2 n]: gate, then up
  int m = 0;
  int n = 0;
};

/// out = silu(gate) * up with silu(x) = x / (1 + exp(-x)).
inline void silu_mul(Host, const SiluMulArgs& a) {
  for (std::int64_t i = 0; i < a.m; ++i) {
    const float* gate = a.gate_up + i * 2 * a.n;
    const float* up = gate + a.n;
    for (int j = 0; j < a.n; ++j)
      a.out[i * a.n + j] = gate[j] / (1.0f + std::exp(-gate[j])) * up[j];
  }
}

}  // namespace lmd::kernels
