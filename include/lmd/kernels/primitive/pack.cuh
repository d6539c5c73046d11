/// \file  16 bytes of activations at a time, as floats; single ones where rows are not aligned.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/core/activation.hpp>
#include <lmd/core/math.hpp>

#include <cstdint>

namespace lmd::kernels {

/// Activations of a 16-byte access.
template <Activation T>
inline constexpr int kPack = 16 / static_cast<int>(sizeof(T));

template <Activation T>
struct Pack {
  float x[kPack<T>] = {};
};

/// Whether each row of n elements begins at a multiple of 16 bytes in all these tensors.
template <Activation T, class... Tensors>
LMD_HD bool rows_are_aligned(int n, const Tensors*... tensors) {
  const std::uint64_t bits = (std::uint64_t{0} | ... | reinterpret_cast<std::uint64_t>(tensors));
  return n % kPack<T> == 0 && bits % 16 == 0;
}

/// By value, and taken apart by shifts: a copy of bytes from a reference becomes sixteen loads.
template <Activation T>
__device__ __forceinline__ Pack<T> unpack(uint4 bits) {
  const std::uint32_t words[4] = {bits.x, bits.y, bits.z, bits.w};
  Pack<T> pack;
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    if constexpr (sizeof(T) == 2) {
      pack.x[2 * i] = to_float(T{static_cast<std::uint16_t>(words[i])});
      pack.x[2 * i + 1] = to_float(T{static_cast<std::uint16_t>(words[i] >> 16)});
    } else {
      pack.x[i] = __uint_as_float(words[i]);
    }
  }
  return pack;
}

/// Rounds.
template <Activation T>
__device__ __forceinline__ uint4 repack(const Pack<T>& pack) {
  std::uint32_t words[4];
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    if constexpr (sizeof(T) == 2) {
      const std::uint32_t low = from_float<T>(pack.x[2 * i]).bits;
      words[i] = std::uint32_t{from_float<T>(pack.x[2 * i + 1]).bits} << 16 | low;
    } else {
      words[i] = __float_as_uint(pack.x[i]);
    }
  }
  return {words[0], words[1], words[2], words[3]};
}

/// Elements [0, min(kPack, n)) of `from`; the others are 0. Of aligned rows n is at least kPack.
template <Activation T>
__device__ __forceinline__ Pack<T> load_pack(const T* from, std::int64_t n, bool is_aligned) {
  if (is_aligned) return unpack<T>(*reinterpret_cast<const uint4*>(from));
  Pack<T> pack;
#pragma unroll
  for (int i = 0; i < kPack<T>; ++i) {
    if (i < n) pack.x[i] = to_float(from[i]);
  }
  return pack;
}

/// Stores the first min(kPack, n) numbers, rounded.
template <Activation T>
__device__ __forceinline__ void store_pack(T* to,
                                           const Pack<T>& pack,
                                           std::int64_t n,
                                           bool is_aligned) {
  if (is_aligned) {
    *reinterpret_cast<uint4*>(to) = repack(pack);
  } else {
#pragma unroll
    for (int i = 0; i < kPack<T>; ++i) {
      if (i < n) to[i] = from_float<T>(pack.x[i]);
    }
  }
}

/// The same number of f32 parameters (gains, biases) that belong to a pack of T.
template <Activation T>
__device__ __forceinline__ Pack<T> load_parameters(const float* from, int n, bool is_aligned) {
  Pack<T> pack;
  if (is_aligned) {
#pragma unroll
    for (int i = 0; i < kPack<T>; i += 4) {
      const float4 four = *reinterpret_cast<const float4*>(from + i);
      pack.x[i] = four.x;
      pack.x[i + 1] = four.y;
      pack.x[i + 2] = four.z;
      pack.x[i + 3] = four.w;
    }
  } else {
#pragma unroll
    for (int i = 0; i < kPack<T>; ++i) {
      if (i < n) pack.x[i] = from[i];
    }
  }
  return pack;
}

}  // namespace lmd::kernels
