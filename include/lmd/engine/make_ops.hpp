/// \file  Fills the operation table of model/ops.hpp from numbers known at run time.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/core/cpu_features.hpp>
#include <lmd/engine/dispatch.hpp>
#include <lmd/kernels/attention/step_cpu.hpp>
#include <lmd/kernels/elementwise/embed_cpu.hpp>
#include <lmd/kernels/elementwise/silu_mul_cpu.hpp>
#include <lmd/kernels/linear/linear_cpu.hpp>
#include <lmd/kernels/norm/rms_norm_cpu.hpp>
#include <lmd/model/ops.hpp>

namespace lmd::engine {

/// The textbook definitions behind the Cpu signature: slow, and the oracle of everything else.
/// \throws Error(kConfig) when `quant_policy` or `head_dim` has no kernels.
[[nodiscard]] inline model::Ops<Cpu> make_host_ops(int quant_policy, int head_dim) {
  model::Ops<Cpu> ops;
  std::size_t i = 0;
  for_each_type(quant::WeightFormats{}, [&](auto t) {
    using P = kernels::WeightPolicy<typename decltype(t)::type, quant::PairedOrder>;
    ops.formats[i++] = {
        .linear = [](Cpu, const kernels::LinearArgs& a) { kernels::linear<P>(Host{}, a); },
        .embed = [](Cpu, const kernels::EmbedArgs& a) { kernels::embed<P>(Host{}, a); }};
  });
  with_kv_scheme(quant_policy, [&]<class S>() {
    with_head_dim(head_dim, [&]<int Dim>() {
      using P = kernels::KvPolicy<S, Dim>;
      ops.attention_step = [](Cpu, const kernels::AttentionStepArgs& a) {
        kernels::attention_step<P>(Host{}, a);
      };
      ops.unit_bytes = P::Unit::kBytes;
    });
  });
  ops.rms_norm = [](Cpu, const kernels::RmsNormArgs& a) { kernels::rms_norm(Host{}, a); };
  ops.silu_mul = [](Cpu, const kernels::SiluMulArgs& a) { kernels::silu_mul(Host{}, a); };
  return ops;
}

/// SIMD kernels for `isa`, which this processor must have.
/// \throws Error(kConfig) when `quant_policy` or `head_dim` has no kernels.
[[nodiscard]] inline model::Ops<Cpu> make_cpu_ops(int quant_policy, int head_dim, CpuIsa isa) {
  model::Ops<Cpu> ops;
  std::size_t i = 0;
  for_each_type(quant::WeightFormats{}, [&](auto t) {
    using P = kernels::WeightPolicy<typename decltype(t)::type, quant::PairedOrder>;
    ops.formats[i++] = {
        .linear = kernels::select_linear<P>(isa),
        .embed = [](Cpu cpu, const kernels::EmbedArgs& a) { kernels::embed<P>(cpu, a); }};
  });
  with_kv_scheme(quant_policy, [&]<class S>() {
    with_head_dim(head_dim, [&]<int Dim>() {
      using P = kernels::KvPolicy<S, Dim>;
      ops.attention_step = kernels::select_attention_step<P>(isa);
      ops.unit_bytes = P::Unit::kBytes;
    });
  });
  ops.rms_norm = kernels::select_rms_norm(isa);
  ops.silu_mul = kernels::select_silu_mul(isa);
  return ops;
}

}  // namespace lmd::engine
