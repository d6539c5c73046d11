/// \file  Promises the Cuda linear and embedding kernels, so that this translation unit does not
///        compile them: link what apps/inst/linear_cuda_*.cu compile.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/kernels/elementwise/embed.cuh>
#include <lmd/kernels/linear/linear_cuda.cuh>

namespace lmd::kernels {

// An explicit instance needs its type spelled out, and the lists must not drift apart.
#define LMD_INSTANCE_(Format, T)                                                        \
  extern template cudaError_t linear<FragmentPolicy<quant::Format, T>>(                 \
      Cuda, const BasicLinearArgs<T>&, const LinearWorkspace&);                         \
  extern template cudaError_t batch_invariant_linear<FragmentPolicy<quant::Format, T>>( \
      Cuda, const BasicLinearArgs<T>&, const LinearWorkspace&);                         \
  extern template cudaError_t embed<FragmentPolicy<quant::Format, T>, T>(               \
      Cuda, const BasicEmbedArgs<T>&);
#include <lmd/kernels/linear/linear_cuda_instances.inc>
#undef LMD_INSTANCE_

}  // namespace lmd::kernels
