/// \file  LayerNorm with an optional residual, host backend: the definition of the operation.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/core/activation.hpp>
#include <lmd/core/backend.hpp>

#include <cmath>
#include <cstdint>

namespace lmd::kernels {

/// T is the type of activations; gains and biases are f32.
template <Activation T>
struct BasicLayerNormArgs {
  T* out = nullptr;               ///< [m, n]; may be x itself
  T* x = nullptr;                 ///< [m, n]; with a residual, x + residual is stored here first
  const T* residual = nullptr;    ///< [m, n] or null
  const float* weight = nullptr;  ///< [n]
  const float* bias = nullptr;    ///< [n]
  float eps = 0.0f;
  int m = 0;
  int n = 0;
};
using LayerNormArgs = BasicLayerNormArgs<float>;

/// x += residual;  out = (x - mean(x)) / sqrt(var(x) + eps) * weight + bias, with x as it was
/// stored and var without Bessel's correction.
/// Source: Ba, Kiros and Hinton, Layer Normalization, 2016.
template <Activation T = float>
void layer_norm(Host, const BasicLayerNormArgs<T>& a) {
  for (std::int64_t i = 0; i < a.m; ++i) {
    T* x = a.x + i * a.n;
    if (a.residual != nullptr) {
      for (int j = 0; j < a.n; ++j)
        x[j] = from_float<T>(to_float(x[j]) + to_float(a.residual[i * a.n + j]));
    }
    double sum = 0.0;
    for (int j = 0; j < a.n; ++j)
      sum += to_float(x[j]);
    const double mean = sum / a.n;
    double squares = 0.0;
    for (int j = 0; j < a.n; ++j)
      squares += (to_float(x[j]) - mean) * (to_float(x[j]) - mean);
    const double scale = 1.0 / std::sqrt(squares / a.n + a.eps);
    for (int j = 0; j < a.n; ++j) {
      const auto at = static_cast<float>((to_float(x[j]) - mean) * scale);
      a.out[i * a.n + j] = from_float<T>(at * a.weight[j] + a.bias[j]);
    }
  }
}

}  // namespace lmd::kernels
