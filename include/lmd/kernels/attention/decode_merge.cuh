/// \file  How the parts of a (sequence, KV head) pair that several warps and blocks of a decode step
///        have become one: within a block, within a cluster, or through global memory.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/core/launch.cuh>
#include <lmd/kernels/attention/decode_products.cuh>
#include <lmd/kernels/primitive/cluster.cuh>

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
  constexpr int kAtOnce = 8;
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

/// A warp's part of a pair, in shared memory.
struct alignas(16) PartEntry {
  int pair;  ///< b * kv_heads + kvh, or -1
  int at;    ///< bytes from the start of shared memory: [group, head_dim] f32
  int row;   ///< of out
  int kvh;
};

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

/// What the warps of a block have left in shared memory, and where it goes.
template <class Task, Activation T>
struct DecodeMerge {
  static constexpr int kThreads = kDecodeWarps * 32;

  const DecodeStepArgs<T>& args;
  const BasicAttentionStepArgs<T>& a;
  const DecodeBlockShare& work;
  const std::uint8_t* shared;
  const PartEntry* entries;  ///< [warp][first pair, last pair if it is another one]
  const float* stats;        ///< [warp][2][maxima, sums of weights][group]
  std::uint8_t* inbox;       ///< [block of the cluster][slice] records
  std::uint32_t inbox_barrier;
  int group;
  int records = group * Task::kDim / 2;  ///< of a part

  __device__ __forceinline__ void store_out(int row, int kvh, int i, const PartRecord& sum) const {
    const float inverse = __fdividef(1.0f, sum.w);
    T* out = a.out + (std::int64_t{row} * a.heads + kvh * group) * Task::kDim;
    reinterpret_cast<std::uint32_t*>(out)[i] = pack_pair<T>(sum.x * inverse, sum.y * inverse);
  }

  /// A block writes parts of a pair that came into the first place, of one that goes on into the
  /// second.
  [[nodiscard]] __device__ __forceinline__ PartRecord* partial_of(int block, bool came) const {
    return reinterpret_cast<PartRecord*>(args.workspace.partial +
                                         (std::int64_t{block} * 2 + (came ? 0 : 1)) *
                                             partial_stride<Task>());
  }

  /// Blocks of the cluster that have a part of the pair, and log2 of the records of the slice of the
  /// output that each of them puts together.
  struct Slices {
    int blocks, bits;
  };
  [[nodiscard]] __device__ __forceinline__ Slices slices() const {
    const int first = work.came >= 0 ? work.came_from : static_cast<int>(blockIdx.x);
    const int blocks = (work.came >= 0 ? work.came_to : work.goes_to) - first + 1;
    Slices s{.blocks = blocks, .bits = __clz(blocks) - __clz(records)};  // the least, or one below
    if (blocks << s.bits < records) ++s.bits;
    return s;
  }

  /// Announces what will come into the inbox, and that this block has begun.
  __device__ __forceinline__ void open_inbox() const {
    if (threadIdx.x == 0) {
      const Slices s = slices();
      const int own = min(1 << s.bits, max(records - (cluster_rank() << s.bits), 0));
      init_barrier(inbox_barrier, 1);
      publish_barriers();
      expect_bytes(inbox_barrier, s.blocks * own * static_cast<int>(sizeof(PartRecord)));
    }
    cluster_arrive_relaxed();
  }

