/// \file  One layer's whole attention step over a ragged batch, Cpu backend.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/kernels/attention/attend_schedule.hpp>
#include <lmd/kernels/attention/step.hpp>
#include <lmd/kernels/cache/append_cpu.hpp>
#include <lmd/kernels/cache/seal_cpu.hpp>

#include <cstring>

namespace lmd::kernels {

using AttentionStep = void (*)(Cpu, const AttentionStepArgs&);

namespace detail {

/// What the step calls, for one policy and instruction set.
struct StepFunctions {
  AppendHeads append = nullptr;
  SealUnit seal = nullptr;
  AttendFunctions attend;
  int head_dim = 0;
  std::int64_t unit_bytes = 0;
};

/// Elements of qkv below which the calling thread appends alone.
inline constexpr std::int64_t kSmallAppend = 8192;

/// The parts of the chunks that lie in one page each. The open page keeps the first part of a chunk
/// until every query has read it; later parts have pages of their own in `staged`.
inline void cut_chunks(const AttentionStepArgs& a, int head_dim, AttentionScratch& scratch) {
  const std::int64_t qkv_stride = std::int64_t{a.heads + 2 * a.kv_heads} * head_dim;
  const std::int64_t out_stride = std::int64_t{a.heads} * head_dim;
  const std::int64_t page_halves = std::int64_t{a.kv_heads} * cache::kPageTokens * head_dim;
  std::int64_t staged_pages = 0;
  for (int c = 0; c < a.n_chunks; ++c) {
    const SequenceChunk& chunk = a.chunks[c];
    if (chunk.n > 0) {
      staged_pages +=
          (chunk.position + chunk.n - 1) / cache::kPageTokens - chunk.position / cache::kPageTokens;
    }
  }
  Half* staged = AttentionScratch::at_least(scratch.staged, 2 * staged_pages * page_halves);
  scratch.segments.clear();
  scratch.is_alone.clear();
  for (int c = 0; c < a.n_chunks; ++c) {
    const SequenceChunk& chunk = a.chunks[c];
    int n = 0;
    for (int done = 0; done < chunk.n; done += n) {
      const int position = chunk.position + done;
      const std::int64_t row = chunk.first_row + done;
      n = std::min(chunk.n - done, cache::kPageTokens - position % cache::kPageTokens);
      cache::KvView kv{a.pool, chunk.page_ids, a.page_bytes, chunk.open_keys, chunk.open_values};
      if (done > 0) {
        kv.open_keys = staged;
        kv.open_values = staged + page_halves;
        staged += 2 * page_halves;
      }
      scratch.segments.push_back({.out = a.out + row * out_stride,
                                  .q = a.qkv + row * qkv_stride,
                                  .out_stride = out_stride,
                                  .q_stride = qkv_stride,
                                  .kv = kv,
                                  .position = position,
                                  .n = n,
                                  .heads = a.heads,
                                  .kv_heads = a.kv_heads});
      scratch.is_alone.push_back(n == chunk.n ? 1 : 0);
    }
  }
}

/// Appends one KV head of a segment and seals its page if that made it full: no query of the
/// segment reads the sealed page, so this can come before attention.
inline void append_and_seal(const AttentionStepArgs& a,
                            const StepFunctions& f,
                            const PrefillAttnArgs& segment,
                            int kvh) {
  const cache::KvView& kv = segment.kv;
  const std::int64_t row = (segment.q - a.qkv) / segment.q_stride;
  f.append({.qkv = a.qkv + row * segment.q_stride,
            .qkv_stride = segment.q_stride,
            .rotation = a.rotation + row * f.head_dim,
            .open_keys = const_cast<Half*>(kv.open_keys),      // a chunk's or the scratch's: both
            .open_values = const_cast<Half*>(kv.open_values),  // were handed in to be written
            .position = segment.position,
            .n = segment.n,
            .heads = a.heads,
            .kv_heads = a.kv_heads,
            .head_dim = f.head_dim},
           kvh, kvh + 1);
  if ((segment.position + segment.n) % cache::kPageTokens != 0) return;
  const std::int64_t head = std::int64_t{kvh} * f.head_dim * cache::kPageTokens;
  const int page = segment.position / cache::kPageTokens;
  f.seal({.unit = a.pool + kv.page_ids[page] * a.page_bytes + kvh * f.unit_bytes,
          .keys = kv.open_keys + head,
          .values = kv.open_values + head});
}

/// A sequence that brings its tokens to one page, as all do that decode, appends on the thread that then
/// attends: its keys are at hand, and no other thread waits. What other segments bring is appended and
/// sealed before any of them attends. Regions shrink to the calling thread when there is little to do.
inline void run_attention_step(Cpu ctx, const AttentionStepArgs& a, const StepFunctions& f) {
  AttentionScratch& scratch = AttentionScratch::of_this_thread();
  cut_chunks(a, f.head_dim, scratch);
  const AttendCut cut = cut_segments(ctx.pool, f.head_dim, scratch);
  scratch.early.clear();
  std::int64_t elements = 0;
  for (std::size_t i = 0; i < scratch.segments.size(); ++i) {
    const PrefillAttnArgs& s = scratch.segments[i];
    if (scratch.is_alone[i] != 0 && is_whole(s, cut)) continue;
    scratch.early.push_back(static_cast<int>(i));
    const bool is_sealed = (s.position + s.n) % cache::kPageTokens == 0;
    elements += s.q_stride * (is_sealed ? cache::kPageTokens : s.n);
  }
  const int tasks = static_cast<int>(scratch.early.size()) * a.kv_heads;
  parallel_tasks(elements < kSmallAppend ? nullptr : ctx.pool, tasks, [&](int task) {
    const int segment = scratch.early[task / a.kv_heads];
    append_and_seal(a, f, scratch.segments[segment], task % a.kv_heads);
  });
  attend_items(ctx.pool, f.attend, f.head_dim, cut, scratch,
               [&](const AttendItem& item) { append_and_seal(a, f, *item.segment, item.kvh); });
  const std::size_t page_bytes =
      sizeof(Half) * static_cast<std::size_t>(a.kv_heads) * cache::kPageTokens * f.head_dim;
  std::size_t last = 0;
  for (int c = 0; c < a.n_chunks; ++c) {
    const SequenceChunk& chunk = a.chunks[c];
    if (chunk.n <= 0) continue;
    last +=
        (chunk.position + chunk.n - 1) / cache::kPageTokens - chunk.position / cache::kPageTokens;
    const cache::KvView& kv = scratch.segments[last++].kv;
    if (kv.open_keys == chunk.open_keys) continue;
    std::memcpy(chunk.open_keys, kv.open_keys, page_bytes);
    std::memcpy(chunk.open_values, kv.open_values, page_bytes);
  }
}

template <AttentionPolicy P, CpuIsa Isa>
void attention_step_on(Cpu ctx, const AttentionStepArgs& a) {
  run_attention_step(ctx, a,
                     {.append = select_append_heads(Isa),
                      .seal = select_seal_unit<typename P::Unit>(Isa),
                      .attend = select_attend<P>(Isa),
                      .head_dim = P::kHeadDim,
                      .unit_bytes = P::Unit::kBytes});
}

}  // namespace detail

/// The function for an instruction set that the processor has.
template <AttentionPolicy P>
[[nodiscard]] AttentionStep select_attention_step(CpuIsa isa) {
  if (isa == CpuIsa::kAvx512) return &detail::attention_step_on<P, CpuIsa::kAvx512>;
  if (isa == CpuIsa::kAvx2) return &detail::attention_step_on<P, CpuIsa::kAvx2>;
  return &detail::attention_step_on<P, CpuIsa::kScalar>;
}

/// Output and cache of a token are equal bit by bit for every chunking, batch and number of
/// threads. Columns of an open page beyond its last token hold anything afterwards.
///
/// Oracle:  attention_step(Host, ...)
template <AttentionPolicy P>
void attention_step(Cpu ctx, const AttentionStepArgs& a) {
  static const AttentionStep chosen = select_attention_step<P>(best_cpu_isa());
  chosen(ctx, a);
}

}  // namespace lmd::kernels
