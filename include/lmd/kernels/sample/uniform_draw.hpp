/// \file  The random number of a draw, the same on every backend.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/core/config.hpp>

#include <cstdint>

namespace lmd::kernels {

/// A number in [0, 1) that depends on its two arguments alone (the finaliser of SplitMix64, twice):
/// nothing is kept between draws, so that a recorded step can be replayed.
LMD_HD double uniform_draw(std::uint64_t seed, std::uint64_t position) {
  std::uint64_t h = seed;
  for (int round = 0; round < 2; ++round) {
    h = (h ^ (round == 0 ? position : std::uint64_t{0x243f6a8885a308d3})) + 0x9e3779b97f4a7c15u;
    h = (h ^ (h >> 30)) * 0xbf58476d1ce4e5b9u;
    h = (h ^ (h >> 27)) * 0x94d049bb133111ebu;
    h ^= h >> 31;
  }
  return static_cast<double>(h >> 11) * 0x1p-53;
}

}  // namespace lmd::kernels
