/// \file  How the blocks of a cluster draw one row's token.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/core/launch.cuh>
#include <lmd/kernels/sample/row_logits.cuh>
#include <lmd/kernels/sample/uniform_draw.hpp>

namespace lmd::kernels::detail {

/// Up to this top_k the best tokens are listed at once.
inline constexpr int kMaxListedTopK = 512;
/// Logits of a block at most: 192 KiB beside 33 KiB of bins and lists.
inline constexpr int kMaxSlice = 48 * 1024;
static_assert(kMaxSlice <= 2 * kMassBins * 32, "a bit for each logit in the words of two bins");

struct SampleShared {
  SamplingRow row;
  MassBins bins;
  KeyList list;
  PrefixRoom room;
  ClusterReduction reductions[4];
  int limit;  ///< of the bins of candidates
  struct {
    std::uint64_t mass_before;
    std::uint32_t count_before;
    std::uint32_t count;
    int bin;
  } pick;
  struct {
    std::uint64_t key;
    std::uint64_t mass;  ///< of the tokens up to it
  } found;
};
inline constexpr int kLogitsAt = round_up(static_cast<int>(sizeof(SampleShared)), 16);

/// The part of one block in drawing the token of one row. All blocks of the cluster take the same
/// decisions, as they come from sums over all of them; block 0 sorts lists and writes the token.
template <class Args>
class RowSampler {
 public:
  __device__ RowSampler(const Args& a, SampleShared& s, float* logits)
      : a_(a), s_(s), row_(a, s.row, s.bins, logits), t_(static_cast<int>(threadIdx.x)) {}

  __device__ void run() {
    cluster_arrive();
    s_.bins.clear();
    if (t_ == 0) {
      s_.list.n = s_.list.n_own = 0;
      s_.limit = kMassBins - 1;
    }
    wait_for_previous_kernel();
    row_.load(best_);
    allow_next_kernel();
    const bool is_greedy = s_.row.temperature == 0.0f || s_.row.top_k == 1;
    const bool is_listed = !is_greedy && s_.row.top_k > 0 && s_.row.top_k <= kMaxListedTopK;
    const bool is_masked = s_.row.allowed != nullptr;
    if (is_masked) weigh_and_mask();
    if (is_listed) atomicAdd(&s_.bins.count[logit_bin(best_.logit)], 1u);
    if (!is_masked) cluster_wait();
    const std::uint64_t best =
        cluster_reduce<Smaller>(best_.key(row_.slice.first), s_.reductions[0]);
    if (best_token(best) < 0) {
      write(best, 0.0);
      return;
    }
    max_ = key_logit(best);
    if (a_.logprobs != nullptr && !is_masked) sum_weights();
    if (is_greedy) {
      write(best, log_sum_);
      return;
    }
    const Weights weights(max_, s_.row.temperature);
    if (is_listed && draw_of_few(weights)) return;
    draw_of_all(weights);
  }

 private:
  /// Log probabilities are of the logits before the mask. Waits for the cluster's blocks to have begun.
  __device__ void weigh_and_mask() {
    cluster_wait();
    if (a_.logprobs != nullptr) {
      const std::uint64_t best =
          cluster_reduce<Smaller>(best_.key(row_.slice.first), s_.reductions[3]);
      max_ = key_logit(best);
      if (best_token(best) >= 0) sum_weights();
    }
    row_.mask(best_);
  }

  /// log of the sum of exp(logit), for log probabilities.
  __device__ void sum_weights() {
    const Weights weights(max_, 1.0f);
    std::uint64_t sum = 0;
    row_.for_each([&](int, float x) { sum += Weights::mass(weights.of(x)); });
    sum = cluster_reduce<Sum>(sum, s_.reductions[1]);
    log_sum_ = max_ + log(static_cast<double>(sum) / kMassUnits);
  }

  /// Bins for finding candidates, the best first: an eighth wide, from 64 down to -64.
  static __device__ float logit_place(float x) { return fmaf(x, -8.0f, 512.0f); }
  static __device__ int logit_bin(float x) {
    return min(max(static_cast<int>(floorf(logit_place(x))), 0), kMassBins - 1);
  }

