/// \file  Compiles a part of the linear and embedding kernels that linear_cuda_extern.cuh promises.
// SPDX-License-Identifier: Apache-2.0
#include <lmd/kernels/elementwise/embed.cuh>
#include <lmd/kernels/linear/linear_cuda.cuh>

namespace lmd::kernels {

#define LMD_INSTANCES_OF_ 2
#define LMD_INSTANCE_(Format, T)                                                                 \
  template cudaError_t linear<FragmentPolicy<quant::Format, T>>(Cuda, const BasicLinearArgs<T>&, \
                                                                const LinearWorkspace&);         \
  template cudaError_t batch_invariant_linear<FragmentPolicy<quant::Format, T>>(                 \
      Cuda, const BasicLinearArgs<T>&, const LinearWorkspace&);                                  \
  template cudaError_t embed<FragmentPolicy<quant::Format, T>, T>(Cuda, const BasicEmbedArgs<T>&);
#include <lmd/kernels/linear/linear_cuda_instances.inc>
#undef LMD_INSTANCE_
#undef LMD_INSTANCES_OF_

}  // namespace lmd::kernels
