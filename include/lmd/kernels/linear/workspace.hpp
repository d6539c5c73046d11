/// \file  Device memory that linear layers for many tokens need beside their arguments.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/core/math.hpp>

#include <cstdint>

namespace lmd::kernels {

class DenseGemm;

/// Plain data; layers that run one after another share it.
struct LinearWorkspace {
  float* parts = nullptr;           ///< [tile_part_elements]
  int* counters = nullptr;          ///< [tile_counters], zero; zero again after every launch
  std::uint8_t* scratch = nullptr;  ///< [scratch_bytes], 256-byte aligned
  std::int64_t scratch_bytes = 0;   ///< linear_scratch_bytes, warpgroup_scratch_bytes at least
  DenseGemm* dense = nullptr;       ///< multiplies what has been decoded
};

namespace detail {

/// Offsets in bytes of what lies in the scratch.
struct LinearScratch {
  std::int64_t weights;  ///< [n, k] decoded, behind the normalised x [m, k]
  std::int64_t product;  ///< [m, n] before its epilogue
  std::int64_t bytes;

  LinearScratch(int m, int n, int k) {
    constexpr std::int64_t kAlignment = 256;
    constexpr std::int64_t kElementBytes = 2;
    weights = round_up(std::int64_t{m} * k * kElementBytes, kAlignment);
    product = weights + round_up(std::int64_t{n} * k * kElementBytes, kAlignment);
    bytes = product + round_up(std::int64_t{m} * n * kElementBytes, kAlignment);
  }
};

}  // namespace detail

/// Bytes of LinearWorkspace::scratch for layers of up to m tokens, n outputs and k inputs.
[[nodiscard]] inline std::int64_t linear_scratch_bytes(int m, int n, int k) {
  return detail::LinearScratch(m, n, k).bytes;
}

}  // namespace lmd::kernels
