/// \file  Registers of floats in one vocabulary for three instruction sets; one instruction or a
///        few per function. simd::scalar says what each function means.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/core/bfloat16.hpp>
#include <lmd/core/half.hpp>
#include <lmd/kernels/primitive/target.hpp>

#if defined(__x86_64__)
#  include <immintrin.h>
#endif

#include <cmath>
#include <cstdint>
#include <cstring>

namespace lmd::simd::scalar {

inline constexpr int kLanes = 8;

struct Vec {
  float lane[kLanes];
};

/// Two registers.
struct Pair {
  Vec low;
  Vec high;
};

template <class F>
inline Vec generate(F&& f) {
  Vec v;
  for (int i = 0; i < kLanes; ++i)
    v.lane[i] = f(i);
  return v;
}

inline Vec set1(float x) {
  return generate([&](int) { return x; });
}
inline Vec zero() {
  return set1(0.0f);
}
inline Vec load(const float* p) {
  return generate([&](int i) { return p[i]; });
}
inline Vec load(const Half* p) {
  return generate([&](int i) { return to_float(p[i]); });
}
inline Vec load(const BFloat16* p) {
  return generate([&](int i) { return to_float(p[i]); });
}
inline void store(float* p, Vec a) {
  for (int i = 0; i < kLanes; ++i)
    p[i] = a.lane[i];
}
/// Rounds to nearest, ties to even.
inline void store(Half* p, Vec a) {
  for (int i = 0; i < kLanes; ++i)
    p[i] = to_half(a.lane[i]);
}
inline Vec add(Vec a, Vec b) {
  return generate([&](int i) { return a.lane[i] + b.lane[i]; });
}
inline Vec sub(Vec a, Vec b) {
  return generate([&](int i) { return a.lane[i] - b.lane[i]; });
}
inline Vec mul(Vec a, Vec b) {
  return generate([&](int i) { return a.lane[i] * b.lane[i]; });
}
inline Vec div(Vec a, Vec b) {
  return generate([&](int i) { return a.lane[i] / b.lane[i]; });
}
/// a * b + c; rounded once where the processor has the instruction.
inline Vec fma(Vec a, Vec b, Vec c) {
  return generate([&](int i) { return a.lane[i] * b.lane[i] + c.lane[i]; });
}
inline Vec max(Vec a, Vec b) {
  return generate([&](int i) { return a.lane[i] > b.lane[i] ? a.lane[i] : b.lane[i]; });
}
inline Vec min(Vec a, Vec b) {
  return generate([&](int i) { return a.lane[i] < b.lane[i] ? a.lane[i] : b.lane[i]; });
}
inline Vec floor(Vec a) {
  return generate([&](int i) { return std::floor(a.lane[i]); });
}
inline Vec sqrt(Vec a) {
  return generate([&](int i) { return std::sqrt(a.lane[i]); });
}
/// a * 2^n with integral n in [-126, 127] per lane.
inline Vec scale_by_power_of_two(Vec a, Vec n) {
  return generate([&](int i) { return std::ldexp(a.lane[i], static_cast<int>(n.lane[i])); });
}
/// Lane i where i < n, else b's.
inline Vec select_first(int n, Vec a, Vec b) {
  return generate([&](int i) { return i < n ? a.lane[i] : b.lane[i]; });
}
/// x where a < b, else (also where one is NaN) y.
inline Vec select_less(Vec a, Vec b, Vec x, Vec y) {
  return generate([&](int i) { return a.lane[i] < b.lane[i] ? x.lane[i] : y.lane[i]; });
}
/// kLanes bytes as unsigned or signed numbers.
inline Vec load_u8(const std::uint8_t* p) {
  return generate([&](int i) { return static_cast<float>(p[i]); });
}
inline Vec load_i8(const std::uint8_t* p) {
  return generate([&](int i) { return static_cast<float>(static_cast<std::int8_t>(p[i])); });
}
/// kLanes bytes: their low nibbles and their high nibbles.
inline Pair load_nibbles(const std::uint8_t* p) {
  return {generate([&](int i) { return static_cast<float>(p[i] & 15); }),
          generate([&](int i) { return static_cast<float>(p[i] >> 4); })};
}
inline float sum(Vec a) {
  float s = 0.0f;
  for (float x : a.lane)
    s += x;
  return s;
}
/// out[0..3] = the sums of four registers, each added up in the same order whatever its place.
LMD_INLINE_ void store_sums(float* out, Vec a, Vec b, Vec c, Vec d) {
  out[0] = sum(a);
  out[1] = sum(b);
  out[2] = sum(c);
  out[3] = sum(d);
}
/// The same of eight registers.
LMD_INLINE_ void store_sums(float* out, Vec a, Vec b, Vec c, Vec d, Vec e, Vec f, Vec g, Vec h) {
  store_sums(out, a, b, c, d);
  store_sums(out + 4, e, f, g, h);
}
/// Keeps a number that was loaded in its register: compilers load again for each use otherwise.
LMD_INLINE_ void hold(Vec&) {}
inline float largest(Vec a) {
  float m = a.lane[0];
  for (float x : a.lane)
    m = x > m ? x : m;
  return m;
}

/// The 16 numbers scale * code + offset of a group, ready to be looked up.
struct CodeTable {
  Vec scale;
  Vec offset;
};
inline CodeTable make_table(float scale, float offset) {
  return {set1(scale), set1(offset)};
}
/// kLanes bytes, one per lane.
struct Bytes {
  std::uint8_t lane[kLanes];
};
inline Bytes load_bytes(const std::uint8_t* p) {
  Bytes bytes;
  std::memcpy(bytes.lane, p, kLanes);
  return bytes;
}
/// The table's numbers for the low, or the high, nibbles.
inline Vec look_up_low(const CodeTable& t, const Bytes& bytes) {
  return fma(t.scale, generate([&](int i) { return static_cast<float>(bytes.lane[i] & 15); }),
             t.offset);
}
inline Vec look_up_high(const CodeTable& t, const Bytes& bytes) {
  return fma(t.scale, generate([&](int i) { return static_cast<float>(bytes.lane[i] >> 4); }),
             t.offset);
}

}  // namespace lmd::simd::scalar

