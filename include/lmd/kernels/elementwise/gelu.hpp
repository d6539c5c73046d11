/// \file  GELU, the exact form with erf, host backend: the definition of the operation.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/core/backend.hpp>

#include <cmath>
#include <cstdint>

namespace lmd::kernels {

struct GeluArgs {
  float* out = nullptr;      ///< [n]; may be x itself
  const float* x = nullptr;  ///< [n]
  std::int64_t n = 0;
};

/// out = x / 2 * (1 + erf(x / sqrt 2)). Not the tanh form: that differs by up to 1e-3.
inline void gelu(Host, const GeluArgs& a) {
  constexpr float kInvSqrt2 = 0.70710678f;
  for (std::int64_t i = 0; i < a.n; ++i) {
    a.out[i] = 0.5f * a.x[i] * (1.0f + std::erf(a.x[i] * kInvSqrt2));
  }
}

}  // namespace lmd::kernels
