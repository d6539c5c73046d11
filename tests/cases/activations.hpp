/// \file  Random activations of any type, and how far apart their values lie.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/core/activation.hpp>

#include <cmath>
#include <vector>

#include "cases/random.hpp"

namespace lmd::test {

template <Activation T>
[[nodiscard]] std::vector<T> random_activations(std::int64_t n,
                                                std::uint64_t seed,
                                                float scale = 1.0f) {
  Random random(seed);
  std::vector<T> x(static_cast<std::size_t>(n));
  for (T& value : x)
    value = from_float<T>(scale * random.normal());
  return x;
}

/// The distance between neighbours of type T near a number of this size: results that differ by less
/// before they are rounded differ by at most this much behind it.
template <Activation T>
[[nodiscard]] double spacing(double size) {
  constexpr int kMantissa = std::same_as<T, Half> ? 10 : std::same_as<T, BFloat16> ? 7 : 23;
  constexpr int kLeast = std::same_as<T, Half> ? -14 : -126;
  int exponent = kLeast;
  if (size > std::ldexp(1.0, kLeast)) {
    (void)std::frexp(size, &exponent);
    exponent -= 1;
  }
  return std::ldexp(1.0, exponent - kMantissa);
}

}  // namespace lmd::test
