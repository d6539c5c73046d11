/// \file  Attention of one query per sequence, Cpu backend.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/kernels/attention/attend_schedule.hpp>
#include <lmd/kernels/attention/decode.hpp>

namespace lmd::kernels {

using DecodeAttention = void (*)(Cpu, const DecodeAttnArgs&);

namespace detail {

template <AttentionPolicy P, CpuIsa Isa>
void decode_attention_on(Cpu ctx, const DecodeAttnArgs& a) {
  AttentionScratch& scratch = AttentionScratch::of_this_thread();
  scratch.segments.clear();
  for (int b = 0; b < a.batch; ++b) {
    scratch.segments.push_back({.out = a.out + b * a.out_stride,
                                .q = a.q + b * a.q_stride,
                                .out_stride = a.out_stride,
                                .q_stride = a.q_stride,
                                .kv = a.kv[b],
                                .position = a.positions[b],
                                .n = 1,
                                .heads = a.heads,
                                .kv_heads = a.kv_heads});
  }
  attend_segments(ctx.pool, select_attend<P>(Isa), P::kHeadDim, scratch);
}

}  // namespace detail

/// The function for an instruction set that the processor has.
template <AttentionPolicy P>
[[nodiscard]] DecodeAttention select_decode_attention(CpuIsa isa) {
  if (isa == CpuIsa::kAvx512) return &detail::decode_attention_on<P, CpuIsa::kAvx512>;
  if (isa == CpuIsa::kAvx2) return &detail::decode_attention_on<P, CpuIsa::kAvx2>;
  return &detail::decode_attention_on<P, CpuIsa::kScalar>;
}

/// A long context is shared between threads in spans of kSpanPages pages.
///
/// Oracle:  decode_attention(Host, ...); the result of a query is equal bit by bit to that of
///          prefill_attention(Cpu, ...), whatever other sequences or threads there are
template <AttentionPolicy P>
void decode_attention(Cpu ctx, const DecodeAttnArgs& a) {
  static const DecodeAttention chosen = select_decode_attention<P>(best_cpu_isa());
  chosen(ctx, a);
}

}  // namespace lmd::kernels
