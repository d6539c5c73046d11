/// \file  Parameters of a group as a lane of a product meets them: of rows g and g + 8.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/kernels/primitive/mma.cuh>
#include <lmd/quant/fragment_weights.hpp>

namespace lmd::kernels::detail {

/// The lower or the upper half of a pair, twice.
__device__ __forceinline__ std::uint32_t twice_low(std::uint32_t pair) {
  return __byte_perm(pair, pair, 0x1010);
}
__device__ __forceinline__ std::uint32_t twice_high(std::uint32_t pair) {
  return __byte_perm(pair, pair, 0x3232);
}

/// As they lie in a chunk; `upper` is 0 for row g, 1 for row g + 8.
template <quant::WeightFormat W>
  requires(W::kGroupSize > 0)
struct RowParams {
  using F = quant::FragmentWeights<W>;
  static constexpr bool kHasZero = requires(typename W::Params p) { p.zero; };
  static constexpr bool kHasMinimum = requires(typename W::Params p) { p.minimum; };
  static constexpr bool kHasOther = kHasZero || kHasMinimum;
  static constexpr int kGroupBytes = F::kTileRows * F::kParamBytes;  ///< of the groups of a tile

  std::uint32_t words[kHasOther ? 2 : 1];  ///< (scale, other) of each row, or both rows' scales

  /// `params` of the group.
  __device__ __forceinline__ void load(const std::uint8_t* params, int g) {
    if constexpr (kHasOther) {
      const auto rows = *reinterpret_cast<const uint2*>(params + g * 8);
      words[0] = rows.x;
      words[1] = rows.y;
    } else {
      words[0] = *reinterpret_cast<const std::uint32_t*>(params + g * 4);
    }
  }
  [[nodiscard]] __device__ __forceinline__ float scale(int upper) const {
    if constexpr (kHasOther) return low_of<Half>(words[upper]);
    return upper == 0 ? low_of<Half>(words[0]) : high_of<Half>(words[0]);
  }
  /// Zero point or minimum.
  [[nodiscard]] __device__ __forceinline__ float other(int upper) const requires kHasOther {
    return high_of<Half>(words[upper]);
  }
  /// The same, twice, as halves.
  [[nodiscard]] __device__ __forceinline__ std::uint32_t scale_pair(int upper) const {
    if constexpr (kHasOther) return twice_low(words[upper]);
    return upper == 0 ? twice_low(words[0]) : twice_high(words[0]);
  }
  [[nodiscard]] __device__ __forceinline__ std::uint32_t other_pair(
      int upper) const requires kHasOther {
    return twice_high(words[upper]);
  }
};

}  // namespace lmd::kernels::detail
