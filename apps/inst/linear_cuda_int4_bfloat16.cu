/// \file  Compiles a part of the linear and embedding kernels that linear_cuda_extern.cuh promises.
// SPDX-License-Identifier: Apache-2.0
#define LMD_INSTANCES_OF_ 4
#include "linear_cuda.inc"
