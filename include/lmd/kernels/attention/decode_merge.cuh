/// \file  How the parts of a (sequence, KV head) pair that several warps and blocks of a decode step
///        have become one: within a block, within a cluster, or through global memory.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/core/launch.cuh>
#include <lmd/kernels/attention/decode_products.cuh>
#include <lmd/kernels/primitive/cluster.cuh>
#include <lmd/kernels/primitive/signal.cuh>

namespace lmd::kernels::detail {

/// Parts wander as records, one for each two elements of a pair's output: their unnormalised sums,
/// the maximum that these are relative to, the sum of weights.
using PartRecord = float4;

/// Floats of a block's part of one pair.
template <class Task>
LMD_HD constexpr int partial_stride() {
  return kMaxGroup * Task::kDim / 2 * static_cast<int>(sizeof(PartRecord) / sizeof(float));
}

/// The sum of n records, load(0) to load(n - 1), in this order; n > 0. Records are loaded several at a
/// time, and beyond the last one its like weighs nothing.
template <class Load>
__device__ __forceinline__ PartRecord merge_parts(int n, Load&& load) {
  constexpr int kAtOnce = 4;
  constexpr PartRecord kNothing{0.0f, 0.0f, -1e30f, 0.0f};
  PartRecord all = kNothing;
#pragma unroll 1
  for (int first = 0; first < n; first += kAtOnce) {
    PartRecord parts[kAtOnce];
#pragma unroll
    for (int j = 0; j < kAtOnce; ++j)
      parts[j] = load(min(first + j, n - 1));
#pragma unroll
    for (int j = 0; j < kAtOnce; ++j)
      if (first + j >= n) parts[j].z = kNothing.z;
    float max = all.z;
#pragma unroll
    for (int j = 0; j < kAtOnce; ++j)
      max = fmaxf(max, parts[j].z);
    const float shrink = exp2_approx(all.z - max);
    all = {all.x * shrink, all.y * shrink, max, all.w * shrink};
#pragma unroll
    for (int j = 0; j < kAtOnce; ++j) {
      const float weight = exp2_approx(parts[j].z - max);
      all.x = fmaf(weight, parts[j].x, all.x);
      all.y = fmaf(weight, parts[j].y, all.y);
      all.w = fmaf(weight, parts[j].w, all.w);
    }
  }
  return all;
}

/// This warp's state -> shared memory, in units of the values.
template <class Task>
__device__ __forceinline__ void store_part(
    const DecodeState<Task>& state, float* part, float* stats, int group, int lane) {
  using Fragments = quant::KvFragments<Task::Value::kBits>;
  const int g = lane / 4;
  const int t = lane % 4;
#pragma unroll
  for (int j = 0; j < 2; ++j) {
    float sum = state.sum[j];
    float zero = state.zero[j];
#pragma unroll
    for (int step = 4; step < 32; step *= 2) {
      sum += __shfl_xor_sync(0xffffffffu, sum, step);
      if constexpr (Task::Value::kAxis == quant::ParamAxis::kToken)
        zero += __shfl_xor_sync(0xffffffffu, zero, step);
    }
    const int h = 2 * t + j;
    if (h >= group) continue;
    float* to = part + h * Task::kDim + g;
#pragma unroll
    for (int d = 0; d < Task::kSteps; ++d) {
      to[d * 16] = fmaf(state.out[d][j], Fragments::kLowerScale, zero);
      to[d * 16 + 8] = fmaf(state.out[d][j + 2], Fragments::kUpperScale, zero);
    }
    if (g == 0) {
      stats[h] = state.max[j];
      stats[group + h] = sum;
    }
  }
}

/// What the warps of a block have left in shared memory of a job, and where it goes.
template <class Task, Activation T>
struct DecodeMerge {
  const DecodeStepArgs<T>& args;
  const DecodeJob& job;
  const std::uint8_t* parts;  ///< of the first warp; those of others follow
  int part_stride;            ///< bytes
  const float* stats;         ///< [warp][maxima, sums of weights][group]
  std::uint8_t* inbox;        ///< [block of the cluster][slice] records
  std::uint32_t inbox_barrier;
  int group;
  int records = group * Task::kDim / 2;  ///< of a part

