/// \file  Whether tests can run on a GPU; says so once where they cannot.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cuda_runtime.h>

#include <cstdio>

/// Prints one visible line where there is no usable device.
inline bool has_gpu() {
  static const bool found = [] {
    int n = 0;
    const cudaError_t error = cudaGetDeviceCount(&n);
    if (error == cudaSuccess && n > 0) return true;
    std::printf("skipped: no GPU (%s)\n", cudaGetErrorString(error));
    (void)cudaGetLastError();
    return false;
  }();
  return found;
}