  /// Sets the bin of the top_k-th best of the threads' best logits, if it is among the 256 bins from the
  /// best token's on. One warp's work: reading all bins of all blocks takes the cluster's memory 1.5 us.
  __device__ void find_limit() {
    constexpr int kEach = 8;    // bins of a lane
    constexpr int kAtOnce = 4;  // blocks whose answers are waited for together
    const int begin = min(logit_bin(max_), kMassBins - kWarp * kEach) / 4 * 4 + kEach * t_;
    std::uint32_t counts[kEach] = {};
    for (int first = 0; first < row_.slice.size; first += kAtOnce) {
      uint4 words[kAtOnce][2] = {};
#pragma unroll
      for (int u = 0; u < kAtOnce; ++u) {
        if (first + u >= row_.slice.size) continue;
        const auto* there =
            reinterpret_cast<const uint4*>(in_block(&s_.bins.count[begin], first + u));
        words[u][0] = there[0];
        words[u][1] = there[1];
      }
#pragma unroll
      for (int u = 0; u < kAtOnce; ++u) {
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          counts[4 * half] += words[u][half].x;
          counts[4 * half + 1] += words[u][half].y;
          counts[4 * half + 2] += words[u][half].z;
          counts[4 * half + 3] += words[u][half].w;
        }
      }
    }
    std::uint32_t sum = 0;
#pragma unroll
    for (int c = 0; c < kEach; ++c)
      sum += counts[c];
    const auto needed = static_cast<std::uint32_t>(s_.row.top_k);
    std::uint32_t total = 0;
    std::uint32_t before = lanes_before(sum, &total);
#pragma unroll
    for (int c = 0; c < kEach; ++c) {
      if (before < needed && needed <= before + counts[c]) s_.limit = begin + c;
      before += counts[c];
    }
  }

  /// Lists the top_k best and some more, and draws. The top_k-th best of the threads' best logits has
  /// at least top_k logits at or above it. False where too many lie that close together.
  __device__ bool draw_of_few(const Weights& weights) {
    if (t_ < kWarp) find_limit();
    __syncthreads();
    // Those at -inf never come: they have no mass.
    const float limit = s_.limit == kMassBins - 1 ? INFINITY : static_cast<float>(s_.limit + 1);
    row_.for_each(
        [&](int j, float x) {
          if (logit_place(x) < limit) s_.list.note(rank_key(x, row_.slice.first + j));
        },
        logit_place(best_.logit) < limit);
    send_keys(s_.list);
    cluster_sync();
    const int n = in_block(&s_.list, 0)->n;
    cluster_arrive();
    if (n <= kMassBins && row_.slice.rank == 0) draw_of_list(n, weights);
    cluster_wait();  // nobody reads block 0 any more
    if (n <= kMassBins) return true;
    if (t_ == 0) s_.list.n = 0;
    return false;
  }

  __device__ void draw_of_list(int n, const Weights& weights) {
    constexpr int kEach = 4;  // keys of a lane: few keys are one warp's work, without barriers
    sort_keys(s_.list, n);
    const int n_kept = min(n, s_.row.top_k);
    if (n_kept <= kEach * kWarp) {
      if (t_ >= kWarp) return;
      draw_of_sorted<kEach>(n_kept, weights, [](std::uint64_t x, std::uint64_t* total) {
        return lanes_before(x, total);
      });
    } else {
      draw_of_sorted<2>(n_kept, weights, [&](std::uint64_t x, std::uint64_t* total) {
        return sum_before(x, s_.room.mass, total);
      });
    }
  }

