/// \file  RMSNorm with an optional residual, host backend: the definition of the operation.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/core/activation.hpp>
#include <lmd/core/backend.hpp>

#include <cmath>
#include <cstdint>

namespace lmd::kernels {

/// T is the type of activations; gains are f32.
template <Activation T>
struct BasicRmsNormArgs {
  T* out = nullptr;               ///< [m, n]; may be x itself
  T* x = nullptr;                 ///< [m, n]; with a residual, x + residual is stored here first
  const T* residual = nullptr;    ///< [m, n] or null
  const float* weight = nullptr;  ///< [n]
  float eps = 0.0f;
  int m = 0;
  int n = 0;
};
using RmsNormArgs = BasicRmsNormArgs<float>;

/// x += residual;  out = x / sqrt(mean(x^2) + eps) * weight, with x as it was stored.
/// Source: Zhang and Sennrich, Root Mean Square Layer Normalization, 2019.
template <Activation T = float>
void rms_norm(Host, const BasicRmsNormArgs<T>& a) {
  for (std::int64_t i = 0; i < a.m; ++i) {
    T* x = a.x + i * a.n;
    if (a.residual != nullptr) {
      for (int j = 0; j < a.n; ++j)
        x[j] = from_float<T>(to_float(x[j]) + to_float(a.residual[i * a.n + j]));
    }
    double squares = 0.0;
    for (int j = 0; j < a.n; ++j)
      squares += static_cast<double>(to_float(x[j])) * to_float(x[j]);
    const auto scale = static_cast<float>(1.0 / std::sqrt(squares / a.n + a.eps));
    for (int j = 0; j < a.n; ++j)
      a.out[i * a.n + j] = from_float<T>(to_float(x[j]) * scale * a.weight[j]);
  }
}

}  // namespace lmd::kernels