  __device__ __forceinline__ void store_out(int i, const PartRecord& sum) const {
    const BasicAttentionStepArgs<T>& a = args.step;
    const float inverse = __fdividef(1.0f, sum.w);
    const std::int64_t row = a.chunks[job.b].first_row;
    T* out = a.out + (row * a.heads + job.kvh * group) * Task::kDim;
    reinterpret_cast<std::uint32_t*>(out)[i] = pack_pair<T>(sum.x * inverse, sum.y * inverse);
  }

  [[nodiscard]] __device__ __forceinline__ PartRecord* partial_of(int piece) const {
    return reinterpret_cast<PartRecord*>(
        args.workspace.partial + std::int64_t{job.partial + piece} * partial_stride<Task>());
  }
  [[nodiscard]] __device__ __forceinline__ bool is_in_cluster() const {
    return kDeviceArch.has_clusters() && job.partial < 0 && job.pieces > 1;
  }

  /// log2 of the records of the slice of the output that each block of the cluster puts together.
  [[nodiscard]] __device__ __forceinline__ int slice_bits() const {
    const int bits = __clz(job.pieces) - __clz(records);  // the least, or one below
    return job.pieces << bits < records ? bits + 1 : bits;
  }

  /// Announces what will come into the inbox, and that this block has begun.
  __device__ __forceinline__ void open_inbox() const {
    if (threadIdx.x == 0) {
      const int bits = slice_bits();
      const int own = min(1 << bits, max(records - (job.piece << bits), 0));
      init_barrier(inbox_barrier, 1);
      publish_barriers();
      expect_bytes(inbox_barrier, job.pieces * own * static_cast<int>(sizeof(PartRecord)));
    }
    cluster_arrive_relaxed();
  }

  /// Adds up what the warps have, and passes it on. Then all is written that this block writes, unless
  /// others have parts.
  __device__ __forceinline__ void in_block() const {
    const int n = min(static_cast<int>(blockDim.x) / 32, job.tasks);
    const auto part = [&](int warp, int i) {
      const float2 value = *reinterpret_cast<const float2*>(parts + warp * part_stride +
                                                            i * static_cast<int>(sizeof(float2)));
      const float* stat = stats + warp * 2 * group + i / (Task::kDim / 2);
      return PartRecord{value.x, value.y, stat[0], stat[group]};
    };
#pragma unroll 1
    for (int i = threadIdx.x; i < records; i += blockDim.x)
      hand_on(i, merge_parts(n, [&](int warp) { return part(warp, i); }));
  }

  __device__ __forceinline__ void hand_on(int i, const PartRecord& sum) const {
    if (job.pieces == 1) {
      store_out(i, sum);
    } else if (is_in_cluster()) {
      const int bits = slice_bits();
      const int at = (job.piece << bits) + (i & ((1 << bits) - 1));
      store_in_block(shared_address(inbox) + at * static_cast<int>(sizeof(PartRecord)),
                     inbox_barrier, i >> bits, sum);
    } else {
      partial_of(job.piece)[i] = sum;
    }
  }

  /// Puts the parts of the blocks of a cluster together: this block's slice of the output.
  __device__ __forceinline__ void in_cluster() const {
    const int bits = slice_bits();
    const int at = threadIdx.x;
    const int i = (job.piece << bits) + at;
    wait_barrier(inbox_barrier, 0);
    if (at >= 1 << bits || i >= records) return;
    const auto* received = reinterpret_cast<const PartRecord*>(inbox) + at;
    store_out(i, merge_parts(job.pieces, [&](int j) { return received[j << bits]; }));
  }

  /// A pair that several blocks have parts of is put together by the block that ends last. `is_last`
  /// lies in shared memory.
  __device__ __forceinline__ void across_blocks(bool& is_last) const {
    __syncthreads();
    if (threadIdx.x == 0) is_last = arrive();
    __syncthreads();
    if (!is_last) return;
#pragma unroll 1
    for (int i = threadIdx.x; i < records; i += blockDim.x)
      store_out(i, merge_parts(job.pieces, [&](int j) { return __ldcg(partial_of(j) + i); }));
  }

  /// Whether all others have arrived: what their threads, and this block's, wrote before is then seen.
  /// The last one leaves the counter as it was found.
  __device__ __forceinline__ bool arrive() const {
    int* counter = args.workspace.counters + job.b * args.step.kv_heads + job.kvh;
    if (add_acquire_release(counter, 1) != job.pieces - 1) return false;
    *counter = 0;
    return true;
  }
};

}  // namespace lmd::kernels::detail