  /// Each thread has `Each` keys of the list, and `sum_before` adds over those that take part.
  template <int Each, class SumBefore>
  __device__ void draw_of_sorted(int n, const Weights& weights, SumBefore&& sum_before_thread) {
    const std::uint64_t* keys = &s_.list.keys[Each * t_];
    std::uint64_t masses[Each] = {};
    float weight[Each] = {};
    std::uint64_t sum = 0;
#pragma unroll
    for (int c = 0; c < Each; ++c) {
      if (Each * t_ + c >= n) continue;
      weight[c] = weights.of(key_logit(keys[c]));
      masses[c] = Weights::mass(weight[c]);
      sum += masses[c];
    }
    std::uint64_t total = 0;
    std::uint64_t before = sum_before_thread(sum, &total);
    const std::uint64_t limit = units_of(s_.row.top_p, total, false);
    sum = 0;
#pragma unroll
    for (int c = 0; c < Each; ++c) {
      const std::uint64_t mass = masses[c];
      if (before >= limit || weight[c] < s_.row.min_p) masses[c] = 0;
      before += mass;
      sum += masses[c];
    }
    before = sum_before_thread(sum, &total);
    const std::uint64_t needed = units_of(draw(), total, true);
#pragma unroll
    for (int c = 0; c < Each; ++c) {
      if (before < needed && needed <= before + masses[c]) put(keys[c], log_sum_);
      before += masses[c];
    }
  }

  [[nodiscard]] __device__ double draw() const {
    return uniform_draw(s_.row.seed, static_cast<std::uint64_t>(row_.n_tokens));
  }

  /// Bins of weight, the best first: each a 64th wide in log weight, the last for all beyond e^-16.
  static __device__ int weight_bin(float x, const Weights& w) {
    return min(static_cast<int>((w.max - x) * w.inverse_temperature * 64.0f), kMassBins - 1);
  }

  /// Top-k, top-p, min-p and the draw over any number of tokens, each a search by mass or count.
  __device__ void draw_of_all(const Weights& weights) {
    const MassPair bins = bin_weights(weights);
    std::uint64_t kept = bins.total;
    std::uint64_t last = kNoKey;
    // One call of `find`, as its code is long: steps are top-k, top-p, and the draw.
#pragma unroll 1
    for (int step = 0; step < 3; ++step) {
      Target target{static_cast<std::uint64_t>(s_.row.top_k), true};
      if (step == 0) {
        if (s_.row.top_k <= 0 || s_.row.top_k >= a_.vocab) continue;
      } else if (step == 1) {
        if (s_.row.top_p >= 1.0f) continue;
        target = {units_of(s_.row.top_p, kept, false), false};
      } else {
        if (s_.row.min_p > 0.0f) kept = mass_from(s_.row.min_p, last, weights);
        target = {units_of(draw(), kept, true), false};
      }
      find(target, bins, weights);
      last = s_.found.key;
      kept = s_.found.mass;
    }
    write(last, log_sum_);
  }

  /// The mass of tokens up to `last` that weigh `least` or more.
  __device__ std::uint64_t mass_from(float least, std::uint64_t last, const Weights& weights) {
    std::uint64_t mass = 0;
    row_.for_each([&](int j, float x) {
      const float weight = weights.of(x);
      if (weight >= least && rank_key(x, row_.slice.first + j) <= last)
        mass += Weights::mass(weight);
    });
    return cluster_reduce<Sum>(mass, s_.reductions[2]);
  }

  __device__ MassPair bin_weights(const Weights& weights) {
    s_.bins.clear();
    __syncthreads();
    std::uint64_t tail = 0;  // of the last bin, where most tokens of a peaked row are
    row_.for_each([&](int, float x) {
      const int bin = weight_bin(x, weights);
      const std::uint64_t mass = Weights::mass(weights.of(x));
      atomicAdd(&s_.bins.count[bin], 1u);
      if (bin == kMassBins - 1) {
        tail += mass;
      } else {
        s_.bins.add_mass(bin, mass);
      }
    });
    tail = warp_reduce<Sum>(tail);
    if (t_ % kWarp == 0 && tail > 0) s_.bins.add_mass(kMassBins - 1, tail);
    cluster_sync();
    return gather_bins(s_.bins, row_.slice.size, s_.room);
  }

