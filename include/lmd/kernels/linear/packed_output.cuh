/// \file  Sums of tensor-core products -> rows of y, 16 bytes at a time.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/kernels/linear/linear.hpp>
#include <lmd/kernels/primitive/mma.cuh>

#include <cstdint>

namespace lmd::kernels::detail {

/// Word i of lane t of four neighbouring lanes becomes word t of lane i: its own inverse. A whole warp calls it.
__device__ __forceinline__ void transpose_words(std::uint32_t (&w)[4], int lane) {
  constexpr std::uint32_t kAll = 0xffffffffu;
  const bool is_odd = (lane & 1) != 0;
  const std::uint32_t a = __shfl_xor_sync(kAll, is_odd ? w[0] : w[1], 1);
  const std::uint32_t b = __shfl_xor_sync(kAll, is_odd ? w[2] : w[3], 1);
  w[0] = is_odd ? a : w[0];
  w[1] = is_odd ? w[1] : a;
  w[2] = is_odd ? b : w[2];
  w[3] = is_odd ? w[3] : b;
  const bool is_upper = (lane & 2) != 0;
  const std::uint32_t c = __shfl_xor_sync(kAll, is_upper ? w[0] : w[2], 2);
  const std::uint32_t d = __shfl_xor_sync(kAll, is_upper ? w[1] : w[3], 2);
  w[0] = is_upper ? c : w[0];
  w[2] = is_upper ? w[2] : c;
  w[1] = is_upper ? d : w[1];
  w[3] = is_upper ? w[3] : d;
}

/// Whether store_pairs takes a layer's outputs.
template <Activation T>
[[nodiscard]] LMD_HD bool has_packed_rows(const BasicLinearArgs<T>& a) {
  return a.y_f32 == nullptr && a.epilogue != LinearEpilogue::kBest && a.n % 32 == 0 &&
         a.y_stride % 8 == 0 && reinterpret_cast<std::uintptr_t>(a.y) % 16 == 0;
}

/// kStore and kAdd, of 8 tokens.
template <Activation T>
__device__ __forceinline__ void store_pair(const BasicLinearArgs<T>& a,
                                           const float (&first)[4],
                                           const float (&second)[4],
                                           int row_tile,
                                           int first_token,
                                           int lane) {
  const int token = first_token + lane / 4;
  auto* y = reinterpret_cast<uint4*>(a.y + token * a.y_stride + row_tile * 16 + lane % 4 * 8);
  const bool is_added = a.epilogue == LinearEpilogue::kAdd;
  std::uint32_t words[4] = {};
  if (is_added) {
    const uint4 before = token < a.m ? *y : uint4{};
    words[0] = before.x;
    words[1] = before.y;
    words[2] = before.z;
    words[3] = before.w;
    transpose_words(words, lane);
  }
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const float bias = a.bias == nullptr ? 0.0f : a.bias[row_tile * 16 + i * 8 + lane / 4];
    float low = (i < 2 ? first : second)[i % 2 * 2] + bias;
    float high = (i < 2 ? first : second)[i % 2 * 2 + 1] + bias;
    if (is_added) {
      const std::uint32_t before = transpose_8x8(words[i]);
      low += low_of<T>(before);
      high += high_of<T>(before);
    }
    words[i] = transpose_8x8(pack_pair<T>(low, high));
  }
  transpose_words(words, lane);
  if (token < a.m) *y = {words[0], words[1], words[2], words[3]};
}

/// kSiluMul, of 16 tokens.
template <Activation T>
__device__ __forceinline__ void store_gated_pair(const BasicLinearArgs<T>& a,
                                                 const float (&sums)[2][2][4],
                                                 int row_tile,
                                                 int first_token,
                                                 int lane) {
  std::uint32_t words[4];
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const int row = (row_tile + i % 2) * 16 + lane / 4;
    const float gate_bias = a.bias == nullptr ? 0.0f : a.bias[row];
    const float up_bias = a.bias == nullptr ? 0.0f : a.bias[row + 8];
    float out[2];
#pragma unroll
    for (int e = 0; e < 2; ++e) {
      const float gate = sums[i % 2][i / 2][e] + gate_bias;
      out[e] = gate / (1.0f + __expf(-gate)) * (sums[i % 2][i / 2][2 + e] + up_bias);
    }
    words[i] = transpose_8x8(pack_pair<T>(out[0], out[1]));
  }
  transpose_words(words, lane);
  const int token = first_token + lane % 4 / 2 * 8 + lane / 4;
  if (token < a.m) {
    *reinterpret_cast<uint4*>(a.y + token * a.y_stride + (row_tile + lane % 2) * 8) = {
        words[0], words[1], words[2], words[3]};
  }
}

/// store_sums for two neighbouring row tiles, `row_tile` (even) and the next, of 16 tokens: sums [row tile][8 tokens].
/// Between sums, where a lane has two tokens of a row, and y, where it has 8 features of a token,
/// words change places within and between lanes. A whole warp calls it. IsGated: kSiluMul.
template <bool IsGated, Activation T>
__device__ __forceinline__ void store_pairs(const BasicLinearArgs<T>& a,
                                            const float (&sums)[2][2][4],
                                            int row_tile,
                                            int first_token,
                                            int lane) {
  if (row_tile * 16 >= a.n || first_token >= a.m) return;
  if constexpr (IsGated) {
    store_gated_pair(a, sums, row_tile, first_token, lane);
  } else {
#pragma unroll
    for (int j = 0; j < 2; ++j) {
      if (first_token + j * 8 < a.m)
        store_pair(a, sums[0][j], sums[1][j], row_tile, first_token + j * 8, lane);
    }
  }
}

}  // namespace lmd::kernels::detail
