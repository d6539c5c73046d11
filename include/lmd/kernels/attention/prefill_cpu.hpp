/// \file  Attention of several queries of one page, Cpu backend.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/kernels/attention/attend_schedule.hpp>

namespace lmd::kernels {

using PrefillAttention = void (*)(Cpu, const PrefillAttnArgs&);

namespace detail {

template <AttentionPolicy P, CpuIsa Isa>
void prefill_attention_on(Cpu ctx, const PrefillAttnArgs& a) {
  AttentionScratch& scratch = AttentionScratch::of_this_thread();
  scratch.segments.assign(1, a);
  attend_segments(ctx.pool, select_attend<P>(Isa), P::kHeadDim, scratch);
}

}  // namespace detail

/// The function for an instruction set that the processor has.
template <AttentionPolicy P>
[[nodiscard]] PrefillAttention select_prefill_attention(CpuIsa isa) {
  if (isa == CpuIsa::kAvx512) return &detail::prefill_attention_on<P, CpuIsa::kAvx512>;
  if (isa == CpuIsa::kAvx2) return &detail::prefill_attention_on<P, CpuIsa::kAvx2>;
  return &detail::prefill_attention_on<P, CpuIsa::kScalar>;
}

/// Oracle:  prefill_attention(Host, ...); the result of a query is equal bit by bit whatever other
///          queries, sequences or threads there are
template <AttentionPolicy P>
void prefill_attention(Cpu ctx, const PrefillAttnArgs& a) {
  static const PrefillAttention chosen = select_prefill_attention<P>(best_cpu_isa());
  chosen(ctx, a);
}

}  // namespace lmd::kernels
