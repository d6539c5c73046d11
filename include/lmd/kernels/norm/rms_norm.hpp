/// \file  RMSNorm with an optional residual, host backend: the definition of the operation.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/core/backend.hpp>

#include <cmath>
#include <cstdint>

namespace lmd::kernels {

struct RmsNormArgs {
  float* out = nullptr;             ///< [m, n]; may be x itself
  float* x = nullptr;               ///< [m, n]; with a residual, x + residual is stored here first
  const float* residual = nullptr;  ///< [m, n] or null
  const float* weight = nullptr;    ///< [n]
  float eps = 0.0f;
  int m = 0;
  int n = 0;
};

/// x += residual;  out = x / sqrt(mean(x^2) + eps) * weight.
/// Source: Zhang and Sennrich, Root Mean Square Layer Normalization, 2019.
inline void rms_norm(Host, const RmsNormArgs& a) {
  for (std::int64_t i = 0; i < a.m; ++i) {
    float* x = a.x + i * a.n;
    if (a.residual != nullptr) {
      for (int j = 0; j < a.n; ++j)
        x[j] += a.residual[i * a.n + j];
    }
    double squares = 0.0;
    for (int j = 0; j < a.n; ++j)
      squares += static_cast<double>(x[j]) * x[j];
    const auto scale = static_cast<float>(1.0 / std::sqrt(squares / a.n + a.eps));
    for (int j = 0; j < a.n; ++j)
      a.out[i * a.n + j] = x[j] * scale * a.weight[j];
  }
}

}  // namespace lmd::kernels