#if defined(__x86_64__)

LMD_TARGET_AVX2_
namespace lmd::simd::avx2 {

inline constexpr int kLanes = 8;
using Vec = __m256;
struct Pair {
  Vec low;
  Vec high;
};

inline Vec set1(float x) {
  return _mm256_set1_ps(x);
}
inline Vec zero() {
  return _mm256_setzero_ps();
}
inline Vec load(const float* p) {
  return _mm256_loadu_ps(p);
}
inline Vec load(const Half* p) {
  return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
}
inline Vec load(const BFloat16* p) {
  const __m128i bits = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(bits), 16));
}
inline void store(float* p, Vec a) {
  _mm256_storeu_ps(p, a);
}
inline void store(Half* p, Vec a) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p),
                   _mm256_cvtps_ph(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}
inline Vec add(Vec a, Vec b) {
  return _mm256_add_ps(a, b);
}
inline Vec sub(Vec a, Vec b) {
  return _mm256_sub_ps(a, b);
}
inline Vec mul(Vec a, Vec b) {
  return _mm256_mul_ps(a, b);
}
inline Vec div(Vec a, Vec b) {
  return _mm256_div_ps(a, b);
}
inline Vec fma(Vec a, Vec b, Vec c) {
  return _mm256_fmadd_ps(a, b, c);
}
inline Vec max(Vec a, Vec b) {
  return _mm256_max_ps(a, b);
}
inline Vec min(Vec a, Vec b) {
  return _mm256_min_ps(a, b);
}
inline Vec floor(Vec a) {
  return _mm256_floor_ps(a);
}
inline Vec sqrt(Vec a) {
  return _mm256_sqrt_ps(a);
}
inline Vec scale_by_power_of_two(Vec a, Vec n) {
  const __m256i exponent = _mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127));
  return _mm256_mul_ps(a, _mm256_castsi256_ps(_mm256_slli_epi32(exponent, 23)));
}
inline Vec select_first(int n, Vec a, Vec b) {
  const __m256i lanes = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
  return _mm256_blendv_ps(b, a,
                          _mm256_castsi256_ps(_mm256_cmpgt_epi32(_mm256_set1_epi32(n), lanes)));
}
inline Vec select_less(Vec a, Vec b, Vec x, Vec y) {
  return _mm256_blendv_ps(y, x, _mm256_cmp_ps(a, b, _CMP_LT_OQ));
}
inline __m128i load_8_bytes(const std::uint8_t* p) {
  return _mm_loadl_epi64(reinterpret_cast<const __m128i*>(p));
}
inline Vec load_u8(const std::uint8_t* p) {
  return _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(load_8_bytes(p)));
}
inline Vec load_i8(const std::uint8_t* p) {
  return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(load_8_bytes(p)));
}
inline Pair load_nibbles(const std::uint8_t* p) {
  const __m256i bytes = _mm256_cvtepu8_epi32(load_8_bytes(p));
  return {_mm256_cvtepi32_ps(_mm256_and_si256(bytes, _mm256_set1_epi32(15))),
          _mm256_cvtepi32_ps(_mm256_srli_epi32(bytes, 4))};
}
inline float sum(Vec a) {
  const __m128 four = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
  const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
}
/// Within each half ((0 + 2) + (1 + 3)), then the halves: 11 instructions for four sums.
LMD_INLINE_ void store_sums(float* out, Vec a, Vec b, Vec c, Vec d) {
  const Vec ab = _mm256_add_ps(_mm256_unpacklo_ps(a, b), _mm256_unpackhi_ps(a, b));
  const Vec cd = _mm256_add_ps(_mm256_unpacklo_ps(c, d), _mm256_unpackhi_ps(c, d));
  const Vec halves =
      _mm256_add_ps(_mm256_shuffle_ps(ab, cd, 0x44), _mm256_shuffle_ps(ab, cd, 0xee));
  _mm_storeu_ps(out, _mm_add_ps(_mm256_castps256_ps128(halves), _mm256_extractf128_ps(halves, 1)));
}
LMD_INLINE_ void store_sums(float* out, Vec a, Vec b, Vec c, Vec d, Vec e, Vec f, Vec g, Vec h) {
  store_sums(out, a, b, c, d);
  store_sums(out + 4, e, f, g, h);
}
LMD_INLINE_ void hold(Vec& a) {
  asm("" : "+x"(a));
}
inline float largest(Vec a) {
  const __m128 four = _mm_max_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
  const __m128 two = _mm_max_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_max_ss(two, _mm_movehdup_ps(two)));
}

