/// \file  The types that activations may have, converted to and from f32 by one pair of names.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/core/bfloat16.hpp>
#include <lmd/core/half.hpp>

#include <concepts>

namespace lmd {

/// f32 on Host and Cpu; 16 bits on Cuda. Arithmetic is f32 everywhere.
template <class T>
concept Activation = std::same_as<T, float> || std::same_as<T, Half> || std::same_as<T, BFloat16>;

LMD_HD float to_float(float x) {
  return x;
}

/// Rounds to nearest, ties to even.
template <Activation T>
LMD_HD T from_float(float x) {
  if constexpr (std::same_as<T, Half>) {
    return to_half(x);
  } else if constexpr (std::same_as<T, BFloat16>) {
    return to_bfloat16(x);
  } else {
    return x;
  }
}

}  // namespace lmd
