/// \file  GELU, the exact form with erf, host backend: the definition of the operation.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/core/activation.hpp>
#include <lmd/core/backend.hpp>

#include <cmath>
#include <cstdint>

namespace lmd::kernels {

template <Activation T>
struct BasicGeluArgs {
  T* out = nullptr;      ///< [n]; may be x itself
  const T* x = nullptr;  ///< [n]
  std::int64_t n = 0;
};
using GeluArgs = BasicGeluArgs<float>;

/// out = x / 2 * (1 + erf(x / sqrt 2)). Not the tanh form: that differs by up to 1e-3.
template <Activation T = float>
void gelu(Host, const BasicGeluArgs<T>& a) {
  constexpr float kInvSqrt2 = 0.70710678f;
  for (std::int64_t i = 0; i < a.n; ++i) {
    const float x = to_float(a.x[i]);
    a.out[i] = from_float<T>(0.5f * x * (1.0f + std::erf(x * kInvSqrt2)));
  }
}

}  // namespace lmd::kernels
