/// \file  Registers of codes: even and odd numbers apart or in order, and codes into bytes.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/kernels/primitive/simd.hpp>

#include <cstddef>

namespace lmd::simd::scalar {

/// low.0 high.0 low.1 high.1 ...: the numbers of nibbles in the order they are stored in.
inline Pair interleave(Pair a) {
  float all[2 * kLanes];
  for (std::ptrdiff_t i = 0; i < kLanes; ++i) {
    all[2 * i] = a.low.lane[i];
    all[2 * i + 1] = a.high.lane[i];
  }
  return {load(all), load(all + kLanes)};
}
/// The even and the odd ones of 2 kLanes numbers: undoes interleave.
inline Pair deinterleave(Pair a) {
  float all[2 * kLanes];
  store(all, a.low);
  store(all + kLanes, a.high);
  return {generate([&](int i) { return all[std::ptrdiff_t{2} * i]; }),
          generate([&](int i) { return all[std::ptrdiff_t{2} * i + 1]; })};
}
/// kLanes integral numbers in [0, 255] as bytes.
inline void store_u8(std::uint8_t* p, Vec a) {
  for (int i = 0; i < kLanes; ++i)
    p[i] = static_cast<std::uint8_t>(a.lane[i]);
}

}  // namespace lmd::simd::scalar

#if defined(__x86_64__)

LMD_TARGET_AVX2_
namespace lmd::simd::avx2 {

inline Pair interleave(Pair a) {
  const __m256 x = _mm256_unpacklo_ps(a.low, a.high);  // 0 0 1 1 | 4 4 5 5
  const __m256 y = _mm256_unpackhi_ps(a.low, a.high);  // 2 2 3 3 | 6 6 7 7
  return {_mm256_permute2f128_ps(x, y, 0x20), _mm256_permute2f128_ps(x, y, 0x31)};
}
inline Pair deinterleave(Pair a) {
  const __m256 x = _mm256_permute2f128_ps(a.low, a.high, 0x20);  // 0 1 2 3 | 8 9 10 11
  const __m256 y = _mm256_permute2f128_ps(a.low, a.high, 0x31);  // 4 5 6 7 | 12 13 14 15
  return {_mm256_shuffle_ps(x, y, 0x88), _mm256_shuffle_ps(x, y, 0xdd)};
}
inline void store_u8(std::uint8_t* p, Vec a) {
  const __m256i n = _mm256_cvttps_epi32(a);
  const __m128i words = _mm_packus_epi32(_mm256_castsi256_si128(n), _mm256_extracti128_si256(n, 1));
  _mm_storel_epi64(reinterpret_cast<__m128i*>(p), _mm_packus_epi16(words, words));
}

}  // namespace lmd::simd::avx2
LMD_TARGET_END_

LMD_TARGET_AVX512_
namespace lmd::simd::avx512 {

inline Pair interleave(Pair a) {
  const __m512i first = _mm512_setr_epi32(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
  const __m512i last =
      _mm512_setr_epi32(8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
  return {_mm512_permutex2var_ps(a.low, first, a.high),
          _mm512_permutex2var_ps(a.low, last, a.high)};
}
inline Pair deinterleave(Pair a) {
  const __m512i even = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
  const __m512i odd = _mm512_setr_epi32(1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31);
  return {_mm512_permutex2var_ps(a.low, even, a.high), _mm512_permutex2var_ps(a.low, odd, a.high)};
}
inline void store_u8(std::uint8_t* p, Vec a) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm512_cvtepi32_epi8(_mm512_cvttps_epi32(a)));
}

}  // namespace lmd::simd::avx512
LMD_TARGET_END_

#endif  // __x86_64__
