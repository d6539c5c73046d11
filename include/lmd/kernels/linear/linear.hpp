/// \file  Linear layer over any weight format, host backend: the definition of the operation.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/core/backend.hpp>
#include <lmd/kernels/linear/policy.hpp>

namespace lmd::kernels {

/// What happens to the product.
enum class LinearEpilogue {
  kStore,  ///< y = x w^T + bias
  kAdd,    ///< y += x w^T + bias: the residual stream
};

/// Plain data, the same for every backend and every policy.
struct LinearArgs {
  float* y = nullptr;                    ///< [m, n], rows y_stride apart
  const float* x = nullptr;              ///< [m, k], rows x_stride apart
  const std::uint8_t* codes = nullptr;   ///< [n, k] codes in the policy's order
  const std::uint8_t* params = nullptr;  ///< [n, k / group] of the format's Params
  const float* bias = nullptr;           ///< [n] or null
  int m = 0;                             ///< tokens
  int n = 0;                             ///< output features
  int k = 0;                             ///< input features
  std::int64_t x_stride = 0;             ///< elements, at least k
  std::int64_t y_stride = 0;             ///< elements, at least n
  LinearEpilogue epilogue = LinearEpilogue::kStore;
};

/// y[i, j] = sum_l x[i, l] w[j, l] + bias[j], accumulated in f32.
template <LinearPolicy P>
void linear(Host, const LinearArgs& a) {
  using Params = typename P::Format::Params;
  const typename P::Weights w{a.codes, reinterpret_cast<const Params*>(a.params), a.k, a.n};
  for (int i = 0; i < a.m; ++i) {
    for (int j = 0; j < a.n; ++j) {
      float acc = 0.0f;
      for (int l = 0; l < a.k; ++l)
        acc += a.x[i * a.x_stride + l] * w.weight(j, l);
      if (a.bias != nullptr) acc += a.bias[j];
      float& y = a.y[i * a.y_stride + j];
      y = a.epilogue == LinearEpilogue::kAdd ? y + acc : acc;
    }
  }
}

}  // namespace lmd::kernels
