/// \file  The logits of a slice of a row with bias and penalties, in shared memory: all of them, or
///        where there is no room for them, one part after the other.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/kernels/sample/sample.hpp>
#include <lmd/kernels/sample/sorted_mass.cuh>

#include <cstdint>
#include <type_traits>

namespace lmd::kernels::detail {

/// The arguments of blocks that have room for a part of their slice only.
struct SampleInPartsArgs : SampleArgs {
  int part = 0;  ///< logits of a part, a multiple of 32; behind them lies a bit for each
};

/// What a block knows of its row. With SampleArgs the slice is loaded once; with SampleInPartsArgs each
/// visit of the logits loads and changes them part by part.
template <class Args>
class RowLogits {
 public:
  static constexpr bool kIsWhole = std::is_same_v<Args, SampleArgs>;

  __device__ RowLogits(const Args& a, SamplingRow& row, MassBins& bins, float* logits)
      : slice(a.vocab),
        i(static_cast<int>(blockIdx.x) / slice.size),
        a_(a),
        row_(row),
        bins_(bins),
        logits_(logits),
        t_(static_cast<int>(threadIdx.x)) {}

  /// The row's parameters into shared memory, and the slice; sees the logits of this thread.
  __device__ void load(BestLogit& best) {
    constexpr int kRowWords = sizeof(SamplingRow) / 4;
    std::uint32_t row_word = 0;
    if (t_ < kRowWords) row_word = reinterpret_cast<const std::uint32_t*>(a_.rows + i)[t_];
    n_tokens = a_.n_tokens[i];
    if constexpr (kIsWhole) {
      load_slice(best);
    } else {
      clear_seen();
    }
    if (t_ < kRowWords) reinterpret_cast<std::uint32_t*>(&row_)[t_] = row_word;
    __syncthreads();
    if constexpr (kIsWhole) {
      if (is_unchanged()) return;
      change(slice.first, slice.n);
    }
    best = {};
    for_each([&](int j, float x) { best.see(j, x); });
  }

  /// From now on logits of tokens that are not allowed are -inf; sees the logits of this thread anew.
  /// What was no number stays one.
  __device__ void mask(BestLogit& best) {
    if constexpr (kIsWhole) {  // a place in shared memory is its visitor's alone
      for_each([&](int j, float) {
        if (!is_allowed(j)) logits_[j] = -INFINITY;
      });
    }
    is_masked_ = true;
    best = {.is_invalid = best.is_invalid};
    for_each([&](int j, float x) { best.see(j, x); });
  }

  /// Calls `visit(j, x)` for this thread's share of the slice, which is always the same. All threads
  /// call; of those with `is_wanted` the logits are visited.
  template <class Visit>
  __device__ void for_each(Visit&& visit, bool is_wanted = true) const {
    if constexpr (kIsWhole) {
      if (is_wanted) for_each_logit<1>(logits_, slice.n, true, visit);
    } else {
      for (int begin = 0; begin < slice.n; begin += a_.part) {
        const int n = min(slice.n - begin, a_.part);
        load_part(begin, n);
        if (!is_wanted) continue;
        for_each_logit<1>(logits_, n, true, [&](int j, float x) {
          visit(begin + j, is_masked_ && !is_allowed(begin + j) ? -INFINITY : x);
        });
      }
    }
  }

  RowSlice slice;
  int i;  ///< the row
  int n_tokens = 0;

 private:
  [[nodiscard]] __device__ bool is_unchanged() const {
    return row_.n_bias == 0 && row_.repetition_penalty == 1.0f && row_.presence_penalty == 0.0f &&
           row_.frequency_penalty == 0.0f;
  }

  /// Whether the row's mask has a bit for logit j of the slice.
  [[nodiscard]] __device__ bool is_allowed(int j) const {
    const int token = slice.first + j;
    return (row_.allowed[token / 32] >> (token % 32) & 1) != 0;
  }

