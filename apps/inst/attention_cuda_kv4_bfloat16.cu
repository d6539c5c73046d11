/// \file  Compiles a part of the attention kernels that step_cuda_extern.cuh promises.
// SPDX-License-Identifier: Apache-2.0
#include <lmd/kernels/attention/decode.cuh>
#include <lmd/kernels/attention/prefill_step.cuh>
#include <lmd/quant/kv_formats.hpp>

namespace lmd::kernels {

#define LMD_INSTANCES_OF_ 4
#define LMD_INSTANCE_(Scheme, Dim)                                                   \
  template cudaError_t decode_step<FragmentKvPolicy<quant::Scheme, Dim>, BFloat16>(  \
      Cuda, const DecodeStepArgs<BFloat16>&);                                        \
  template cudaError_t prefill_step<FragmentKvPolicy<quant::Scheme, Dim>, BFloat16>( \
      Cuda, const PrefillStepArgs<BFloat16>&);
#include <lmd/kernels/attention/step_instances.inc>
#undef LMD_INSTANCE_
#undef LMD_INSTANCES_OF_

}  // namespace lmd::kernels