  /// Adds up what the warps have of each pair. All threads share the only pair of a block; else each
  /// warp takes the pairs that begin in it.
  __device__ __forceinline__ void in_block() const {
    const int warp = threadIdx.x / 32;
    const int threads = work.is_one_pair != 0 ? kThreads : 32;
    const int thread = work.is_one_pair != 0 ? threadIdx.x : threadIdx.x % 32;
    const int owner = work.is_one_pair != 0 ? 0 : warp;
#pragma unroll 1
    for (int k = 0; k < 2; ++k) {
      const int first = owner * 2 + k;
      const PartEntry entry = entries[first];
      if (entry.pair < 0) continue;
      const bool is_continued =
          k == 0 && owner > 0 &&
          (entries[first - 1].pair == entry.pair || entries[first - 2].pair == entry.pair);
      if (is_continued) continue;
      int n = min(kDecodeWarps, work.tasks);
      if (work.is_one_pair == 0) {
        n = 1;
        while (owner + n < kDecodeWarps && entries[(owner + n) * 2].pair == entry.pair)
          ++n;
      }
      const auto part = [&](int j, int i) {
        const int e = j == 0 ? first : (owner + j) * 2;
        const float2 value =
            *reinterpret_cast<const float2*>(shared + entries[e].at + i * sizeof(float2));
        const float* stat = stats + e * 2 * group + i / (Task::kDim / 2);
        return PartRecord{value.x, value.y, stat[0], stat[group]};
      };
#pragma unroll 1
      for (int i = thread; i < records; i += threads)
        hand_on(entry, i, merge_parts(n, [&](int j) { return part(j, i); }));
    }
  }

  __device__ __forceinline__ void hand_on(const PartEntry& entry,
                                          int i,
                                          const PartRecord& sum) const {
    const bool came = entry.pair == work.came;
    if (!came && entry.pair != work.goes) {
      store_out(entry.row, entry.kvh, i, sum);
    } else if (kDeviceArch.has_clusters() && work.in_cluster != 0) {
      const int bits = slices().bits;
      const int at = (cluster_rank() << bits) + (i & ((1 << bits) - 1));
      store_in_block(shared_address(inbox) + at * static_cast<int>(sizeof(PartRecord)),
                     inbox_barrier, i >> bits, sum);
    } else {
      partial_of(blockIdx.x, came)[i] = sum;
    }
  }

  /// Puts the parts of the blocks of a cluster together: this block's slice of the output.
  __device__ __forceinline__ void in_cluster() const {
    const Slices s = slices();
    const int at = threadIdx.x;
    const int i = (cluster_rank() << s.bits) + at;
    wait_barrier(inbox_barrier, 0);
    if (at >= 1 << s.bits || i >= records) return;
    const auto* parts = reinterpret_cast<const PartRecord*>(inbox) + at;
    store_out(entries[0].row, entries[0].kvh, i,
              merge_parts(s.blocks, [&](int j) { return parts[j << s.bits]; }));
  }

  /// Pairs that several blocks have parts of are put together by the block that ends last. `is_last`
  /// [2] lies in shared memory.
  __device__ __forceinline__ void across_blocks(bool* is_last) const {
    __syncthreads();
    if (threadIdx.x == 0) {
      is_last[0] = work.came >= 0 && arrive(work.came, work.came_to - work.came_from);
      is_last[1] = work.goes >= 0 && arrive(work.goes, work.goes_to - static_cast<int>(blockIdx.x));
    }
    __syncthreads();
#pragma unroll 1
    for (int k = 0; k < 2; ++k) {
      if (!is_last[k]) continue;
      const int pair = k == 0 ? work.came : work.goes;
      const int from = k == 0 ? work.came_from : static_cast<int>(blockIdx.x);
      const int to = k == 0 ? work.came_to : work.goes_to;
      const int b = pair / a.kv_heads;
      const int row = a.chunks[b].first_row;
#pragma unroll 1
      for (int i = threadIdx.x; i < records; i += kThreads) {
        store_out(row, pair - b * a.kv_heads, i, merge_parts(to - from + 1, [&](int j) {
                    return __ldcg(partial_of(from + j, j > 0) + i);
                  }));
      }
    }
  }

  /// Whether all others have arrived: what their threads, and this block's, wrote before is then seen.
  /// The last one leaves the counter as it was found.
  __device__ __forceinline__ bool arrive(int pair, int others) const {
    int* counter = args.workspace.counters + pair;
    int before = 0;
    asm volatile("atom.add.acq_rel.gpu.global.s32 %0, [%1], 1;"
                 : "=r"(before)
                 : "l"(__cvta_generic_to_global(counter))
                 : "memory");
    if (before != others) return false;
    *counter = 0;
    return true;
  }
};

}  // namespace lmd::kernels::detail
