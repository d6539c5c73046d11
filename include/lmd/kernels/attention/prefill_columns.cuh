/// \file  What prefill works on at a time, and the queries of a warp: columns of tensor-core products.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/kernels/attention/decode_products.cuh>
#include <lmd/kernels/primitive/pack.cuh>

namespace lmd::kernels::detail {

/// Groups of 8 columns that a warp has: each decoded A operand is used as often.
inline constexpr int kColumnGroups = 2;

/// What all warps of a block work on at a time: 64 tokens of a sealed page, or 16 of the open one.
/// Members as DecodeTask's, whose functions take either.
template <AttentionPolicy P, int Cc = 0>
struct PrefillTask {
  using Key = typename P::Scheme::Key;
  using Value = typename P::Scheme::Value;
  using Unit = typename P::Unit;
  static constexpr int kDim = P::kHeadDim;
  static_assert(kDim == 64 || kDim == 96 || kDim == 128, "kScale has these heads' square roots");
  static constexpr float kScale =  // log2(e) / sqrt(head_dim)
      1.4426950408889634f / (kDim == 64   ? 8.0f
                             : kDim == 96 ? 9.79795897113f
                                          : 11.3137084990f);
  static constexpr int kSteps = kDim / 16;
  static constexpr int kTiles = cache::kPageTokens / 16;
  static constexpr int kKeyBytes = Unit::KeyTile::kBytes;
  static constexpr int kValueBytes = Unit::ValueTile::kBytes;
  static constexpr int kKeyParamBytes =
      Unit::n_params(Key::kAxis) * static_cast<int>(sizeof(quant::AffineParams));
  static constexpr int kValueParamBytes =
      Unit::n_params(Value::kAxis) * static_cast<int>(sizeof(quant::AffineParams));
  static constexpr int kOpenBytes = 16 * kDim * 2;  // keys, or values, of a quarter of an open page
  static constexpr int kSlotBytes = round_up(
      std::max({kKeyBytes + kKeyParamBytes, kValueBytes + kValueParamBytes, kOpenBytes}), 128);
  /// Slots of keys and values in turn, for the block. A kilobyte is left for what else it shares.
  static constexpr int kSlots = 8 * kSlotBytes + 1024 <= tuned_arch(Cc).shared_bytes() ? 8 : 6;
  static_assert(Value::kAxis != quant::ParamAxis::kChannel,
                "weights are multiplied by the scales of their tokens");
};

/// Eight columns, each a (token, query head) pair, as B fragments. Lane 4 g + t loads column g.
template <class Task>
struct PrefillQuery {
  std::uint32_t pairs[Task::kSteps][2];
  float sums[2];  ///< of the elements of columns 2 t and 2 t + 1

  /// `q` [head_dim] is column g before RoPE, null: zeros; `rotation` [head_dim] that of its token.
  template <Activation T>
  __device__ __forceinline__ void load(const T* q, const float* rotation, int lane) {
    uint4 rotated[Task::kDim / 32];
    const int t = lane % 4;
    load_rotated<Task::kDim>(rotated, q, rotation, t);
    float sum = 0.0f;
#pragma unroll
    for (int h = 0; h < Task::kSteps / 2; ++h) {
      const std::uint32_t parts[4] = {rotated[h].x, rotated[h].y, rotated[h].z, rotated[h].w};
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        pairs[h * 2 + i / 2][i % 2] = parts[i];
        sum += low_of<Half>(parts[i]) + high_of<Half>(parts[i]);
      }
    }
    sum += __shfl_xor_sync(0xffffffffu, sum, 1);
    sum += __shfl_xor_sync(0xffffffffu, sum, 2);  // of column g
    sums[0] = __shfl_sync(0xffffffffu, sum, 8 * t);
    sums[1] = __shfl_sync(0xffffffffu, sum, 8 * t + 4);
  }
};

template <class Task>
using ColumnQueries = PrefillQuery<Task>[kColumnGroups];
template <class Task>
using ColumnStates = DecodeState<Task>[kColumnGroups];
/// Scores, then weights, of `Tiles` x 16 tokens.
template <int Tiles>
using ColumnScores = float[kColumnGroups][Tiles][4];

}  // namespace lmd::kernels::detail