struct CodeTable {
  Vec scale;
  Vec offset;
};
inline CodeTable make_table(float scale, float offset) {
  return {set1(scale), set1(offset)};
}
using Bytes = __m256i;
inline Bytes load_bytes(const std::uint8_t* p) {
  return _mm256_cvtepu8_epi32(load_8_bytes(p));
}
inline Vec look_up_low(const CodeTable& t, Bytes bytes) {
  const __m256i codes = _mm256_and_si256(bytes, _mm256_set1_epi32(15));
  return fma(t.scale, _mm256_cvtepi32_ps(codes), t.offset);
}
inline Vec look_up_high(const CodeTable& t, Bytes bytes) {
  return fma(t.scale, _mm256_cvtepi32_ps(_mm256_srli_epi32(bytes, 4)), t.offset);
}

}  // namespace lmd::simd::avx2
LMD_TARGET_END_

LMD_TARGET_AVX512_
namespace lmd::simd::avx512 {

inline constexpr int kLanes = 16;
using Vec = __m512;
struct Pair {
  Vec low;
  Vec high;
};

inline Vec set1(float x) {
  return _mm512_set1_ps(x);
}
inline Vec zero() {
  return _mm512_setzero_ps();
}
inline Vec load(const float* p) {
  return _mm512_loadu_ps(p);
}
inline Vec load(const Half* p) {
  return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
}
inline Vec load(const BFloat16* p) {
  const __m256i bits = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(bits), 16));
}
inline void store(float* p, Vec a) {
  _mm512_storeu_ps(p, a);
}
inline void store(Half* p, Vec a) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p),
                      _mm512_cvtps_ph(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}
