/// \file  Linear layer over any weight format, host backend: the definition of the operation.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/core/backend.hpp>
#include <lmd/core/math.hpp>
#include <lmd/kernels/linear/policy.hpp>
#include <lmd/kernels/sample/rank_key.hpp>

#include <algorithm>
#include <cmath>
#include <vector>

namespace lmd::kernels {

/// What happens to the product p = x w^T + bias.
enum class LinearEpilogue {
  kStore,    ///< y = p
  kAdd,      ///< y += p: the residual stream
  kSiluMul,  ///< y = silu(gate) * up, [m, n / 2]: see gate_row and up_row
  kBest,     ///< no y, but `best`: the greedy choice of a token begins here. Host and Cuda
};

/// Neighbouring features of which kBest keeps one.
inline constexpr int kBestFeatures = 16;

/// Keys that kBest leaves for each token.
LMD_HD int best_parts(int n) {
  return ceil_div(n, kBestFeatures);
}

/// Where kSiluMul finds the two factors of its output i among the n features: in blocks of 16, eight
/// gates and then the eight values that they gate, so that a tile of 16 rows holds both.
LMD_HD int gate_row(int i) {
  return i / 8 * 16 + i % 8;
}
LMD_HD int up_row(int i) {
  return gate_row(i) + 8;
}

/// Plain data, the same for every backend and every policy. T is the type of activations.
template <Activation T>
struct BasicLinearArgs {
  T* y = nullptr;                       ///< [m, n], rows y_stride apart
  float* y_f32 = nullptr;               ///< kStore writes here, unrounded, instead: logits; or null
  std::uint64_t* best = nullptr;        ///< [m, best_parts(n)] of kBest: rank keys, features as ids
  const T* x = nullptr;                 ///< [m, k], rows x_stride apart
  const std::uint8_t* codes = nullptr;  ///< [n, k] codes in the policy's order
  const std::uint8_t* params = nullptr;  ///< [n, k / group] of the format's Params
  const float* bias = nullptr;           ///< [n] or null
  int m = 0;                             ///< tokens
  int n = 0;                             ///< output features
  int k = 0;                             ///< input features
  std::int64_t x_stride = 0;             ///< elements, at least k
  std::int64_t y_stride = 0;             ///< elements, at least n
  LinearEpilogue epilogue = LinearEpilogue::kStore;
  /// [k] or null: x is RMS-normalised first, x' = x / rms(x) * norm_weight, rounded to T. Host and
  /// Cuda; Cpu has it as an operation of its own, and neither it nor kSiluMul here.
  const float* norm_weight = nullptr;
  float norm_eps = 0.0f;
};
using LinearArgs = BasicLinearArgs<float>;

namespace detail {

/// Row i of x as the product reads it.
template <Activation T>
std::vector<float> linear_input(const BasicLinearArgs<T>& a, int i) {
  std::vector<float> x(a.k);
  for (int l = 0; l < a.k; ++l)
    x[l] = to_float(a.x[i * a.x_stride + l]);
  if (a.norm_weight == nullptr) return x;
  double squares = 0;
  for (const float value : x)
    squares += double{value} * value;
  const auto scale = static_cast<float>(1.0 / std::sqrt(squares / a.k + a.norm_eps));
  for (int l = 0; l < a.k; ++l)
    x[l] = to_float(from_float<T>(x[l] * scale * a.norm_weight[l]));
  return x;
}

}  // namespace detail

/// y[i, j] = sum_l x[i, l] w[j, l] + bias[j], accumulated in f32; `epilogue` says more.
template <LinearPolicy P>
void linear(Host, const BasicLinearArgs<typename P::Act>& a) {
  using T = typename P::Act;
  using Params = typename P::Format::Params;
  const typename P::Weights w{a.codes, reinterpret_cast<const Params*>(a.params), a.k, a.n};
  for (int i = 0; i < a.m; ++i) {
    const std::vector<float> x = detail::linear_input(a, i);
    const auto product = [&](int j) {
      float acc = 0.0f;
      for (int l = 0; l < a.k; ++l)
        acc += x[l] * w.weight(j, l);
      return a.bias == nullptr ? acc : acc + a.bias[j];
    };
    if (a.y_f32 != nullptr && a.epilogue == LinearEpilogue::kStore) {
      for (int j = 0; j < a.n; ++j)
        a.y_f32[i * a.y_stride + j] = product(j);
      continue;
    }
    if (a.epilogue == LinearEpilogue::kBest) {
      std::uint64_t* best = a.best + std::int64_t{i} * best_parts(a.n);
      std::fill_n(best, best_parts(a.n), kNoKey);
      for (int j = 0; j < a.n; ++j) {
        std::uint64_t& of_part = best[j / kBestFeatures];
        of_part = std::min(of_part, checked_rank_key(product(j), j));
      }
      continue;
    }
    T* y = a.y + i * a.y_stride;
    if (a.epilogue == LinearEpilogue::kSiluMul) {
      for (int j = 0; j < a.n / 2; ++j) {
        const float gate = product(gate_row(j));
        y[j] = from_float<T>(gate / (1.0f + std::exp(-gate)) * product(up_row(j)));
      }
      continue;
    }
    for (int j = 0; j < a.n; ++j) {
      const float p = product(j);
      y[j] = from_float<T>(a.epilogue == LinearEpilogue::kAdd ? to_float(y[j]) + p : p);
    }
  }
}

}  // namespace lmd::kernels
