/// \file  Compiles a part of the attention kernels that step_cpu_extern.hpp promises.
// SPDX-License-Identifier: Apache-2.0
#include <lmd/kernels/attention/step_cpu.hpp>
#include <lmd/quant/kv_formats.hpp>

namespace lmd::kernels {

#define LMD_INSTANCES_OF_ 16
#define LMD_INSTANCE_(Scheme, Dim) \
  template AttentionStep select_attention_step<KvPolicy<quant::Scheme, Dim>>(CpuIsa);
#include <lmd/kernels/attention/step_instances.inc>
#undef LMD_INSTANCE_
#undef LMD_INSTANCES_OF_

}  // namespace lmd::kernels
