/// \file  Random numbers that are the same on every machine: std's distributions are not.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cmath>
#include <cstdint>
#include <vector>

namespace lmd::test {

/// SplitMix64. Source: Steele, Lea and Flood, Fast splittable pseudorandom number generators, 2014.
class Random {
 public:
  explicit Random(std::uint64_t seed) : state_(seed) {}

  std::uint64_t bits() {
    std::uint64_t z = state_ += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
  }
  /// In [0, 1).
  double uniform() { return static_cast<double>(bits() >> 11) * 0x1p-53; }
  int below(int n) { return static_cast<int>(uniform() * n); }
  /// Close to normal (a sum of 12 uniform numbers), mean 0, deviation 1.
  float normal() {
    double sum = -6.0;
    for (int i = 0; i < 12; ++i)
      sum += uniform();
    return static_cast<float>(sum);
  }

 private:
  std::uint64_t state_;
};

inline std::vector<float> random_floats(std::int64_t n, std::uint64_t seed) {
  Random random(seed);
  std::vector<float> x(static_cast<std::size_t>(n));
  for (float& value : x)
    value = random.normal();
  return x;
}

}  // namespace lmd::test
