/// \file  Promises the Cpu attention kernels, so that this translation unit does not compile them:
///        link what apps/inst/attention_*.cpp compile.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/kernels/attention/step_cpu.hpp>
#include <lmd/quant/kv_formats.hpp>

namespace lmd::kernels {

// An explicit instance needs its type spelled out, and the lists must not drift apart.
#define LMD_INSTANCE_(Scheme, Dim) \
  extern template AttentionStep select_attention_step<KvPolicy<quant::Scheme, Dim>>(CpuIsa);
#include <lmd/kernels/attention/step_instances.inc>
#undef LMD_INSTANCE_

}  // namespace lmd::kernels
