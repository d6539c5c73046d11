/// \file  One warp's products of a decode step: scores, running softmax, weighted values.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/kernels/attention/channel_params.cuh>
#include <lmd/kernels/attention/decode_task.cuh>
#include <lmd/kernels/attention/rotated_head.cuh>
#include <lmd/quant/fast_decode.cuh>

namespace lmd::kernels::detail {

__device__ __forceinline__ float exp2_approx(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

/// The running softmax of one warp over the tasks of one (sequence, KV head). Lane 4 g + t holds
/// queries 2 t and 2 t + 1 of the group, and elements g and g + 8 of each 16 of the head.
template <class Task>
struct DecodeState {
  float max[2];
  float sum[2];
  float zero[2];  ///< sum of p * zero point of the values, where they have them
  float out[Task::kSteps][4];

  __device__ __forceinline__ void reset() {
#pragma unroll
    for (int j = 0; j < 2; ++j) {
      max[j] = -1e30f;
      sum[j] = zero[j] = 0.0f;
    }
#pragma unroll
    for (int d = 0; d < Task::kSteps; ++d)
#pragma unroll
      for (int j = 0; j < 4; ++j)
        out[d][j] = 0.0f;
  }

  /// Scores of `Tiles` x 16 tokens, in units of log2, -> unnormalised weights, in place.
  template <int Tiles>
  __device__ __forceinline__ void weigh(float (&c)[Tiles][4]) {
    float new_max[2] = {max[0], max[1]};
#pragma unroll
    for (int i = 0; i < Tiles; ++i) {
      new_max[0] = fmaxf(new_max[0], fmaxf(c[i][0], c[i][2]));
      new_max[1] = fmaxf(new_max[1], fmaxf(c[i][1], c[i][3]));
    }
#pragma unroll
    for (int step = 4; step < 32; step *= 2) {
      new_max[0] = fmaxf(new_max[0], __shfl_xor_sync(0xffffffffu, new_max[0], step));
      new_max[1] = fmaxf(new_max[1], __shfl_xor_sync(0xffffffffu, new_max[1], step));
    }
    if (__any_sync(0xffffffffu, new_max[0] > max[0] || new_max[1] > max[1])) {
#pragma unroll
      for (int j = 0; j < 2; ++j) {
        const float shrink = exp2_approx(max[j] - new_max[j]);
        max[j] = new_max[j];
        sum[j] *= shrink;
        zero[j] *= shrink;
#pragma unroll
        for (int d = 0; d < Task::kSteps; ++d) {
          out[d][j] *= shrink;
          out[d][j + 2] *= shrink;
        }
      }
    }
#pragma unroll
    for (int i = 0; i < Tiles; ++i) {
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        c[i][j] = exp2_approx(c[i][j] - max[j % 2]);
        sum[j % 2] += c[i][j];
      }
    }
  }
};

/// Queries of one KV head as B fragments, rotated; heads beyond the group are zeros.
template <class Task, Activation T>
struct DecodeQuery {
  std::uint32_t pairs[Task::kSteps][2];
  float sums[2];  ///< of the elements of queries 2 t and 2 t + 1, where keys have zero points

  __device__ __forceinline__ void load(const T* q, const float* rotation, int group, int lane) {
    const int g = lane / 4;
    const int t = lane % 4;
    uint4 rotated[Task::kDim / 32];
    load_rotated<Task::kDim>(rotated, g < group ? q + g * Task::kDim : nullptr, rotation, t);
    float sum = 0.0f;
#pragma unroll
    for (int h = 0; h < Task::kDim / 32; ++h) {
      const std::uint32_t parts[4] = {rotated[h].x, rotated[h].y, rotated[h].z, rotated[h].w};
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        pairs[h * 2 + i / 2][i % 2] = parts[i];
        sum += low_of<Half>(parts[i]) + high_of<Half>(parts[i]);
      }
    }
    if constexpr (Task::Key::kAxis == quant::ParamAxis::kToken) {
      sum += __shfl_xor_sync(0xffffffffu, sum, 1);
      sum += __shfl_xor_sync(0xffffffffu, sum, 2);  // of query g
      sums[0] = __shfl_sync(0xffffffffu, sum, 8 * t);
      sums[1] = __shfl_sync(0xffffffffu, sum, 8 * t + 4);
    }
  }
};

