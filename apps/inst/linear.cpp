/// \file  Compiles the linear and embedding kernels that linear_cpu_extern.hpp promises.
// SPDX-License-Identifier: Apache-2.0
#include <lmd/kernels/elementwise/embed_cpu.hpp>
#include <lmd/kernels/linear/linear_cpu.hpp>

namespace lmd::kernels {

#define LMD_INSTANCE_(Format)                                                                     \
  template LinearFunction select_linear<WeightPolicy<quant::Format, quant::PairedOrder>>(CpuIsa); \
  template EmbedFunction select_embed<WeightPolicy<quant::Format, quant::PairedOrder>>(CpuIsa);
#include <lmd/kernels/linear/linear_instances.inc>
#undef LMD_INSTANCE_

}  // namespace lmd::kernels
