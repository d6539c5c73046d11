/// \file  Codes of a fragment stream -> operands of tensor-core products, by bit operations.
///        Each decoder equals FragmentWeights::code, up to a power of two per row half.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/core/activation.hpp>
#include <lmd/quant/fragment_weights.hpp>

namespace lmd::quant {

/// Turns the codes of one 16 x 64 block into the four A fragments of its steps.
///
///   code = operand * kLowerScale (rows g) or * kUpperScale (rows g + 8), exactly
template <int Bits, Activation T>
struct FragmentDecoder;

/// A 4-bit code in the lowest bits of a Half is the subnormal code * 2^-24, and 4 bits higher
/// code * 2^-20: a mask alone makes an exact operand, and the power of two goes into the group's
/// scale. Five integer operations for 8 weights, no floating-point one.
template <>
struct FragmentDecoder<4, Half> {
  static constexpr float kLowerScale = 16777216.0f;  // 2^24
  static constexpr float kUpperScale = 1048576.0f;   // 2^20
  uint4 v;                                           // a word for each step

  __device__ __forceinline__ void load(const std::uint8_t* block, int lane) {
    v = *reinterpret_cast<const uint4*>(block + lane * 16);
  }
  __device__ __forceinline__ void step(int s, std::uint32_t (&a)[4]) const {
    const std::uint32_t word = s == 0 ? v.x : s == 1 ? v.y : s == 2 ? v.z : v.w;
    const std::uint32_t next = word >> 8;
    a[0] = word & 0x000f000fu;
    a[1] = word & 0x00f000f0u;
    a[2] = next & 0x000f000fu;
    a[3] = next & 0x00f000f0u;
  }
  /// The same codes as numbers that arithmetic takes: 1024 + code (rows g), 1024 + 16 code (rows
  /// g + 8), by one operation for two.
  __device__ __forceinline__ void biased_step(int s, std::uint32_t (&a)[4]) const {
    const std::uint32_t word = s == 0 ? v.x : s == 1 ? v.y : s == 2 ? v.z : v.w;
    const std::uint32_t next = word >> 8;
    a[0] = masked_or_1024<0x000f000fu>(word);
    a[1] = masked_or_1024<0x00f000f0u>(word);
    a[2] = masked_or_1024<0x000f000fu>(next);
    a[3] = masked_or_1024<0x00f000f0u>(next);
  }

 private:
  template <std::uint32_t Mask>
  static __device__ __forceinline__ std::uint32_t masked_or_1024(std::uint32_t word) {
    constexpr int kAndOr = 0xea;  // (a & b) | c; the compiler makes two operations of it
    std::uint32_t out;
    asm("lop3.b32 %0, %1, %2, %3, %4;"
        : "=r"(out)
        : "r"(word), "n"(Mask), "r"(0x64006400u), "n"(kAndOr));
    return out;
  }
};

/// bfloat16 subnormals are too small for f32 sums: 128 + code by bit pattern, minus 128 (exact).
template <>
struct FragmentDecoder<4, BFloat16> {
  static constexpr float kLowerScale = 1.0f;
  static constexpr float kUpperScale = 1.0f;
  uint4 v;

  __device__ __forceinline__ void load(const std::uint8_t* block, int lane) {
    v = *reinterpret_cast<const uint4*>(block + lane * 16);
  }
  __device__ __forceinline__ void step(int s, std::uint32_t (&a)[4]) const {
    const std::uint32_t word = s == 0 ? v.x : s == 1 ? v.y : s == 2 ? v.z : v.w;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const std::uint32_t biased = (word >> (4 * i) & 0x000f000fu) | 0x43004300u;  // 128 + code
      constexpr std::uint32_t kOne = 0x3f803f80u;
      constexpr std::uint32_t kMinus128 = 0xc300c300u;
      asm("fma.rn.bf16x2 %0, %1, %2, %3;" : "=r"(a[i]) : "r"(biased), "r"(kOne), "r"(kMinus128));
    }
  }
};

/// 1024 + (code + 128) by bit pattern, minus 1152: exact in Half for signed bytes.
template <>
struct FragmentDecoder<8, Half> {
  static constexpr float kLowerScale = 1.0f;
  static constexpr float kUpperScale = 1.0f;
  uint4 v[2];

  __device__ __forceinline__ void load(const std::uint8_t* block, int lane) {
    v[0] = *reinterpret_cast<const uint4*>(block + lane * 16);
    v[1] = *reinterpret_cast<const uint4*>(block + 512 + lane * 16);
  }
  __device__ __forceinline__ void step(int s, std::uint32_t (&a)[4]) const {
    const uint4& u = v[s / 2];
    const std::uint32_t lower = (s % 2 == 0 ? u.x : u.z) ^ 0x80808080u;
    const std::uint32_t upper = (s % 2 == 0 ? u.y : u.w) ^ 0x80808080u;
    a[0] = minus_1152(__byte_perm(lower, 0x64646464u, 0x4140));
    a[1] = minus_1152(__byte_perm(upper, 0x64646464u, 0x4140));
    a[2] = minus_1152(__byte_perm(lower, 0x64646464u, 0x4342));
    a[3] = minus_1152(__byte_perm(upper, 0x64646464u, 0x4342));
  }

