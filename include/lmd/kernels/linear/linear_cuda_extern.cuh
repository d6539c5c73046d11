/// \file  Promises the Cuda linear and embedding kernels over halves, so that this translation unit
///        does not compile them: link what apps/inst/linear_cuda_*.cu compile.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/kernels/elementwise/embed.cuh>
#include <lmd/kernels/linear/linear_cuda.cuh>

namespace lmd::kernels {

// An explicit instance needs its type spelled out, and the lists must not drift apart.
#define LMD_INSTANCE_(Format)                                                              \
  extern template cudaError_t linear<FragmentPolicy<quant::Format, Half>>(                 \
      Cuda, const BasicLinearArgs<Half>&, const LinearWorkspace&);                         \
  extern template cudaError_t batch_invariant_linear<FragmentPolicy<quant::Format, Half>>( \
      Cuda, const BasicLinearArgs<Half>&, const LinearWorkspace&);                         \
  extern template cudaError_t embed<FragmentPolicy<quant::Format, Half>, Half>(            \
      Cuda, const BasicEmbedArgs<Half>&);
#include <lmd/kernels/linear/linear_cuda_instances.inc>
#undef LMD_INSTANCE_

}  // namespace lmd::kernels
