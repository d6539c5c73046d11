/// \file  A piece of attention that one thread computes on the Cpu, its scratch, and what it leaves.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/core/math.hpp>
#include <lmd/kernels/attention/prefill.hpp>

namespace lmd::kernels {

/// How results are put together; part of their definition on the Cpu, not a tuning. A span of 4
/// pages has a maximum, a sum and a weighted sum of values of its own, whoever computes it.
inline constexpr int kSpanPages = 4;

/// Rows (a query and one of its heads) that an item may have.
inline constexpr int kMaxItemRows = 128;

/// So few rows read codes straight into registers; more of them share a page converted to floats.
inline constexpr int kMaxDirectRows = 8;

/// Floats of what a row leaves of a span: [head_dim] weighted values, the maximum, the sum.
[[nodiscard]] constexpr std::int64_t span_state_floats(int head_dim) {
  return head_dim + 2;
}

/// Rows [row_begin, row_end) of one KV head: row r is query r / group, head r % group of the group.
struct AttendItem {
  const PrefillAttnArgs* segment = nullptr;
  int kvh = 0;
  int row_begin = 0;
  int row_end = 0;
  int span_begin = 0;
  int span_end = 0;
  float* states = nullptr;   ///< [spans, rows, head_dim + 2] of all of its spans; null: writes out
  float* scratch = nullptr;  ///< of the thread, see AttendScratch
};

/// Spans that the queries of a segment look at.
[[nodiscard]] inline int count_spans(const PrefillAttnArgs& segment) {
  return ceil_div(segment.position / cache::kPageTokens + 1, kSpanPages);
}

/// Scratch of one thread. R is kMaxItemRows; a field of [.., 16] holds a register of any instruction
/// set.
struct AttendScratch {
  static constexpr int kLanes = 16;
  float* keys = nullptr;         ///< [head_dim x 64] of a page in panels
  float* values = nullptr;       ///< [64 x head_dim] of a page in panels
  float* folded = nullptr;       ///< [R, head_dim] queries times a page's scales
  float* weights = nullptr;      ///< [R, 64] scores, then weights
  float* acc = nullptr;          ///< [R, head_dim] of the span
  float* total = nullptr;        ///< [R, head_dim + 2] of the spans before
  float* sum = nullptr;          ///< [R, 16] of the span's weights, by lane
  float* zero_sum = nullptr;     ///< [R, 16] of weights times zeros, by lane
  float* max = nullptr;          ///< [R] of the span
  float* query_sum = nullptr;    ///< [R] over head_dim; per-channel keys: over queries times zeros
  float* key_scale = nullptr;    ///< [max(64, head_dim)] of the page, times 1 / sqrt(head_dim)
  float* key_zero = nullptr;     ///< [max(64, head_dim)]
  float* value_scale = nullptr;  ///< [64]
  float* value_zero = nullptr;   ///< [64]
  std::int64_t floats = 0;       ///< all of it

  /// Carves up `memory` of `floats` floats; null: only counts them.
  AttendScratch(int head_dim, float* memory) {
    const auto take = [&](float*& field, std::int64_t n) {
      if (memory != nullptr) field = memory + floats;
      floats += round_up(n, std::int64_t{kLanes});
    };
    constexpr std::int64_t kRows = kMaxItemRows;
    constexpr int kTokens = cache::kPageTokens;
    const int params = head_dim > kTokens ? head_dim : kTokens;
    take(keys, std::int64_t{head_dim} * kTokens);
    take(values, std::int64_t{head_dim} * kTokens);
    take(folded, kRows * head_dim);
    take(weights, kRows * kTokens);
    take(acc, kRows * head_dim);
    take(total, kRows * span_state_floats(head_dim));
    take(sum, kRows * kLanes);
    take(zero_sum, kRows * kLanes);
    take(max, kRows);
    take(query_sum, kRows);
    take(key_scale, params);
    take(key_zero, params);
    take(value_scale, kTokens);
    take(value_zero, kTokens);
  }
};

}  // namespace lmd::kernels
