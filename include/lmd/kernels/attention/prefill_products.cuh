/// \file  Tensor-core products of prefill: many queries of a page against tiles as they are stored.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/kernels/attention/channel_params.cuh>
#include <lmd/kernels/attention/prefill_columns.cuh>

namespace lmd::kernels::detail {

/// sealed_scores for all columns of a warp, tokens of a whole page.
///
///   c[n][i] = log2(e) / sqrt(head_dim) * keys . queries
template <class Task>
__device__ __forceinline__ void sealed_column_scores(ColumnScores<Task::kTiles>& c,
                                                     const std::uint8_t* slot,
                                                     const ColumnQueries<Task>& queries,
                                                     int lane) {
  constexpr float kScale = Task::kScale;
  using Fragments = quant::KvFragments<Task::Key::kBits>;
  constexpr quant::ParamAxis kAxis = Task::Key::kAxis;
  constexpr int kPerVector = Fragments::kStepsPerVector;
  const std::uint8_t* params = slot + Task::kKeyBytes;
  PrefillQuery<Task> q[kColumnGroups];
#pragma unroll
  for (int n = 0; n < kColumnGroups; ++n) {
    q[n] = queries[n];
    if constexpr (kAxis == quant::ParamAxis::kChannel)
      fold_channel_params(q[n].pairs, q[n].sums, params, lane);  // sums become q . zero
#pragma unroll
    for (int i = 0; i < Task::kTiles; ++i)
#pragma unroll
      for (int j = 0; j < 4; ++j)
        c[n][i][j] = 0.0f;
  }
#pragma unroll
  for (int v = 0; v < Task::kTiles * Task::kSteps / kPerVector; ++v) {
    const uint4 codes = Fragments::template load<Task::kSteps>(slot, v, lane);
#pragma unroll
    for (int i = 0; i < kPerVector; ++i) {
      const int step = v * kPerVector + i;
      std::uint32_t a[4];
      Fragments::step(codes, i, a);
#pragma unroll
      for (int n = 0; n < kColumnGroups; ++n)
        mma_16x8x16<Half>(c[n][step / Task::kSteps], a, q[n].pairs[step % Task::kSteps][0],
                          q[n].pairs[step % Task::kSteps][1]);
    }
  }
#pragma unroll
  for (int i = 0; i < Task::kTiles; ++i) {
    float key_scale[2] = {kScale * Fragments::kLowerScale, kScale * Fragments::kUpperScale};
    float key_zero[2] = {0.0f, 0.0f};  // times the columns' sums
    if constexpr (kAxis == quant::ParamAxis::kToken) {
      const uint2 p = *reinterpret_cast<const uint2*>(params + i * 64 + lane / 4 * 8);
      key_scale[0] *= low_of<Half>(p.x);
      key_scale[1] *= low_of<Half>(p.y);
      key_zero[0] = high_of<Half>(p.x) * kScale;
      key_zero[1] = high_of<Half>(p.y) * kScale;
    } else if constexpr (kAxis == quant::ParamAxis::kChannel) {
      key_zero[0] = key_zero[1] = kScale;
    }
#pragma unroll
    for (int n = 0; n < kColumnGroups; ++n) {
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        if constexpr (kAxis == quant::ParamAxis::kNone) {
          c[n][i][j] *= key_scale[j / 2];
        } else {
          c[n][i][j] = fmaf(c[n][i][j], key_scale[j / 2], key_zero[j / 2] * q[n].sums[j % 2]);
        }
      }
    }
  }
}

