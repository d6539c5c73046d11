/// \file  Promises the Cpu linear and embedding kernels, so that this translation unit does not compile them:
///        link what apps/inst/linear.cpp compiles.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/kernels/elementwise/embed_cpu.hpp>
#include <lmd/kernels/linear/linear_cpu.hpp>

namespace lmd::kernels {

// An explicit instance needs its type spelled out, and the lists must not drift apart.
#define LMD_INSTANCE_(Format)                                                                    \
  extern template LinearFunction select_linear<WeightPolicy<quant::Format, quant::PairedOrder>>( \
      CpuIsa);                                                                                   \
  extern template EmbedFunction select_embed<WeightPolicy<quant::Format, quant::PairedOrder>>(   \
      CpuIsa);
#include <lmd/kernels/linear/linear_instances.inc>
#undef LMD_INSTANCE_

}  // namespace lmd::kernels
