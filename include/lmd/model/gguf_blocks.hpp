/// \file  The block types of GGUF files and what their bytes mean, as textbook loops.
///        Source: the format's description in ggml (layouts; the loops are ours).
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/core/bfloat16.hpp>
#include <lmd/core/error.hpp>
#include <lmd/core/half.hpp>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>

namespace lmd::model {

enum class GgufType : std::uint32_t {
  kF32 = 0,
  kF16 = 1,
  kQ4_0 = 2,
  kQ4_1 = 3,
  kQ5_0 = 6,
  kQ5_1 = 7,
  kQ8_0 = 8,
  kQ4_K = 12,
  kQ5_K = 13,
  kQ6_K = 14,
  kBF16 = 30,
};

struct GgufTypeFacts {
  std::uint32_t id;
  const char* name;
  int block_elements;  ///< neighbours along the row that share a block
  int block_bytes;     ///< 0: a type that is known by name only
};

inline constexpr GgufTypeFacts kGgufTypes[] = {
    {0, "F32", 1, 4},       {1, "F16", 1, 2},        {2, "Q4_0", 32, 18},
    {3, "Q4_1", 32, 20},    {6, "Q5_0", 32, 22},     {7, "Q5_1", 32, 24},
    {8, "Q8_0", 32, 34},    {9, "Q8_1", 32, 0},      {10, "Q2_K", 256, 0},
    {11, "Q3_K", 256, 0},   {12, "Q4_K", 256, 144},  {13, "Q5_K", 256, 176},
    {14, "Q6_K", 256, 210}, {15, "Q8_K", 256, 0},    {16, "IQ2_XXS", 256, 0},
    {17, "IQ2_XS", 256, 0}, {18, "IQ3_XXS", 256, 0}, {19, "IQ1_S", 256, 0},
    {20, "IQ4_NL", 32, 0},  {21, "IQ3_S", 256, 0},   {22, "IQ2_S", 256, 0},
    {23, "IQ4_XS", 256, 0}, {24, "I8", 1, 0},        {25, "I16", 1, 0},
    {26, "I32", 1, 0},      {27, "I64", 1, 0},       {28, "F64", 1, 0},
    {29, "IQ1_M", 256, 0},  {30, "BF16", 1, 2},
};
inline constexpr const char* kSupportedGgufTypes =
    "F32 F16 BF16 Q4_0 Q4_1 Q5_0 Q5_1 Q8_0 Q4_K Q5_K Q6_K";

/// Null for a number that no type has.
[[nodiscard]] inline const GgufTypeFacts* gguf_type_facts(std::uint32_t id) {
  for (const GgufTypeFacts& f : kGgufTypes)
    if (f.id == id) return &f;
  return nullptr;
}

[[nodiscard]] inline const GgufTypeFacts& facts_of(GgufType type) {
  return *gguf_type_facts(static_cast<std::uint32_t>(type));
}

namespace detail {

inline float half_at(const std::uint8_t* at) {
  return to_float(Half{static_cast<std::uint16_t>(at[0] | at[1] << 8)});
}

inline std::uint32_t word_at(const std::uint8_t* at) {
  std::uint32_t word = 0;
  std::memcpy(&word, at, sizeof word);
  return word;
}

/// Q4_0: f16 d, u8 q[16]. Element j is the low nibble of byte j, element j + 16 the high one.
inline void dequantise_q4_0(const std::uint8_t* block, float* to) {
  const float d = half_at(block);
  for (int j = 0; j < 16; ++j) {
    to[j] = static_cast<float>((block[2 + j] & 15) - 8) * d;
    to[j + 16] = static_cast<float>((block[2 + j] >> 4) - 8) * d;
  }
}

/// Q4_1: f16 d, f16 m, u8 q[16], paired as in Q4_0.
inline void dequantise_q4_1(const std::uint8_t* block, float* to) {
  const float d = half_at(block);
  const float m = half_at(block + 2);
  for (int j = 0; j < 16; ++j) {
    to[j] = static_cast<float>(block[4 + j] & 15) * d + m;
    to[j + 16] = static_cast<float>(block[4 + j] >> 4) * d + m;
  }
}

/// Code of element j (0 .. 31) of 5-bit codes: nibbles paired as in Q4_0, bit j of `high` on top.
inline int code5(const std::uint8_t* nibbles, std::uint32_t high, int j) {
  const int low = j < 16 ? nibbles[j] & 15 : nibbles[j - 16] >> 4;
  return low | static_cast<int>(high >> j & 1u) << 4;
}

/// Q5_0: f16 d, u8 high[4], u8 q[16].
inline void dequantise_q5_0(const std::uint8_t* block, float* to) {
  const float d = half_at(block);
  const std::uint32_t high = word_at(block + 2);
  for (int j = 0; j < 32; ++j)
    to[j] = static_cast<float>(code5(block + 6, high, j) - 16) * d;
}

/// Q5_1: f16 d, f16 m, u8 high[4], u8 q[16].
inline void dequantise_q5_1(const std::uint8_t* block, float* to) {
  const float d = half_at(block);
  const float m = half_at(block + 2);
  const std::uint32_t high = word_at(block + 4);
  for (int j = 0; j < 32; ++j)
    to[j] = static_cast<float>(code5(block + 8, high, j)) * d + m;
}

/// Q8_0: f16 d, i8 q[32].
inline void dequantise_q8_0(const std::uint8_t* block, float* to) {
  const float d = half_at(block);
  for (int j = 0; j < 32; ++j)
    to[j] = static_cast<float>(static_cast<std::int8_t>(block[2 + j])) * d;
}

struct ScaleAndMin {
  float scale;
  float minimum;
};

/// The 6-bit scale and minimum of sub-block j (0 .. 7) of Q4_K and Q5_K: 16 numbers in 12 bytes.
inline ScaleAndMin k_scale(const std::uint8_t* s, int j) {
  const int scale = j < 4 ? s[j] & 63 : (s[j + 4] & 15) | (s[j - 4] >> 6) << 4;
  const int minimum = j < 4 ? s[j + 4] & 63 : (s[j + 4] >> 4) | (s[j] >> 6) << 4;
  return {static_cast<float>(scale), static_cast<float>(minimum)};
}

/// Q4_K: f16 d, f16 dmin, u8 scales[12], u8 q[128]. Bytes 32p .. 32p + 31 hold elements
/// 64p .. 64p + 31 in their low nibbles and the next 32 in their high ones.
inline void dequantise_q4_k(const std::uint8_t* block, float* to) {
  const float d = half_at(block);
  const float d_min = half_at(block + 2);
  for (int j = 0; j < 8; ++j) {
    const ScaleAndMin s = k_scale(block + 4, j);
    const std::uint8_t* q = block + 16 + std::ptrdiff_t{j / 2} * 32;
    for (int l = 0; l < 32; ++l) {
      const int code = j % 2 == 0 ? q[l] & 15 : q[l] >> 4;
      to[32 * j + l] = d * s.scale * static_cast<float>(code) - d_min * s.minimum;
    }
  }
}

/// Q5_K: f16 d, f16 dmin, u8 scales[12], u8 high[32], u8 q[128]: Q4_K with a fifth bit, bit j of
/// high[l] for element l of sub-block j.
inline void dequantise_q5_k(const std::uint8_t* block, float* to) {
  const float d = half_at(block);
  const float d_min = half_at(block + 2);
  const std::uint8_t* high = block + 16;
  for (int j = 0; j < 8; ++j) {
    const ScaleAndMin s = k_scale(block + 4, j);
    const std::uint8_t* q = block + 48 + std::ptrdiff_t{j / 2} * 32;
    for (int l = 0; l < 32; ++l) {
      const int code = (j % 2 == 0 ? q[l] & 15 : q[l] >> 4) | (high[l] >> j & 1) << 4;
      to[32 * j + l] = d * s.scale * static_cast<float>(code) - d_min * s.minimum;
    }
  }
}

/// Q6_K: u8 low[128], u8 high[64], i8 scales[16], f16 d. Each half of 128 elements is four runs of
/// 32: run r takes nibble r / 2 of low[32 (r % 2) + l] and bits 2r, 2r + 1 of high[l].
inline void dequantise_q6_k(const std::uint8_t* block, float* to) {
  const float d = half_at(block + 208);
  for (int e = 0; e < 256; ++e) {
    const int half = e / 128;
    const int run = e % 128 / 32;
    const int l = e % 32;
    const std::uint8_t low = block[64 * half + 32 * (run % 2) + l];
    const std::uint8_t high = block[128 + 32 * half + l];
    const int code = (run < 2 ? low & 15 : low >> 4) | (high >> (2 * run) & 3) << 4;
    const auto scale = static_cast<std::int8_t>(block[192 + 8 * half + 2 * run + l / 16]);
    to[e] = d * static_cast<float>(scale) * static_cast<float>(code - 32);
  }
}

using BlockFunction = void (*)(const std::uint8_t* block, float* to);

/// Null for the types without blocks.
inline BlockFunction block_function(GgufType type) {
  switch (type) {
    case GgufType::kQ4_0:
      return dequantise_q4_0;
    case GgufType::kQ4_1:
      return dequantise_q4_1;
    case GgufType::kQ5_0:
      return dequantise_q5_0;
    case GgufType::kQ5_1:
      return dequantise_q5_1;
    case GgufType::kQ8_0:
      return dequantise_q8_0;
    case GgufType::kQ4_K:
      return dequantise_q4_k;
    case GgufType::kQ5_K:
      return dequantise_q5_k;
    case GgufType::kQ6_K:
      return dequantise_q6_k;
    default:
      return nullptr;
  }
}

}  // namespace detail

/// Stored elements -> float.
///
/// Shapes:  from: n elements of `type`; to [n]. n is a multiple of the type's block.
inline void dequantise(GgufType type, const std::uint8_t* from, std::int64_t n, float* to) {
  if (type == GgufType::kF32) {
    std::memcpy(to, from, static_cast<std::size_t>(n) * sizeof(float));
  } else if (type == GgufType::kF16) {
    for (std::int64_t i = 0; i < n; ++i)
      to[i] = detail::half_at(from + 2 * i);
  } else if (type == GgufType::kBF16) {
    for (std::int64_t i = 0; i < n; ++i)
      to[i] = to_float(BFloat16{static_cast<std::uint16_t>(from[2 * i] | from[2 * i + 1] << 8)});
  } else {
    const GgufTypeFacts& facts = facts_of(type);
    const detail::BlockFunction decode = detail::block_function(type);
    for (std::int64_t b = 0; b < n / facts.block_elements; ++b)
      decode(from + b * facts.block_bytes, to + b * facts.block_elements);
  }
}

}  // namespace lmd::model
