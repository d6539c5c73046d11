/// \file  Cuts the attention of a ragged batch into items, and runs them on the pool's threads.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/core/buffer.hpp>
#include <lmd/core/task_runner.hpp>
#include <lmd/kernels/attention/attend_cpu.hpp>

#include <algorithm>
#include <atomic>
#include <vector>

namespace lmd::kernels {

/// Memory between two calls of a thread: it grows to what the largest call needed.
struct AttentionScratch {
  struct Scheduled {
    AttendItem item;
    int counter = -1;       ///< of spans_left; -1: the item covers all of its spans
    bool prepares = false;  ///< whether the item comes first to its KV head of a lone segment
  };
  std::vector<PrefillAttnArgs> segments;
  std::vector<char> is_alone;  ///< [segments] whether no other segment reads what this one appends
  std::vector<int> early;      ///< segments that are appended before any item is computed
  std::vector<Scheduled> items;
  std::vector<int> spans_left;  ///< of the items that are cut by spans; who takes it to 0 merges
  Buffer<float> states;         ///< of all spans of those items
  Buffer<float> threads;        ///< AttendScratch of each thread
  Buffer<Half> staged;          ///< open pages of a chunk after its first

  static AttentionScratch& of_this_thread() {
    static thread_local AttentionScratch scratch;
    return scratch;
  }

