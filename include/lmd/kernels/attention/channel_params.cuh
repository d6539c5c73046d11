/// \file  Keys whose parameters belong to channels: the queries take them over.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/kernels/primitive/mma.cuh>

namespace lmd::kernels::detail {

/// q . (scale code + zero) = (q scale) . code + q . zero: `pairs`, eight queries as B fragments of `Steps`
/// products, become q scale; `zeros` is q . zero of queries 2 t and 2 t + 1.
///
/// Layout:  params [16 Steps] (scale, zero) halves of the page's channels.
template <int Steps>
__device__ __forceinline__ void fold_channel_params(std::uint32_t (&pairs)[Steps][2],
                                                    float (&zeros)[2],
                                                    const std::uint8_t* params,
                                                    int lane) {
  const int t = lane % 4;
  float dot = 0.0f;
#pragma unroll
  for (int s = 0; s < Steps; ++s) {
    const uint4 p = *reinterpret_cast<const uint4*>(params + (s / 2 * 32 + t * 8 + s % 2 * 4) * 4);
    const float q0 = low_of<Half>(pairs[s][0]);
    const float q1 = high_of<Half>(pairs[s][0]);
    const float q2 = low_of<Half>(pairs[s][1]);
    const float q3 = high_of<Half>(pairs[s][1]);
    dot = fmaf(q0, high_of<Half>(p.x), fmaf(q1, high_of<Half>(p.y), dot));
    dot = fmaf(q2, high_of<Half>(p.z), fmaf(q3, high_of<Half>(p.w), dot));
    pairs[s][0] = pack_pair<Half>(q0 * low_of<Half>(p.x), q1 * low_of<Half>(p.y));
    pairs[s][1] = pack_pair<Half>(q2 * low_of<Half>(p.z), q3 * low_of<Half>(p.w));
  }
  dot += __shfl_xor_sync(0xffffffffu, dot, 1);
  dot += __shfl_xor_sync(0xffffffffu, dot, 2);  // of query g
  zeros[0] = __shfl_sync(0xffffffffu, dot, 8 * t);
  zeros[1] = __shfl_sync(0xffffffffu, dot, 8 * t + 4);
}

}  // namespace lmd::kernels::detail