/// c[i] = log2(e) / sqrt(head_dim) * keys . queries for the token tiles of a sealed part.
template <class Task, Activation T>
__device__ __forceinline__ void sealed_scores(float (&c)[Task::kTiles][4],
                                              const std::uint8_t* slot,
                                              const DecodeQuery<Task, T>& q,
                                              float scale,
                                              int lane) {
  using Fragments = quant::KvFragments<Task::Key::kBits>;
  constexpr quant::ParamAxis kAxis = Task::Key::kAxis;
  constexpr int kPerVector = Fragments::kStepsPerVector;
  const int g = lane / 4;
  const std::uint8_t* params = slot + Task::kKeyBytes;
  std::uint32_t pairs[Task::kSteps][2];
  float zero[2] = {0.0f, 0.0f};
#pragma unroll
  for (int s = 0; s < Task::kSteps; ++s) {
    pairs[s][0] = q.pairs[s][0];
    pairs[s][1] = q.pairs[s][1];
  }
  if constexpr (kAxis == quant::ParamAxis::kChannel) {
    fold_channel_params(pairs, zero, params, lane);
    zero[0] *= scale;
    zero[1] *= scale;
  }
#pragma unroll
  for (int i = 0; i < Task::kTiles; ++i)
#pragma unroll
    for (int j = 0; j < 4; ++j)
      c[i][j] = 0.0f;
#pragma unroll
  for (int v = 0; v < Task::kTiles * Task::kSteps / kPerVector; ++v) {
    const uint4 codes = Fragments::template load<Task::kSteps>(slot, v, lane);
#pragma unroll
    for (int i = 0; i < kPerVector; ++i) {
      const int step = v * kPerVector + i;
      std::uint32_t a[4];
      Fragments::step(codes, i, a);
      mma_16x8x16<Half>(c[step / Task::kSteps], a, pairs[step % Task::kSteps][0],
                        pairs[step % Task::kSteps][1]);
    }
  }
#pragma unroll
  for (int i = 0; i < Task::kTiles; ++i) {
    float key_scale[2] = {scale * Fragments::kLowerScale, scale * Fragments::kUpperScale};
    float key_zero[2] = {0.0f, 0.0f};
    if constexpr (kAxis == quant::ParamAxis::kToken) {
      const uint2 p = *reinterpret_cast<const uint2*>(params + i * 64 + g * 8);
      key_scale[0] *= low_of<Half>(p.x);
      key_scale[1] *= low_of<Half>(p.y);
      key_zero[0] = high_of<Half>(p.x) * scale;
      key_zero[1] = high_of<Half>(p.y) * scale;
    }
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      const float offset =
          kAxis == quant::ParamAxis::kToken ? key_zero[j / 2] * q.sums[j % 2] : zero[j % 2];
      c[i][j] = fmaf(c[i][j], key_scale[j / 2], offset);
    }
  }
}

