/// \file  How kernels are launched, and how they overlap with the kernel before them.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/core/cuda.cuh>

#include <cstddef>

namespace lmd {

struct LaunchShape {
  dim3 grid;
  dim3 block;
  std::size_t shared_bytes = 0;
  int cluster = 1;  ///< blocks of a cluster, along x
};

/// Queues `kernel(args)`; returns the launch status.
template <class Args>
[[nodiscard]] cudaError_t launch(Cuda ctx,
                                 const LaunchShape& shape,
                                 void (*kernel)(Args),
                                 const Args& args) {
  constexpr std::size_t kDefaultSharedBytes = 48 * 1024;
  if (shape.shared_bytes > kDefaultSharedBytes) {
    LMD_CUDA_RETURN_IF_ERROR(cudaFuncSetAttribute(
        kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(shape.shared_bytes)));
  }
  // Kernels whose split of a multiprocessor's memory differs never run on it side by side: all of
  // ours ask for the largest shared part.
  LMD_CUDA_RETURN_IF_ERROR(cudaFuncSetAttribute(
      kernel, cudaFuncAttributePreferredSharedMemoryCarveout, cudaSharedmemCarveoutMaxShared));
  cudaLaunchAttribute attributes[2] = {};
  unsigned n = 0;
  if (ctx.overlap) {
    attributes[n].id = cudaLaunchAttributeProgrammaticStreamSerialization;
    attributes[n++].val.programmaticStreamSerializationAllowed = 1;
  }
  if (shape.cluster > 1) {
    attributes[n].id = cudaLaunchAttributeClusterDimension;
    attributes[n++].val.clusterDim = {static_cast<unsigned>(shape.cluster), 1, 1};
  }
  cudaLaunchConfig_t config = {};
  config.gridDim = shape.grid;
  config.blockDim = shape.block;
  config.dynamicSmemBytes = shape.shared_bytes;
  config.stream = ctx.stream;
  config.attrs = attributes;
  config.numAttrs = n;
  return cudaLaunchKernelEx(&config, kernel, args);
}

/// Multiprocessors of the device in use.
[[nodiscard]] inline cudaError_t multiprocessors(Cuda ctx, int* n) {
  *n = ctx.multiprocessors;
  if (*n > 0) return cudaSuccess;
  int device = 0;
  LMD_CUDA_RETURN_IF_ERROR(cudaGetDevice(&device));
  return cudaDeviceGetAttribute(n, cudaDevAttrMultiProcessorCount, device);
}

/// Waits until the kernels before this one in the stream have ended and their writes are visible.
/// Every kernel calls it before it reads or writes what another kernel touches.
__device__ __forceinline__ void wait_for_previous_kernel() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

/// Lets the next kernel's blocks start as soon as there is room for them. Call it after
/// `wait_for_previous_kernel`: then whatever a kernel reads before its own wait has only to be
/// written two kernels earlier.
__device__ __forceinline__ void allow_next_kernel() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}

}  // namespace lmd
