/// \file  RoPE of a head on its way from memory into registers.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/kernels/primitive/mma.cuh>

namespace lmd::kernels::detail {

/// Eight neighbours of a head, rotated: own cosine + sign partner sine, rounded to T as the rotation
/// in place rounds, then to Half.
template <Activation T>
__device__ __forceinline__ uint4
rotate(const uint4& own, const uint4& partner, const float* cosine, const float* sine, float sign) {
  const std::uint32_t x[4] = {own.x, own.y, own.z, own.w};
  const std::uint32_t y[4] = {partner.x, partner.y, partner.z, partner.w};
  std::uint32_t rotated[4];
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    const float4 c = *reinterpret_cast<const float4*>(cosine + 4 * i);
    const float4 s = *reinterpret_cast<const float4*>(sine + 4 * i);
    const float cosines[4] = {c.x, c.y, c.z, c.w};
    const float sines[4] = {s.x, s.y, s.z, s.w};
#pragma unroll
    for (int j = 0; j < 2; ++j) {
      const int k = 2 * i + j;
      const float a = low_of<T>(x[k]) * cosines[2 * j] + sign * low_of<T>(y[k]) * sines[2 * j];
      const float b =
          high_of<T>(x[k]) * cosines[2 * j + 1] + sign * high_of<T>(y[k]) * sines[2 * j + 1];
      const std::uint32_t pair = pack_pair<T>(a, b);
      rotated[k] =
          std::same_as<T, Half> ? pair : pack_pair<Half>(low_of<T>(pair), high_of<T>(pair));
    }
  }
  return {rotated[0], rotated[1], rotated[2], rotated[3]};
}

/// Elements 32 h + 8 t to 32 h + 8 t + 7 of a head after RoPE, as halves, by thread t of four.
///
/// Shapes:  head [HeadDim], null for zeros; rotation [HeadDim] as rope_rotation makes it.
template <int HeadDim, Activation T>
__device__ __forceinline__ void load_rotated(uint4 (&rotated)[HeadDim / 32],
                                             const T* head,
                                             const float* rotation,
                                             int t) {
  constexpr int kHalf = HeadDim / 2;
  constexpr int kVectors = HeadDim / 32;
  constexpr bool kHasPartners = kHalf % 32 == 0;  // this thread, and of which
  const T* own = head + t * 8;
  uint4 x[kVectors] = {};
  if (head != nullptr) {
#pragma unroll
    for (int h = 0; h < kVectors; ++h)
      x[h] = *reinterpret_cast<const uint4*>(own + h * 32);
  }
#pragma unroll
  for (int h = 0; h < kVectors; ++h) {
    const int column = h * 32 + t * 8;
    const bool is_lower = (kHasPartners ? h * 32 : column) < kHalf;
    const int r = is_lower ? column : column - kHalf;
    uint4 partner = x[(h + kVectors / 2) % kVectors];
    if constexpr (!kHasPartners) {
      partner = {};
      if (head != nullptr)
        partner = *reinterpret_cast<const uint4*>(own + h * 32 + (is_lower ? kHalf : -kHalf));
    }
    rotated[h] =
        rotate<T>(x[h], partner, rotation + r, rotation + kHalf + r, is_lower ? -1.0f : 1.0f);
  }
}

}  // namespace lmd::kernels::detail