/// sealed_values for all columns of a warp. Codes have a mean that the zero points take away again, and
/// tensor cores truncate: a running sum over thousands of tokens would lose what is left then. So a
/// page's codes are summed alone, and its sums are added in f32, which rounds.
template <class Task>
__device__ __forceinline__ void sealed_column_values(ColumnStates<Task>& states,
                                                     const ColumnScores<Task::kTiles>& p,
                                                     const std::uint8_t* slot,
                                                     int lane) {
  using Fragments = quant::KvFragments<Task::Value::kBits>;
  constexpr int kPerVector = Fragments::kStepsPerVector;
  constexpr bool kHasZero = Task::Value::kAxis != quant::ParamAxis::kNone;
  constexpr int kPart = Task::kSteps % 4 == 0 ? 4 : 2;  // steps of the head that are summed at once
  const std::uint8_t* params = slot + Task::kValueBytes;
  std::uint32_t weights[kColumnGroups][Task::kTiles][2];
#pragma unroll
  for (int i = 0; i < Task::kTiles; ++i) {
    float scale[2] = {1.0f, 1.0f};
    float zero[2] = {0.0f, 0.0f};
    if constexpr (Task::Value::kAxis == quant::ParamAxis::kToken) {
      const uint2 pair = *reinterpret_cast<const uint2*>(params + i * 64 + lane / 4 * 8);
      scale[0] = low_of<Half>(pair.x);
      scale[1] = low_of<Half>(pair.y);
      zero[0] = high_of<Half>(pair.x);
      zero[1] = high_of<Half>(pair.y);
    }
#pragma unroll
    for (int n = 0; n < kColumnGroups; ++n) {
      const float(&x)[4] = p[n][i];
      if constexpr (Task::Value::kAxis == quant::ParamAxis::kToken) {
#pragma unroll
        for (int j = 0; j < 4; ++j)
          states[n].zero[j % 2] = fmaf(x[j], zero[j / 2], states[n].zero[j % 2]);
      }
      weights[n][i][0] = transpose_8x8(pack_pair<Half>(x[0] * scale[0], x[1] * scale[0]));
      weights[n][i][1] = transpose_8x8(pack_pair<Half>(x[2] * scale[1], x[3] * scale[1]));
    }
  }
#pragma unroll
  for (int first = 0; first < Task::kSteps; first += kPart) {
    float sums[kPart][kColumnGroups][4];
#pragma unroll
    for (int d = 0; d < kPart; ++d)
#pragma unroll
      for (int n = 0; n < kColumnGroups; ++n)
#pragma unroll
        for (int j = 0; j < 4; ++j)
          sums[d][n][j] = kHasZero ? 0.0f : states[n].out[first + d][j];
#pragma unroll
    for (int i = 0; i < Task::kTiles; ++i) {
#pragma unroll
      for (int d = 0; d < kPart; ++d) {
        const int step = i * Task::kSteps + first + d;
        const uint4 codes = Fragments::template load<1>(slot, step / kPerVector, lane);
        std::uint32_t a[4];
        Fragments::step(codes, step % kPerVector, a);
#pragma unroll
        for (int n = 0; n < kColumnGroups; ++n)
          mma_16x8x16<Half>(sums[d][n], a, weights[n][i][0], weights[n][i][1]);
      }
    }
#pragma unroll
    for (int d = 0; d < kPart; ++d)
#pragma unroll
      for (int n = 0; n < kColumnGroups; ++n)
#pragma unroll
        for (int j = 0; j < 4; ++j) {
          float& out = states[n].out[first + d][j];
          out = kHasZero ? out + sums[d][n][j] : sums[d][n][j];
        }
  }
}

/// Scores of a quarter of an open page. Column 2 t + j of group n sees tokens up to `last[n][j]` of
/// the quarter.
template <class Task>
__device__ __forceinline__ void open_column_scores(ColumnScores<1>& c,
                                                   const std::uint8_t* slot,
                                                   const ColumnQueries<Task>& queries,
                                                   const int (&last)[kColumnGroups][2],
                                                   int lane) {
  const int g = lane / 4;
  const int t = lane % 4;
  const std::uint8_t* lower = slot + open_token(g, 0) * Task::kDim * 2;
  const std::uint8_t* upper = slot + open_token(g, 1) * Task::kDim * 2;
#pragma unroll
  for (int n = 0; n < kColumnGroups; ++n)
#pragma unroll
    for (int j = 0; j < 4; ++j)
      c[n][0][j] = 0.0f;
#pragma unroll
  for (int h = 0; h < Task::kSteps / 2; ++h) {
    const uint4 x = *reinterpret_cast<const uint4*>(lower + (h * 32 + t * 8) * 2);
    const uint4 y = *reinterpret_cast<const uint4*>(upper + (h * 32 + t * 8) * 2);
    const std::uint32_t a0[4] = {x.x, y.x, x.y, y.y};
    const std::uint32_t a1[4] = {x.z, y.z, x.w, y.w};
#pragma unroll
    for (int n = 0; n < kColumnGroups; ++n) {
      const auto& pairs = queries[n].pairs;
      mma_16x8x16<Half>(c[n][0], a0, pairs[h * 2][0], pairs[h * 2][1]);
      mma_16x8x16<Half>(c[n][0], a1, pairs[h * 2 + 1][0], pairs[h * 2 + 1][1]);
    }
  }
#pragma unroll
  for (int n = 0; n < kColumnGroups; ++n)
#pragma unroll
    for (int j = 0; j < 4; ++j)
      c[n][0][j] = open_token(g, j / 2) <= last[n][j % 2] ? c[n][0][j] * Task::kScale : -1e30f;
}

