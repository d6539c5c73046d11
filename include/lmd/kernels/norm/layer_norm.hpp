/// \file  LayerNorm with an optional residual, host backend: the definition of the operation.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/core/backend.hpp>

#include <cmath>
#include <cstdint>

namespace lmd::kernels {

struct LayerNormArgs {
  float* out = nullptr;             ///< [m, n]; may be x itself
  float* x = nullptr;               ///< [m, n]; with a residual, x + residual is stored here first
  const float* residual = nullptr;  ///< [m, n] or null
  const float* weight = nullptr;    ///< [n]
  const float* bias = nullptr;      ///< [n]
  float eps = 0.0f;
  int m = 0;
  int n = 0;
};

/// x += residual;  out = (x - mean(x)) / sqrt(var(x) + eps) * weight + bias, var without Bessel's
/// correction. Source: Ba, Kiros and Hinton, Layer Normalization, 2016.
inline void layer_norm(Host, const LayerNormArgs& a) {
  for (std::int64_t i = 0; i < a.m; ++i) {
    float* x = a.x + i * a.n;
    if (a.residual != nullptr) {
      for (int j = 0; j < a.n; ++j)
        x[j] += a.residual[i * a.n + j];
    }
    double sum = 0.0;
    for (int j = 0; j < a.n; ++j)
      sum += x[j];
    const double mean = sum / a.n;
    double squares = 0.0;
    for (int j = 0; j < a.n; ++j)
      squares += (x[j] - mean) * (x[j] - mean);
    const double scale = 1.0 / std::sqrt(squares / a.n + a.eps);
    for (int j = 0; j < a.n; ++j) {
      a.out[i * a.n + j] = static_cast<float>((x[j] - mean) * scale) * a.weight[j] + a.bias[j];
    }
  }
}

}  // namespace lmd::kernels