/// out += values^T p for the token tiles of a sealed part. Codes have a mean that the zero points take
/// away again, and tensor cores truncate: a running sum over thousands of tokens loses what is left
/// then. So a part's 8-bit codes are summed alone, and its sums are added in f32, which rounds.
template <class Task>
__device__ __forceinline__ void sealed_values(DecodeState<Task>& state,
                                              const float (&p)[Task::kTiles][4],
                                              const std::uint8_t* slot,
                                              int lane) {
  using Fragments = quant::KvFragments<Task::Value::kBits>;
  constexpr int kPerVector = Fragments::kStepsPerVector;
  constexpr bool kIsAlone = Task::Value::kBits == 8;
  constexpr int kFew = Task::kSteps % 4 == 0 ? 4 : 2;
  constexpr int kPart =
      kIsAlone ? kFew : Task::kSteps;  // steps of the head that are summed at once
  const std::uint8_t* params = slot + Task::kValueBytes;
  std::uint32_t weights[Task::kTiles][2];
#pragma unroll
  for (int i = 0; i < Task::kTiles; ++i) {
    float scale[2] = {1.0f, 1.0f};
    if constexpr (Task::Value::kAxis == quant::ParamAxis::kToken) {
      const uint2 pair = *reinterpret_cast<const uint2*>(params + i * 64 + lane / 4 * 8);
      scale[0] = low_of<Half>(pair.x);
      scale[1] = low_of<Half>(pair.y);
      const float zero[2] = {high_of<Half>(pair.x), high_of<Half>(pair.y)};
#pragma unroll
      for (int j = 0; j < 4; ++j)
        state.zero[j % 2] = fmaf(p[i][j], zero[j / 2], state.zero[j % 2]);
    }
    weights[i][0] = transpose_8x8(pack_pair<Half>(p[i][0] * scale[0], p[i][1] * scale[0]));
    weights[i][1] = transpose_8x8(pack_pair<Half>(p[i][2] * scale[1], p[i][3] * scale[1]));
  }
#pragma unroll
  for (int first = 0; first < Task::kSteps; first += kPart) {
    float sums[kPart][4];
#pragma unroll
    for (int d = 0; d < kPart; ++d)
#pragma unroll
      for (int j = 0; j < 4; ++j)
        sums[d][j] = kIsAlone ? 0.0f : state.out[first + d][j];
#pragma unroll
    for (int i = 0; i < Task::kTiles; ++i) {
#pragma unroll
      for (int d = 0; d < kPart; ++d) {
        const int step = i * Task::kSteps + first + d;
        const uint4 codes = Fragments::template load<1>(slot, step / kPerVector, lane);
        std::uint32_t a[4];
        Fragments::step(codes, step % kPerVector, a);
        mma_16x8x16<Half>(sums[d], a, weights[i][0], weights[i][1]);
      }
    }
#pragma unroll
    for (int d = 0; d < kPart; ++d)
#pragma unroll
      for (int j = 0; j < 4; ++j)
        state.out[first + d][j] = kIsAlone ? state.out[first + d][j] + sums[d][j] : sums[d][j];
  }
}

/// Row r of a quarter of an open page is token 4 (r % 8 / 2) + 2 (r / 8) + r % 2: a thread then
/// holds four neighbouring tokens.
__device__ __forceinline__ int open_token(int g, int upper) {
  return g / 2 * 4 + upper * 2 + g % 2;
}

/// The same for a quarter of an open page, of which tokens up to `last` count. Tiles beyond the first
/// have no tokens.
template <class Task, Activation T>
__device__ __forceinline__ void open_scores(float (&c)[Task::kTiles][4],
                                            const std::uint8_t* slot,
                                            const DecodeQuery<Task, T>& q,
                                            float scale,
                                            int last,
                                            int lane) {
  const int g = lane / 4;
  const int t = lane % 4;
  const std::uint8_t* lower = slot + open_token(g, 0) * Task::kDim * 2;
  const std::uint8_t* upper = slot + open_token(g, 1) * Task::kDim * 2;
#pragma unroll
  for (int j = 0; j < 4; ++j)
    c[0][j] = 0.0f;
#pragma unroll
  for (int h = 0; h < Task::kSteps / 2; ++h) {
    const uint4 x = *reinterpret_cast<const uint4*>(lower + (h * 32 + t * 8) * 2);
    const uint4 y = *reinterpret_cast<const uint4*>(upper + (h * 32 + t * 8) * 2);
    const std::uint32_t a0[4] = {x.x, y.x, x.y, y.y};
    const std::uint32_t a1[4] = {x.z, y.z, x.w, y.w};
    mma_16x8x16<Half>(c[0], a0, q.pairs[h * 2][0], q.pairs[h * 2][1]);
    mma_16x8x16<Half>(c[0], a1, q.pairs[h * 2 + 1][0], q.pairs[h * 2 + 1][1]);
  }
#pragma unroll
  for (int j = 0; j < 4; ++j) {
    c[0][j] = open_token(g, j / 2) <= last ? c[0][j] * scale : -1e30f;
#pragma unroll
    for (int i = 1; i < Task::kTiles; ++i)
      c[i][j] = -1e30f;
  }
}

