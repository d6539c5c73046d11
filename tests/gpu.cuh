/// \file  Whether tests can run on a GPU, saying so once where they cannot, and what they ask of it.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/core/launch.cuh>

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

template <class T>
__global__ void probe_kernel(T) {}

/// What this program's device code was compiled for.
inline lmd::Arch gpu_code_arch() {
  lmd::Arch arch;
  LMD_CUDA_TRY(lmd::code_arch(&probe_kernel<int>, &arch));
  return arch;
}

/// A context that gives a block no more shared memory than every device has that runs this code.
inline lmd::Cuda least_device() {
  return {.shared_bytes = gpu_code_arch().shared_bytes()};
}

inline int gpu_multiprocessors() {
  int n = 0;
  LMD_CUDA_TRY(lmd::multiprocessors(lmd::Cuda{}, &n));
  return n;
}
