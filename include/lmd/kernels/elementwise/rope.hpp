/// \file  Rotary position embedding, host backend: angles, and the rotation of one head.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/core/activation.hpp>
#include <lmd/core/backend.hpp>

#include <cmath>
#include <cstdint>

namespace lmd::kernels {

struct RotationArgs {
  float* rotation = nullptr;       ///< [n, head_dim]: cosines, then sines, of head_dim / 2 angles
  const int* positions = nullptr;  ///< [n]
  const double* bases = nullptr;   ///< [n] base' of each token's sequence
  double position_scale = 1.0;     ///< positions are multiplied by it (linear scaling)
  int n = 0;                       ///< tokens
  int head_dim = 0;
};

/// angle[i, r] = position[i] * base[i]^(-2 r / head_dim), computed in double: at position 1e6 a
/// float angle would be off by 0.06 radians.
inline void rope_rotation(Host, const RotationArgs& a) {
  const int half = a.head_dim / 2;
  for (int i = 0; i < a.n; ++i) {
    float* cosines = a.rotation + std::int64_t{i} * a.head_dim;
    const double position = a.positions[i] * a.position_scale;
    for (int r = 0; r < half; ++r) {
      const double angle = position * std::pow(a.bases[i], -2.0 * r / a.head_dim);
      cosines[r] = static_cast<float>(std::cos(angle));
      cosines[half + r] = static_cast<float>(std::sin(angle));
    }
  }
}

/// Rotates pairs (r, r + head_dim / 2) of one head in place: the order of Hugging Face's tensors.
template <Activation T>
void rotate_head(T* head, const float* rotation, int head_dim) {
  const int half = head_dim / 2;
  for (int r = 0; r < half; ++r) {
    const float x = to_float(head[r]);
    const float y = to_float(head[half + r]);
    head[r] = from_float<T>(x * rotation[r] - y * rotation[half + r]);
    head[half + r] = from_float<T>(y * rotation[r] + x * rotation[half + r]);
  }
}

/// The base of a sequence whose prompt has `length` tokens:
///
///   base' = base * (f * length / max_position - (f - 1)) ^ (d / (d - 2))   beyond max_position
///
/// It is fixed when the sequence starts, so that all of its cached keys agree.
/// Source: dynamic NTK scaling as in InternLM2; the fixing at the start as in TurboMind.
[[nodiscard]] inline double dynamic_ntk_base(
    double base, double factor, int max_position, int head_dim, int length) {
  if (factor <= 1.0 || length <= max_position) return base;
  const double stretch = factor * length / max_position - (factor - 1.0);
  return base * std::pow(stretch, head_dim / (head_dim - 2.0));
}

}  // namespace lmd::kernels