/// out += values^T p for a quarter. Sums of sealed values carry a power of two by row, which these
/// are given too, so that one factor serves all at the end.
template <class Task>
__device__ __forceinline__ void open_values(DecodeState<Task>& state,
                                            const float (&p)[Task::kTiles][4],
                                            const std::uint8_t* slot,
                                            int lane) {
  using Fragments = quant::KvFragments<Task::Value::kBits>;
  const int g = lane / 4;
  const int t = lane % 4;
  const std::uint32_t w0 = transpose_8x8(pack_pair<Half>(p[0][0], p[0][1]));
  const std::uint32_t w1 = transpose_8x8(pack_pair<Half>(p[0][2], p[0][3]));
#pragma unroll
  for (int d = 0; d < Task::kSteps; ++d) {
    const uint2 x = *reinterpret_cast<const uint2*>(slot + ((d * 16 + g) * 16 + t * 4) * 2);
    const uint2 y = *reinterpret_cast<const uint2*>(slot + ((d * 16 + g + 8) * 16 + t * 4) * 2);
    const std::uint32_t a[4] = {x.x, y.x, x.y, y.y};
    float c[4] = {};
    mma_16x8x16<Half>(c, a, w0, w1);
#pragma unroll
    for (int j = 0; j < 4; ++j)
      state.out[d][j] = fmaf(c[j], 1.0f / (j < 2 ? Fragments::kLowerScale : Fragments::kUpperScale),
                             state.out[d][j]);
  }
}

/// Key and value of the new token: read early, as a warp that reads them only when it writes them
/// waits for memory then. The first lanes have eight elements of the key each, the next of the value.
template <class Task, Activation T>
struct NewToken {
  using Order = cache::FragmentOpenOrder;
  static constexpr int kDim = Task::kDim;
  static constexpr int kLanes = kDim / 8;
  static_assert(2 * kLanes <= 32, "a warp holds a key and a value");
  uint4 elements{};

  /// Where this lane's elements are, given where the key's and the value's are; 0 where it has none.
  __device__ __forceinline__ static int place(int key_at, int value_at, int lane) {
    if (lane >= 2 * kLanes) return 0;
    return lane < kLanes ? key_at + lane * 8 : value_at + (lane - kLanes) * 8;
  }
  __device__ __forceinline__ void load(const T* at) {
    elements = *reinterpret_cast<const uint4*>(at);
  }

  /// The rotated key -> the open page and this warp's slot, which holds the rest of the quarter.
  __device__ __forceinline__ void append_key(
      Half* open_keys, const float* rotation, int token, std::uint8_t* slot, int lane) const {
    const bool is_lower = lane < kLanes / 2;
    const int other = is_lower ? lane + kLanes / 2 : lane - kLanes / 2;
    const uint4 partner{
        __shfl_sync(0xffffffffu, elements.x, other), __shfl_sync(0xffffffffu, elements.y, other),
        __shfl_sync(0xffffffffu, elements.z, other), __shfl_sync(0xffffffffu, elements.w, other)};
    if (lane >= kLanes) return;
    const float* cosine = rotation + (is_lower ? lane : other) * 8;
    const uint4 key =
        rotate<T>(elements, partner, cosine, cosine + kDim / 2, is_lower ? -1.0f : 1.0f);
    *reinterpret_cast<uint4*>(slot + (token % 16 * kDim + lane * 8) * 2) = key;
    *reinterpret_cast<uint4*>(open_keys + Order::key_at(token, lane * 8, kDim)) = key;
  }

  /// The same with the value.
  __device__ __forceinline__ void append_value(Half* open_values,
                                               int token,
                                               std::uint8_t* slot,
                                               int lane) const {
    if (lane < kLanes || lane >= 2 * kLanes) return;
    auto* values = reinterpret_cast<Half*>(slot) + token % 16;
    const std::uint32_t pairs[4] = {elements.x, elements.y, elements.z, elements.w};
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      const int d = (lane - kLanes) * 8 + i;
      const Half v = to_half(i % 2 == 0 ? low_of<T>(pairs[i / 2]) : high_of<T>(pairs[i / 2]));
      values[d * 16] = v;
      open_values[Order::value_at(token, d, kDim)] = v;
    }
  }
};

}  // namespace lmd::kernels::detail