  template <class T>
  static T* at_least(Buffer<T>& buffer, std::int64_t size) {
    if (buffer.size() < size) buffer = Buffer<T>(size);
    return buffer.data();
  }
};

namespace detail {

/// Products below which the calling thread works alone: a region costs about 0.7 us, and a thread
/// does 30,000 products in it.
inline constexpr std::int64_t kSmallAttention = 120'000;

/// How to cut. Speed only: results do not depend on it.
struct AttendCut {
  int threads = 1;
  int rows = kMaxItemRows;  ///< per item that shares converted pages among its rows
  int spans = 1 << 20;      ///< per item that does not
};

[[nodiscard]] inline int count_rows(const PrefillAttnArgs& s) {
  return s.n * (s.heads / s.kv_heads);
}

[[nodiscard]] inline bool is_cut_by_spans(const PrefillAttnArgs& s, const AttendCut& cut) {
  return count_rows(s) <= kMaxDirectRows && count_spans(s) > cut.spans;
}

[[nodiscard]] inline AttendCut choose_cut(const std::vector<PrefillAttnArgs>& segments,
                                          int head_dim,
                                          int threads) {
  std::int64_t products = 0;
  std::int64_t direct_pages = 0;
  for (const PrefillAttnArgs& s : segments) {
    const std::int64_t pages = s.position / cache::kPageTokens + 1;
    products += pages * cache::kPageTokens * s.n * s.heads * 2 * head_dim;
    if (count_rows(s) <= kMaxDirectRows) direct_pages += pages * s.kv_heads;
  }
  AttendCut cut;
  if (threads == 1 || products < kSmallAttention) return cut;
  cut.threads = threads;
  const auto too_few_items = [&] {
    std::int64_t items = 0;
    for (const PrefillAttnArgs& s : segments)
      items += std::int64_t{s.kv_heads} * ceil_div(count_rows(s), cut.rows);
    return items < std::int64_t{4} * threads;
  };
  while (cut.rows > 2 * kMaxDirectRows && too_few_items())
    cut.rows /= 2;
  const std::int64_t pages_per_item = direct_pages / (std::int64_t{8} * threads);
  cut.spans = static_cast<int>(std::max<std::int64_t>(1, pages_per_item / kSpanPages));
  return cut;
}

/// Whether one item has all rows and spans of a KV head of a segment.
[[nodiscard]] inline bool is_whole(const PrefillAttnArgs& s, const AttendCut& cut) {
  return count_rows(s) <= cut.rows && !is_cut_by_spans(s, cut);
}

/// Appends the items of one KV head of a segment. `states` is where those of its spans go.
inline void push_items(
    std::size_t segment, int kvh, const AttendCut& cut, float* states, AttentionScratch& scratch) {
  const PrefillAttnArgs& s = scratch.segments[segment];
  const int rows = count_rows(s);
  const int spans = count_spans(s);
  AttendItem item{.segment = &s, .kvh = kvh};
  if (!is_cut_by_spans(s, cut)) {
    item.span_end = spans;
    for (; item.row_end < rows; item.row_begin = item.row_end) {
      item.row_end = std::min(rows, item.row_begin + cut.rows);
      scratch.items.push_back(
          {.item = item, .prepares = scratch.is_alone[segment] != 0 && is_whole(s, cut)});
    }
    return;
  }
  item.row_end = rows;
  item.states = states;
  const int counter = static_cast<int>(scratch.spans_left.size());
  scratch.spans_left.push_back(ceil_div(spans, cut.spans));
  for (; item.span_end < spans; item.span_begin = item.span_end) {
    item.span_end = std::min(spans, item.span_begin + cut.spans);
    scratch.items.push_back({.item = item, .counter = counter});
  }
}

/// Fills scratch.items; the last segments first, as those of a chunk have the most to do.
inline void schedule_items(const AttendCut& cut, int head_dim, AttentionScratch& scratch) {
  const auto state_floats = [&](const PrefillAttnArgs& s) {
    return is_cut_by_spans(s, cut)
               ? std::int64_t{count_spans(s)} * count_rows(s) * span_state_floats(head_dim)
               : 0;
  };
  std::int64_t floats = 0;
  for (const PrefillAttnArgs& s : scratch.segments)
    floats += s.kv_heads * state_floats(s);
  float* states = AttentionScratch::at_least(scratch.states, floats);
  scratch.items.clear();
  scratch.spans_left.clear();
  for (std::size_t i = scratch.segments.size(); i-- > 0;) {
    const PrefillAttnArgs& s = scratch.segments[i];
    for (int kvh = 0; kvh < s.kv_heads; ++kvh) {
      push_items(i, kvh, cut, states, scratch);
      states += state_floats(s);
    }
  }
}

/// Decides how scratch.segments are cut into items, and lists those.
inline AttendCut cut_segments(TaskRunner* pool, int head_dim, AttentionScratch& scratch) {
  const AttendCut cut = choose_cut(scratch.segments, head_dim, pool == nullptr ? 1 : pool->size());
  schedule_items(cut, head_dim, scratch);
  return cut;
}

/// Computes the items in one parallel region. Everything is allocated before it. `prepare(item)` is
/// called before an item that prepares.
template <class F>
void attend_items(TaskRunner* pool,
                  const AttendFunctions& functions,
                  int head_dim,
                  const AttendCut& cut,
                  AttentionScratch& scratch,
                  F&& prepare) {
  const std::int64_t thread_floats = AttendScratch(head_dim, nullptr).floats;
  float* memory = AttentionScratch::at_least(scratch.threads, cut.threads * thread_floats);
  const int n = static_cast<int>(scratch.items.size());
  std::atomic<int> next{0};
  // A task is a place in `memory`: whoever takes it works on items until none is left.
  auto work = [&](int place) {
    for (int i = next.fetch_add(1); i < n; i = next.fetch_add(1)) {
      AttendItem item = scratch.items[i].item;
      item.scratch = memory + place * thread_floats;
      if (scratch.items[i].prepares) prepare(item);
      functions.attend(item);
      const int counter = scratch.items[i].counter;
      if (counter < 0) continue;
      std::atomic_ref<int> left(scratch.spans_left[counter]);
      if (left.fetch_sub(1, std::memory_order_acq_rel) == 1) functions.merge(item);
    }
  };
  if (cut.threads == 1) {
    work(0);
  } else {
    pool->run(cut.threads, work);
  }
}

}  // namespace detail

/// Attention of all of scratch.segments, whose keys and values are in the cache.
inline void attend_segments(TaskRunner* pool,
                            const AttendFunctions& functions,
                            int head_dim,
                            AttentionScratch& scratch) {
  scratch.is_alone.assign(scratch.segments.size(), 0);
  const detail::AttendCut cut = detail::cut_segments(pool, head_dim, scratch);
  detail::attend_items(pool, functions, head_dim, cut, scratch, [](const AttendItem&) {});
}

}  // namespace lmd::kernels
