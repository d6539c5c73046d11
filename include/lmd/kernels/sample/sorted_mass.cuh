/// \file  Probability mass in the order of the definition: bins over a cluster, and short sorted lists.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/kernels/sample/row_slice.cuh>

#include <cstdint>

namespace lmd::kernels::detail {

/// Bins or list entries: two of each for every thread.
inline constexpr int kMassBins = 2 * kSampleThreads;
inline constexpr int kMassBits = 10;
static_assert(kMassBins == 1 << kMassBits, "keys are split into bins by their bits");

/// Masses are whole numbers of this part of the best token's mass: their sums are exact, and so do
/// not depend on the order of the additions. 2^20 tokens of the largest stay below 2^64.
inline constexpr float kMassUnits = 0x1p43f;

/// The weight exp((x - max) / temperature) of a token.
struct Weights {
  float max;
  float inverse_temperature;

  /// The smallest temperatures have no finite inverse; 0 times it must stay 0.
  __device__ Weights(float largest, float temperature)
      : max(largest), inverse_temperature(fminf(1.0f / temperature, 3.0e38f)) {}
  [[nodiscard]] __device__ float of(float x) const { return expf((x - max) * inverse_temperature); }
  [[nodiscard]] static __device__ std::uint64_t mass(float weight) {
    return __float2ull_rn(weight * kMassUnits);
  }
};

/// Counts and masses of bins in shared memory. A 64-bit mass is two words with a carry: additions to
/// words are one instruction, those to pairs of words a loop that contention makes slow.
struct alignas(16) MassBins {
  std::uint32_t low[kMassBins];
  std::uint32_t high[kMassBins];
  std::uint32_t count[kMassBins];

  __device__ void clear() {
    for (int b = static_cast<int>(threadIdx.x); b < kMassBins; b += kSampleThreads)
      low[b] = high[b] = count[b] = 0;
  }
  __device__ void add_mass(int bin, std::uint64_t mass) {
    const auto low_part = static_cast<std::uint32_t>(mass);
    const std::uint32_t before = atomicAdd(&low[bin], low_part);
    const auto high_part = static_cast<std::uint32_t>(mass >> 32) + (before + low_part < before);
    if (high_part != 0) atomicAdd(&high[bin], high_part);
  }
};

/// Two neighbouring bins or entries of a thread, and what all before them hold.
struct MassPair {
  std::uint64_t mass[2] = {};
  std::uint32_t count[2] = {};
  std::uint64_t mass_before = 0;
  std::uint32_t count_before = 0;
  std::uint64_t total = 0;  ///< mass of all
};

struct PrefixRoom {
  std::uint64_t mass[kSampleWarps];
  std::uint32_t count[kSampleWarps];
};

/// What the lanes before this one have, and the sum of the warp.
template <class T>
__device__ __forceinline__ T lanes_before(T x, T* total) {
  T sum = x;
#pragma unroll
  for (int step = 1; step < kWarp; step *= 2) {
    const T more = __shfl_up_sync(0xffffffffu, sum, step);
    if (static_cast<int>(threadIdx.x) % kWarp >= step) sum += more;
  }
  *total = __shfl_sync(0xffffffffu, sum, kWarp - 1);
  return sum - x;
}

/// What the threads before this one have, and the sum of all; `of_warp` [kSampleWarps] is shared
/// memory. Barriers of the block.
template <class T>
__device__ __forceinline__ T sum_before(T x, T (&of_warp)[kSampleWarps], T* total) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const int warp = static_cast<int>(threadIdx.x) / kWarp;
  T of_lanes = 0;
  T before = lanes_before(x, &of_lanes);
  if (lane == 0) of_warp[warp] = of_lanes;
  __syncthreads();
  *total = 0;
#pragma unroll
  for (int w = 0; w < kSampleWarps; ++w) {
    *total += of_warp[w];
    if (w < warp) before += of_warp[w];
  }
  __syncthreads();
  return before;
}

/// Fills in what stands before the pair of each thread.
__device__ inline void prefix_masses(MassPair& p, PrefixRoom& room) {
  p.mass_before = sum_before<std::uint64_t>(p.mass[0] + p.mass[1], room.mass, &p.total);
}
__device__ inline void prefix_counts(MassPair& p, PrefixRoom& room) {
  std::uint32_t total = 0;
  p.count_before = sum_before<std::uint32_t>(p.count[0] + p.count[1], room.count, &total);
}

/// The thread's pair of words summed over the cluster's blocks.
__device__ __forceinline__ void gather_words(const std::uint32_t (&words)[kMassBins],
                                             int size,
                                             std::uint64_t (&sums)[2]) {
  constexpr int kAtOnce = 8;  // blocks whose answers are waited for together
  const int b = 2 * static_cast<int>(threadIdx.x);
  for (int begin = 0; begin < size; begin += kAtOnce) {
    uint2 there[kAtOnce] = {};
#pragma unroll
    for (int u = 0; u < kAtOnce; ++u) {
      if (begin + u < size)
        there[u] = *reinterpret_cast<const uint2*>(in_block(&words[b], begin + u));
    }
#pragma unroll
    for (int u = 0; u < kAtOnce; ++u) {
      sums[0] += there[u].x;
      sums[1] += there[u].y;
    }
  }
}

/// The thread's pair of bins summed over the cluster, which stands behind a barrier of its blocks.
__device__ inline MassPair gather_bins(const MassBins& bins, int size, PrefixRoom& room) {
  std::uint64_t counts[2] = {}, low[2] = {}, high[2] = {};
  gather_words(bins.count, size, counts);
  gather_words(bins.low, size, low);
  gather_words(bins.high, size, high);
  MassPair p;
#pragma unroll
  for (int c = 0; c < 2; ++c) {
    p.count[c] = static_cast<std::uint32_t>(counts[c]);
    p.mass[c] = (high[c] << 32) + low[c];
  }
  prefix_counts(p, room);
  prefix_masses(p, room);
  return p;
}