inline Vec add(Vec a, Vec b) {
  return _mm512_add_ps(a, b);
}
inline Vec sub(Vec a, Vec b) {
  return _mm512_sub_ps(a, b);
}
inline Vec mul(Vec a, Vec b) {
  return _mm512_mul_ps(a, b);
}
inline Vec div(Vec a, Vec b) {
  return _mm512_div_ps(a, b);
}
inline Vec fma(Vec a, Vec b, Vec c) {
  return _mm512_fmadd_ps(a, b, c);
}
inline Vec max(Vec a, Vec b) {
  return _mm512_max_ps(a, b);
}
inline Vec min(Vec a, Vec b) {
  return _mm512_min_ps(a, b);
}
inline Vec floor(Vec a) {
  return _mm512_roundscale_ps(a, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC);
}
inline Vec sqrt(Vec a) {
  return _mm512_sqrt_ps(a);
}
inline Vec scale_by_power_of_two(Vec a, Vec n) {
  return _mm512_scalef_ps(a, n);
}
inline Vec select_first(int n, Vec a, Vec b) {
  const unsigned mask = n >= kLanes ? 0xffffu : n <= 0 ? 0u : (1u << n) - 1u;
  return _mm512_mask_blend_ps(static_cast<__mmask16>(mask), b, a);
}
inline Vec select_less(Vec a, Vec b, Vec x, Vec y) {
  return _mm512_mask_blend_ps(_mm512_cmp_ps_mask(a, b, _CMP_LT_OQ), y, x);
}
inline __m128i load_16_bytes(const std::uint8_t* p) {
  return _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
}
inline Vec load_u8(const std::uint8_t* p) {
  return _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(load_16_bytes(p)));
}
inline Vec load_i8(const std::uint8_t* p) {
  return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(load_16_bytes(p)));
}
inline Pair load_nibbles(const std::uint8_t* p) {
  const __m512i bytes = _mm512_cvtepu8_epi32(load_16_bytes(p));
  return {_mm512_cvtepi32_ps(_mm512_and_si512(bytes, _mm512_set1_epi32(15))),
          _mm512_cvtepi32_ps(_mm512_srli_epi32(bytes, 4))};
}
inline float sum(Vec a) {
  return _mm512_reduce_add_ps(a);
}
inline __m256 add_halves(Vec a) {
  return _mm256_add_ps(_mm512_castps512_ps256(a), _mm512_extractf32x8_ps(a, 1));
}
LMD_INLINE_ void store_sums(float* out, Vec a, Vec b, Vec c, Vec d) {
  const __m256 a8 = add_halves(a);
  const __m256 b8 = add_halves(b);
  const __m256 c8 = add_halves(c);
  const __m256 d8 = add_halves(d);
  const __m256 ab = _mm256_add_ps(_mm256_unpacklo_ps(a8, b8), _mm256_unpackhi_ps(a8, b8));
  const __m256 cd = _mm256_add_ps(_mm256_unpacklo_ps(c8, d8), _mm256_unpackhi_ps(c8, d8));
  const __m256 halves =
      _mm256_add_ps(_mm256_shuffle_ps(ab, cd, 0x44), _mm256_shuffle_ps(ab, cd, 0xee));
  _mm_storeu_ps(out, _mm_add_ps(_mm256_castps256_ps128(halves), _mm256_extractf128_ps(halves, 1)));
}
/// The halves of a and of b, added up.
inline Vec add_halves(Vec a, Vec b) {
  return _mm512_add_ps(_mm512_shuffle_f32x4(a, b, 0x44), _mm512_shuffle_f32x4(a, b, 0xee));
}
/// 24 instructions, where four and four sums take 38.
LMD_INLINE_ void store_sums(float* out, Vec a, Vec b, Vec c, Vec d, Vec e, Vec f, Vec g, Vec h) {
  const Vec ae = add_halves(a, e);
  const Vec bf = add_halves(b, f);
  const Vec cg = add_halves(c, g);
  const Vec dh = add_halves(d, h);
  const Vec abef = _mm512_add_ps(_mm512_unpacklo_ps(ae, bf), _mm512_unpackhi_ps(ae, bf));
  const Vec cdgh = _mm512_add_ps(_mm512_unpacklo_ps(cg, dh), _mm512_unpackhi_ps(cg, dh));
  const Vec quarters =
      _mm512_add_ps(_mm512_shuffle_ps(abef, cdgh, 0x44), _mm512_shuffle_ps(abef, cdgh, 0xee));
  const Vec even = _mm512_shuffle_f32x4(quarters, quarters, 0x08);
  const Vec odd = _mm512_shuffle_f32x4(quarters, quarters, 0x0d);
  _mm256_storeu_ps(out, _mm256_add_ps(_mm512_castps512_ps256(even), _mm512_castps512_ps256(odd)));
}
LMD_INLINE_ void hold(Vec& a) {
  asm("" : "+v"(a));
}
inline float largest(Vec a) {
  return _mm512_reduce_max_ps(a);
}

/// All 16 numbers in one register: a permutation by the codes looks 16 of them up.
struct CodeTable {
  Vec numbers;
};
inline CodeTable make_table(float scale, float offset) {
  const Vec codes = _mm512_setr_ps(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
  return {fma(set1(scale), codes, set1(offset))};
}
using Bytes = __m512i;
inline Bytes load_bytes(const std::uint8_t* p) {
  return _mm512_cvtepu8_epi32(load_16_bytes(p));
}
inline Vec look_up_low(const CodeTable& t, Bytes bytes) {
  return _mm512_permutexvar_ps(bytes, t.numbers);  // reads the low 4 bits of a lane
}
inline Vec look_up_high(const CodeTable& t, Bytes bytes) {
  return _mm512_permutexvar_ps(_mm512_srli_epi32(bytes, 4), t.numbers);
}

}  // namespace lmd::simd::avx512
LMD_TARGET_END_

#endif  // __x86_64__
