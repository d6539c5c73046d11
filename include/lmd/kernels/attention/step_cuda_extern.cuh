/// \file  Promises the Cuda attention kernels, so that this translation unit does not compile them:
///        link what apps/inst/attention_cuda_*.cu compile.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/kernels/attention/decode.cuh>
#include <lmd/kernels/attention/prefill_step.cuh>
#include <lmd/kernels/cache/seal.cuh>
#include <lmd/quant/kv_formats.hpp>

namespace lmd::kernels {

// An explicit instance needs its type spelled out, and the lists must not drift apart.
#define LMD_STEP_INSTANCES_(Scheme, Dim, T)                                          \
  extern template cudaError_t decode_step<FragmentKvPolicy<quant::Scheme, Dim>, T>(  \
      Cuda, const DecodeStepArgs<T>&);                                               \
  extern template cudaError_t prefill_step<FragmentKvPolicy<quant::Scheme, Dim>, T>( \
      Cuda, const PrefillStepArgs<T>&);
#define LMD_INSTANCE_(Scheme, Dim)                                               \
  extern template cudaError_t decode_plan<FragmentKvPolicy<quant::Scheme, Dim>>( \
      Cuda, const DecodePlanArgs&);                                              \
  extern template cudaError_t seal_step<FragmentKvPolicy<quant::Scheme, Dim>>(   \
      Cuda, const SealStepArgs&);                                                \
  LMD_STEP_INSTANCES_(Scheme, Dim, Half)                                         \
  LMD_STEP_INSTANCES_(Scheme, Dim, BFloat16)
#include <lmd/kernels/attention/step_instances.inc>
#undef LMD_INSTANCE_
#undef LMD_STEP_INSTANCES_

}  // namespace lmd::kernels
