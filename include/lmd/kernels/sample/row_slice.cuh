/// \file  A row of logits shared out among the blocks of a cluster, and what they find out together.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/core/math.hpp>
#include <lmd/kernels/primitive/block_sum.cuh>
#include <lmd/kernels/primitive/cluster.cuh>
#include <lmd/kernels/sample/rank_key.hpp>

#include <cstdint>
#include <type_traits>

namespace lmd::kernels::detail {

inline constexpr int kSampleThreads = 512;
inline constexpr int kSampleWarps = kSampleThreads / kWarp;
inline constexpr int kLogitLoads = 8;  ///< 16-byte loads in flight, of a thread

/// Logits [first, first + n) of a row of `vocab`, in block `rank` of a cluster.
struct RowSlice {
  int rank;
  int size;   ///< blocks of the cluster
  int first;  ///< a multiple of 4
  int n;      ///< the last slices may be short or empty

  __device__ explicit RowSlice(int vocab) : rank(cluster_rank()), size(cluster_size()) {
    const int most = round_up(ceil_div(vocab, size), 4);
    first = min(rank * most, vocab);
    n = min(vocab - first, most);
  }
};

/// Calls `visit(j, x, count)` for this thread's share of `logits` [n]: x holds logits j .. j + count,
/// count is 4 or 1, and j ascends. Logit j is in the share of thread j / 4 % kSampleThreads, whatever n is:
/// what a thread learned about its logits holds for a second visit, and a place in shared memory is one
/// thread's alone. Loads in flight are worth their code for global memory only.
template <int kLoads, class Visit>
__device__ __forceinline__ void for_each_four(const float* logits,
                                              int n,
                                              bool is_aligned,
                                              Visit&& visit) {
  constexpr int kStep = 4 * kSampleThreads;
  const int t = static_cast<int>(threadIdx.x);
  const int whole = n / 4 * 4;
#pragma unroll 1
  for (int begin = 4 * t; begin < whole; begin += kLoads * kStep) {
    float4 x[kLoads];
#pragma unroll
    for (int u = 0; u < kLoads; ++u) {
      const int j = begin + u * kStep;
      if (j >= whole) continue;
      x[u] = is_aligned ? *reinterpret_cast<const float4*>(logits + j)
                        : float4{logits[j], logits[j + 1], logits[j + 2], logits[j + 3]};
    }
#pragma unroll
    for (int u = 0; u < kLoads; ++u) {
      const int j = begin + u * kStep;
      if (j < whole) visit(j, x[u], 4);
    }
  }
  if (t != whole / 4 % kSampleThreads) return;
  for (int j = whole; j < n; ++j)
    visit(j, float4{logits[j], 0.0f, 0.0f, 0.0f}, 1);
}

/// As for_each_four, one by one: `visit(j, x)`.
template <int kLoads, class Visit>
__device__ __forceinline__ void for_each_logit(const float* logits,
                                               int n,
                                               bool is_aligned,
                                               Visit&& visit) {
  for_each_four<kLoads>(logits, n, is_aligned, [&](int j, const float4& x, int count) {
    visit(j, x.x);
    if (count == 1) return;
    visit(j + 1, x.y);
    visit(j + 2, x.z);
    visit(j + 3, x.w);
  });
}

/// The best of the logits that a thread has seen.
struct BestLogit {
  float logit = -INFINITY;
  int j = 0;
  bool is_invalid = false;

  /// Ids come in ascending order, so that the lowest of equals stays.
  __device__ __forceinline__ void see(int at, float x) {
    is_invalid |= !(x < INFINITY);
    if (x > logit) {
      logit = x;
      j = at;
    }
  }
  [[nodiscard]] __device__ std::uint64_t key(int first) const {
    return is_invalid ? kInvalidKey : rank_key(logit, first + j);
  }
};

struct Smaller {
  static constexpr std::uint64_t kIdentity = kNoKey;
  static __device__ std::uint64_t of(std::uint64_t a, std::uint64_t b) { return a < b ? a : b; }
};

struct Sum {
  static constexpr std::uint64_t kIdentity = 0;
  static __device__ std::uint64_t of(std::uint64_t a, std::uint64_t b) { return a + b; }
};

template <class Op>
__device__ __forceinline__ std::uint64_t warp_reduce(std::uint64_t x) {
  if constexpr (std::is_same_v<Op, Smaller>) {  // one instruction for each half
    const auto high = static_cast<std::uint32_t>(x >> 32);
    const std::uint32_t least = __reduce_min_sync(0xffffffffu, high);
    const std::uint32_t low = high == least ? static_cast<std::uint32_t>(x) : ~0u;
    return std::uint64_t{least} << 32 | __reduce_min_sync(0xffffffffu, low);
  } else {
#pragma unroll
    for (int step = kWarp / 2; step > 0; step /= 2)
      x = Op::of(x, __shfl_xor_sync(0xffffffffu, x, step));
    return x;
  }
}

/// Room for one reduction over a cluster; each has its own, as no block may be overtaken.
struct ClusterReduction {
  std::uint64_t of_warp[kSampleWarps];
  std::uint64_t of_block[kMaxCluster];
};

/// `Op` over x of all threads of the cluster, in all of them. A barrier of the cluster: what was
/// written before it can be read behind it. The other blocks must be known to have begun.
template <class Op>
__device__ __forceinline__ std::uint64_t cluster_reduce(std::uint64_t x, ClusterReduction& room) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const int size = cluster_size();
  x = warp_reduce<Op>(x);
  if (lane == 0) room.of_warp[threadIdx.x / kWarp] = x;
  __syncthreads();
  if (threadIdx.x < kWarp) {
    x = warp_reduce<Op>(lane < kSampleWarps ? room.of_warp[lane] : Op::kIdentity);
    if (lane < size) *in_block(&room.of_block[cluster_rank()], lane) = x;
  }
  cluster_sync();
  return warp_reduce<Op>(lane < size ? room.of_block[lane] : Op::kIdentity);
}

/// Blocks a row: enough that a slice has at most `most` logits, and more while there are
/// multiprocessors for them, as clusters need several free ones side by side.
/// 2026-11-23 H200, top-k 40 + top-p 0.8 of 92,544: batch 1, 4 / 8 / 16 blocks 11.6 / 10.4 / 11.6 us;
/// batch 16, 2 / 4 / 8 blocks 15.8 / 12.2 / 19.3 us; batch 64, 2 / 4 blocks 17.7 / 31.8 us.
[[nodiscard]] inline int best_cluster(int m, int vocab, int most, int multiprocessors) {
  constexpr int kMostUseful = 8;
  constexpr int kWorthwhile = 4096;  // logits: below, a barrier costs more than the reading
  int cluster = 1;
  while (cluster < kMaxCluster && ceil_div(vocab, cluster) > most)
    cluster *= 2;
  while (cluster < kMostUseful && ceil_div(vocab, cluster) > kWorthwhile &&
         std::int64_t{2} * m * cluster <= multiprocessors * 3 / 4)
    cluster *= 2;
  return cluster;
}

}  // namespace lmd::kernels::detail