  /// Notes which bin holds the target, in all threads of the block.
  __device__ void pick_bin(const Target& target, const MassPair& p) {
    const int place = target.place_in(p);
    if (place >= 0) {
      s_.pick.bin = 2 * t_ + place;
      s_.pick.count = place == 1 ? p.count[1] : p.count[0];  // an index would put p into memory
      s_.pick.mass_before = p.mass_before + (place == 1 ? p.mass[0] : 0);
      s_.pick.count_before = p.count_before + (place == 1 ? p.count[0] : 0);
    }
    __syncthreads();
  }

  /// Sets `found` in every block. Narrows a bin that is too full for a list by the bits of its keys:
  /// only rows with many equal or nearly equal logits come there.
  __device__ void find(const Target& target, const MassPair& bins, const Weights& weights) {
    pick_bin(target, bins);
    const int weight_bin_picked = s_.pick.bin;
    std::uint64_t mass_before = s_.pick.mass_before;
    std::uint32_t count_before = s_.pick.count_before;
    std::uint32_t count = s_.pick.count;
    int bits = kKeyBits;       // not yet known of the key
    std::uint64_t prefix = 0;  // the others
    const auto for_each_member = [&](auto&& use) {
      row_.for_each([&](int j, float x) {
        const std::uint64_t key = rank_key(x, row_.slice.first + j);
        if (weight_bin(x, weights) == weight_bin_picked && key >> bits == prefix) use(key, x);
      });
    };
    while (count > kMassBins) {
      const int shift = max(bits - kMassBits, 0);
      cluster_sync();  // nobody reads the bins any more
      s_.bins.clear();
      __syncthreads();
      for_each_member([&](std::uint64_t key, float x) {
        const int bin = static_cast<int>((key >> shift) - (prefix << (bits - shift)));
        atomicAdd(&s_.bins.count[bin], 1u);
        s_.bins.add_mass(bin, Weights::mass(weights.of(x)));
      });
      cluster_sync();
      MassPair p = gather_bins(s_.bins, row_.slice.size, s_.room);
      p.mass_before += mass_before;
      p.count_before += count_before;
      pick_bin(target, p);
      mass_before = s_.pick.mass_before;
      count_before = s_.pick.count_before;
      count = s_.pick.count;
      prefix = (prefix << (bits - shift)) + static_cast<std::uint64_t>(s_.pick.bin);
      bits = shift;
    }
    for_each_member([&](std::uint64_t key, float) { s_.list.note(key); });
    send_keys(s_.list);
    cluster_sync();
    if (row_.slice.rank == 0) find_in_list(target, mass_before, count_before, weights);
    cluster_sync();
  }

  __device__ void find_in_list(const Target& target,
                               std::uint64_t mass_before,
                               std::uint32_t count_before,
                               const Weights& weights) {
    const int n = s_.list.n;
    sort_keys(s_.list, n);
    if (t_ == 0) s_.list.n = 0;  // behind the barriers of sorting
    MassPair p = list_masses(s_.list, n, weights, s_.room);
    p.mass_before += mass_before;
    p.count_before += count_before;
    const int place = target.place_in(p);
    if (place < 0) return;
    for (int r = 0; r < row_.slice.size; ++r) {
      auto* there = in_block(&s_.found, r);
      there->key = s_.list.keys[2 * t_ + place];
      there->mass = p.mass_before + p.mass[0] + (place == 1 ? p.mass[1] : 0);
    }
  }

  /// The row's result, by one thread of the cluster.
  __device__ void write(std::uint64_t key, double log_sum) const {
    if (row_.slice.rank == 0 && t_ == 0) put(key, log_sum);
  }
  __device__ void put(std::uint64_t key, double log_sum) const {
    const int token = best_token(key);
    a_.ids[row_.i] = token;
    if (a_.logprobs == nullptr) return;
    a_.logprobs[row_.i] = token < 0 ? 0.0f : static_cast<float>(key_logit(key) - log_sum);
  }

  const Args& a_;
  SampleShared& s_;
  RowLogits<Args> row_;
  int t_;           ///< thread
  BestLogit best_;  ///< of the thread
  float max_ = 0.0f;
  double log_sum_ = 0.0;
};

}  // namespace lmd::kernels::detail
