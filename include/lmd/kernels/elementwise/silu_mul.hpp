/// \file  The gate of a SwiGLU MLP, host backend: the definition of the operation.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/core/activation.hpp>
#include <lmd/core/backend.hpp>

#include <cmath>
#include <cstdint>

namespace lmd::kernels {

template <Activation T>
struct BasicSiluMulArgs {
  T* out = nullptr;            ///< [m, n]
  const T* gate_up = nullptr;  ///< [m, 2 n]: gate, then up
  int m = 0;
  int n = 0;
};
using SiluMulArgs = BasicSiluMulArgs<float>;

/// out = silu(gate) * up with silu(x) = x / (1 + exp(-x)).
template <Activation T = float>
void silu_mul(Host, const BasicSiluMulArgs<T>& a) {
  for (std::int64_t i = 0; i < a.m; ++i) {
    const T* gate = a.gate_up + i * 2 * a.n;
    const T* up = gate + a.n;
    for (int j = 0; j < a.n; ++j) {
      const float g = to_float(gate[j]);
      a.out[i * a.n + j] = from_float<T>(g / (1.0f + std::exp(-g)) * to_float(up[j]));
    }
  }
}

}  // namespace lmd::kernels