/// What is looked for in the order of the definition: the first place up to which `needed` tokens or
/// units of mass have come. 1 <= needed <= what there is.
struct Target {
  std::uint64_t needed;
  bool is_count;

  /// Which of the pair's two holds it, -1 if neither. Exactly one pair of the block has it.
  [[nodiscard]] __device__ int place_in(const MassPair& p) const {
    const std::uint64_t before = is_count ? p.count_before : p.mass_before;
    const std::uint64_t first = before + (is_count ? p.count[0] : p.mass[0]);
    const std::uint64_t second = first + (is_count ? p.count[1] : p.mass[1]);
    if (needed <= before || needed > second) return -1;
    return needed <= first ? 0 : 1;
  }
};

/// `share` of `whole` in units: the least sum that is not below it, or that is above it.
__device__ __forceinline__ std::uint64_t units_of(double share,
                                                  std::uint64_t whole,
                                                  bool is_above) {
  const double units = share * static_cast<double>(whole);
  const std::uint64_t needed = is_above ? __double2ull_rd(units) + 1 : __double2ull_ru(units);
  return min(max(needed, std::uint64_t{1}), whole);
}

/// Keys that block 0 of the cluster puts into order, and those that this block has for it.
struct KeyList {
  std::uint64_t keys[kMassBins];
  std::uint64_t own[kMassBins];
  int ranks[kMassBins];
  int n;      ///< of all that were sent; those beyond kMassBins are lost
  int n_own;  ///< 0 between lists
  int first;  ///< where this block's begin

  __device__ __forceinline__ void note(std::uint64_t key) {
    const int at = atomicAdd(&n_own, 1);
    if (at < kMassBins) own[at] = key;
  }
};

/// Sends what was noted to block 0: one reservation for all, as each takes a microsecond. Barriers of
/// the block; one of the cluster has to follow.
__device__ inline void send_keys(KeyList& list) {
  __syncthreads();
  const int n = list.n_own;
  if (n == 0) return;
  if (threadIdx.x == 0) list.first = atomicAdd(&in_block(&list, 0)->n, n);
  __syncthreads();
  const int first = list.first;
  std::uint64_t* there = in_block(&list.keys[0], 0);
  for (int i = static_cast<int>(threadIdx.x); i < min(n, kMassBins); i += kSampleThreads) {
    if (first + i < kMassBins) there[first + i] = list.own[i];
  }
  if (threadIdx.x == 0) list.n_own = 0;
}

/// Puts keys [n] into order by counting, for each, those before it.
__device__ inline void sort_few_keys(KeyList& list, int n, int padded) {
  const int t = static_cast<int>(threadIdx.x);
  const int i = t % padded;
  const std::uint64_t key = list.keys[i];
  int before = 0;
#pragma unroll 4
  for (int j = t / padded; j < n; j += kSampleThreads / padded)
    before += list.keys[j] < key ? 1 : 0;
  if (i < n) atomicAdd(&list.ranks[i], before);
  __syncthreads();
  if (t < n) list.own[list.ranks[t]] = key;
  __syncthreads();
  if (t < n) list.keys[t] = list.own[t];
}

/// Source: Batcher, Sorting networks and their applications, 1968.
__device__ inline void sort_many_keys(KeyList& list, int padded) {
  const int t = static_cast<int>(threadIdx.x);
  for (int length = 2; length <= padded; length *= 2) {
    for (int step = length / 2; step > 0; step /= 2) {
      if (t < padded / 2) {
        const int i = 2 * t - (t & (step - 1));
        const std::uint64_t a = list.keys[i];
        const std::uint64_t b = list.keys[i + step];
        const bool is_descending = (i & length) != 0;
        if ((a > b) != is_descending) {
          list.keys[i] = b;
          list.keys[i + step] = a;
        }
      }
      // A warp has 64 keys of its own while steps are short.
      if (step > kWarp || (step == 1 && length >= kWarp)) {
        __syncthreads();
      } else {
        __syncwarp();
      }
    }
  }
}

/// Sorts keys [n], n <= kMassBins, ascending. Behind a barrier; a barrier of the block at the end.
__device__ inline void sort_keys(KeyList& list, int n) {
  int padded = kWarp;
  while (padded < n)
    padded *= 2;
  for (int i = static_cast<int>(threadIdx.x); i < padded; i += kSampleThreads) {
    if (i >= n) list.keys[i] = kNoKey;
    list.ranks[i] = 0;
  }
  __syncthreads();
  if (padded <= kSampleThreads) {
    sort_few_keys(list, n, padded);
  } else {
    sort_many_keys(list, padded);
  }
  __syncthreads();
}

/// The thread's pair of sorted keys with their masses; entries from `n` on have none.
__device__ inline MassPair list_masses(const KeyList& list,
                                       int n,
                                       const Weights& weights,
                                       PrefixRoom& room) {
  MassPair p;
#pragma unroll
  for (int c = 0; c < 2; ++c) {
    const int i = 2 * static_cast<int>(threadIdx.x) + c;
    if (i >= n) continue;
    p.mass[c] = Weights::mass(weights.of(key_logit(list.keys[i])));
    p.count[c] = 1;
  }
  p.count_before = 2 * threadIdx.x;
  prefix_masses(p, room);
  return p;
}

}  // namespace lmd::kernels::detail
