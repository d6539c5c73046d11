/// \file  Compiles a part of the attention kernels that step_cuda_extern.cuh promises.
// SPDX-License-Identifier: Apache-2.0
#define LMD_INSTANCES_OF_ 16
#define LMD_INSTANCE_(Scheme, Dim) LMD_STEP_(Scheme, Dim, BFloat16)
#include "attention_cuda.inc"
