/// \file  Integer helpers that every layout needs.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/core/config.hpp>

#include <cstdint>

namespace lmd {

/// The smallest integer not less than n / d, for n >= 0 and d > 0.
template <class T>
LMD_HD constexpr T ceil_div(T n, T d) {
  return (n + d - 1) / d;
}

/// The smallest multiple of `step` that is not less than `n`.
template <class T>
LMD_HD constexpr T round_up(T n, T step) {
  return ceil_div(n, step) * step;
}

/// Sets `out` to a * b and returns true, unless the product of the two non-negative numbers
/// overflows (or one is negative): then returns false. For sizes that come from files.
[[nodiscard]] inline bool checked_mul(std::int64_t a, std::int64_t b, std::int64_t& out) {
  return a >= 0 && b >= 0 && !__builtin_mul_overflow(a, b, &out);
}

}  // namespace lmd