 private:
  static __device__ __forceinline__ std::uint32_t minus_1152(std::uint32_t pair) {
    std::uint32_t out;
    asm("add.rn.f16x2 %0, %1, %2;" : "=r"(out) : "r"(pair), "r"(0xe480e480u));
    return out;
  }
};

/// Through Half: every signed byte is exact in bfloat16's 8 significant bits.
template <>
struct FragmentDecoder<8, BFloat16> {
  static constexpr float kLowerScale = 1.0f;
  static constexpr float kUpperScale = 1.0f;
  FragmentDecoder<8, Half> half;

  __device__ __forceinline__ void load(const std::uint8_t* block, int lane) {
    half.load(block, lane);
  }
  __device__ __forceinline__ void step(int s, std::uint32_t (&a)[4]) const {
    half.step(s, a);
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const float low = to_float(Half{static_cast<std::uint16_t>(a[i])});
      const float high = to_float(Half{static_cast<std::uint16_t>(a[i] >> 16)});
      asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(a[i]) : "f"(high), "f"(low));
    }
  }
};

/// Unsigned codes of a KV tile (cache::FragmentKeyTile, FragmentValueTile) in shared memory, one step of
/// a 16-byte vector at a time:  code = operand * kLowerScale (rows g) or * kUpperScale (rows g + 8),
/// exactly. `Steps` make up a row of the tile's matrix: head_dim / 16 of keys, 1 of values.
template <int Bits>
struct KvFragments;

template <>
struct KvFragments<4> {
  static constexpr int kStepsPerVector = 4;
  static constexpr float kLowerScale = FragmentDecoder<4, Half>::kLowerScale;
  static constexpr float kUpperScale = FragmentDecoder<4, Half>::kUpperScale;
  template <int Steps>
  static __device__ __forceinline__ uint4 load(const std::uint8_t* tile, int vector, int lane) {
    return *reinterpret_cast<const uint4*>(tile + vector * 512 + lane * 16);
  }
  static __device__ __forceinline__ void step(const uint4& v, int i, std::uint32_t (&a)[4]) {
    FragmentDecoder<4, Half>{v}.step(i, a);
  }
};

/// A byte in the lowest bits of a Half is the subnormal code * 2^-24.
template <>
struct KvFragments<8> {
  static constexpr int kStepsPerVector = 2;
  static constexpr float kLowerScale = 16777216.0f;  // 2^24
  static constexpr float kUpperScale = 16777216.0f;
  template <int Steps>
  static __device__ __forceinline__ uint4 load(const std::uint8_t* tile, int vector, int lane) {
    return *reinterpret_cast<const uint4*>(tile + vector * 512 + lane * 16);
  }
  static __device__ __forceinline__ void step(const uint4& v, int i, std::uint32_t (&a)[4]) {
    const std::uint32_t lower = i == 0 ? v.x : v.z;
    const std::uint32_t upper = i == 0 ? v.y : v.w;
    a[0] = lower & 0x00ff00ffu;
    a[1] = upper & 0x00ff00ffu;
    a[2] = lower >> 8 & 0x00ff00ffu;
    a[3] = upper >> 8 & 0x00ff00ffu;
  }
};

/// The operands are four core matrices, by `ldmatrix`: each lane names a row of one.
template <>
struct KvFragments<16> {
  static constexpr int kStepsPerVector = 1;
  static constexpr float kLowerScale = 1.0f;
  static constexpr float kUpperScale = 1.0f;
  template <int Steps>
  static __device__ __forceinline__ uint4 load(const std::uint8_t* tile, int step, int lane) {
    const int upper = lane / 8 % 2;
    const int right = lane / 16;
    const std::uint8_t* row = tile + (upper * 2 * Steps + right) * 128 + lane % 8 * 16;
    const int matrix = step / Steps * 4 * Steps + step % Steps * 2;
    uint4 v;
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
                 : "r"(static_cast<std::uint32_t>(__cvta_generic_to_shared(row)) + matrix * 128)
                 : "memory");
    return v;
  }
  static __device__ __forceinline__ void step(const uint4& v, int, std::uint32_t (&a)[4]) {
    a[0] = v.x;
    a[1] = v.y;
    a[2] = v.z;
    a[3] = v.w;
  }
};

/// 16-bit weights are operands as they lie.
template <Activation T>
struct FragmentDecoder<16, T> {
  static constexpr float kLowerScale = 1.0f;
  static constexpr float kUpperScale = 1.0f;
  uint4 v[4];

  __device__ __forceinline__ void load(const std::uint8_t* block, int lane) {
#pragma unroll
    for (int s = 0; s < 4; ++s)
      v[s] = *reinterpret_cast<const uint4*>(block + s * 512 + lane * 16);
  }
  __device__ __forceinline__ void step(int s, std::uint32_t (&a)[4]) const {
    a[0] = v[s].x;
    a[1] = v[s].y;
    a[2] = v[s].z;
    a[3] = v[s].w;
  }
};

}  // namespace lmd::quant