  __device__ void load_slice(BestLogit& best) {
    const float* from = a_.logits + i * a_.stride + slice.first;
    const bool is_aligned = reinterpret_cast<std::uint64_t>(from) % 16 == 0;
    for_each_four<kLogitLoads>(from, slice.n, is_aligned, [&](int j, const float4& x, int count) {
      best.see(j, x.x);
      if (count == 1) {
        logits_[j] = x.x;
        return;
      }
      best.see(j + 1, x.y);
      best.see(j + 2, x.z);
      best.see(j + 3, x.w);
      *reinterpret_cast<float4*>(logits_ + j) = x;
    });
  }

  /// Logits [begin, begin + n) of the slice. A thread visits what it has loaded itself, so that barriers
  /// are needed for changes only.
  __device__ void load_part(int begin, int n) const {
    const float* from = a_.logits + i * a_.stride + slice.first + begin;
    const bool is_aligned = reinterpret_cast<std::uint64_t>(from) % 16 == 0;
    for_each_four<kLogitLoads>(from, n, is_aligned, [&](int j, const float4& x, int count) {
      if (count == 1) {
        logits_[j] = x.x;
      } else {
        *reinterpret_cast<float4*>(logits_ + j) = x;
      }
    });
    if (is_unchanged()) return;
    __syncthreads();
    change(slice.first + begin, n);
  }

  /// The word of bits that logit j has one of.
  [[nodiscard]] __device__ std::uint32_t* seen(int j) const {
    if constexpr (kIsWhole) {
      return j / 32 < kMassBins ? &bins_.low[j / 32] : &bins_.high[j / 32 - kMassBins];
    } else {
      return reinterpret_cast<std::uint32_t*>(logits_ + a_.part) + j / 32;
    }
  }
  __device__ void clear_seen() const {
    if constexpr (kIsWhole) {
      bins_.clear();
    } else {
      for (int j = 32 * t_; j < a_.part; j += 32 * kSampleThreads)
        *seen(j) = 0;
    }
  }

  /// Calls `change(logit, is_first)` for each of tokens [begin, n_tokens) in logits [first, first + n):
  /// whether it is the thread that came first to this id. Bits are clear before and after; barriers at
  /// the end.
  template <class Change>
  __device__ void for_each_token(int begin, int first, int n, Change&& change) const {
    for (int token = begin + t_; token < n_tokens; token += kSampleThreads) {
      const int j = row_.tokens[token] - first;
      if (j < 0 || j >= n) continue;
      const std::uint32_t bit = 1u << (j % 32);
      change(logits_[j], (atomicOr(seen(j), bit) & bit) == 0);
    }
    __syncthreads();
    clear_seen();
    __syncthreads();
  }

  /// Bias and penalties in the order of the definition, for logits [first, first + n) of the row. Equal
  /// subtractions may come in any order.
  __device__ void change(int first, int n) const {
    for (int b = t_; b < row_.n_bias; b += kSampleThreads) {
      const int j = row_.bias[b].id - first;
      if (j >= 0 && j < n) logits_[j] += row_.bias[b].value;
    }
    __syncthreads();
    if (row_.repetition_penalty != 1.0f) {
      for_each_token(0, first, n, [&](float& x, bool is_first) {
        const float p = row_.repetition_penalty;
        if (is_first) x = x < 0.0f ? x * p : x / p;
      });
    }
    if (row_.presence_penalty != 0.0f) {
      for_each_token(row_.n_prompt, first, n, [&](float& x, bool is_first) {
        if (is_first) x -= row_.presence_penalty;
      });
    }
    if (row_.frequency_penalty != 0.0f) {
      for_each_token(row_.n_prompt, first, n,
                     [&](float& x, bool) { atomicAdd(&x, -row_.frequency_penalty); });
    }
  }

  const Args& a_;
  SamplingRow& row_;
  MassBins& bins_;
  float* logits_;           ///< [slice.n] or [part] in shared memory
  int t_;                   ///< thread
  bool is_masked_ = false;  ///< of parts, which every visit loads anew
};

}  // namespace lmd::kernels::detail