/// out += values^T p for a quarter of an open page, in the units of sealed values, whose sums carry a
/// power of two by row.
template <class Task>
__device__ __forceinline__ void open_column_values(ColumnStates<Task>& states,
                                                   const ColumnScores<1>& p,
                                                   const std::uint8_t* slot,
                                                   int lane) {
  using Fragments = quant::KvFragments<Task::Value::kBits>;
  const int g = lane / 4;
  const int t = lane % 4;
  std::uint32_t weights[kColumnGroups][2];
#pragma unroll
  for (int n = 0; n < kColumnGroups; ++n) {
    weights[n][0] = transpose_8x8(pack_pair<Half>(p[n][0][0], p[n][0][1]));
    weights[n][1] = transpose_8x8(pack_pair<Half>(p[n][0][2], p[n][0][3]));
  }
#pragma unroll
  for (int d = 0; d < Task::kSteps; ++d) {
    const uint2 x = *reinterpret_cast<const uint2*>(slot + ((d * 16 + g) * 16 + t * 4) * 2);
    const uint2 y = *reinterpret_cast<const uint2*>(slot + ((d * 16 + g + 8) * 16 + t * 4) * 2);
    const std::uint32_t a[4] = {x.x, y.x, x.y, y.y};
#pragma unroll
    for (int n = 0; n < kColumnGroups; ++n) {
      float c[4] = {};
      mma_16x8x16<Half>(c, a, weights[n][0], weights[n][1]);
#pragma unroll
      for (int j = 0; j < 4; ++j)
        states[n].out[d][j] =
            fmaf(c[j], 1.0f / (j < 2 ? Fragments::kLowerScale : Fragments::kUpperScale),
                 states[n].out[d][j]);
    }
  }
}

/// Eight columns, divided by their sums of weights, rounded. `out` [head_dim] is where column g goes,
/// null: nowhere.
template <class Task, Activation T>
__device__ __forceinline__ void store_columns(DecodeState<Task>& state, T* out, int lane) {
  using Fragments = quant::KvFragments<Task::Value::kBits>;
  float inverse[2];
#pragma unroll
  for (int j = 0; j < 2; ++j) {
#pragma unroll
    for (int step = 4; step < 32; step *= 2) {
      state.sum[j] += __shfl_xor_sync(0xffffffffu, state.sum[j], step);
      state.zero[j] += __shfl_xor_sync(0xffffffffu, state.zero[j], step);
    }
    inverse[j] = 1.0f / state.sum[j];
  }
#pragma unroll
  for (int d = 0; d < Task::kSteps; ++d) {
    float x[4];
#pragma unroll
    for (int j = 0; j < 4; ++j)
      x[j] = fmaf(state.out[d][j], j < 2 ? Fragments::kLowerScale : Fragments::kUpperScale,
                  state.zero[j % 2]) *
             inverse[j % 2];
    const std::uint32_t lower = transpose_8x8(pack_pair<T>(x[0], x[1]));
    const std::uint32_t upper = transpose_8x8(pack_pair<T>(x[2], x[3]));
    if (out == nullptr) continue;
    auto* to = reinterpret_cast<std::uint32_t*>(out + d * 16 + lane % 4 * 2);
    to[0] = lower;
    to[4] = upper;
  }
}

}  // namespace lmd::kernels::detail
