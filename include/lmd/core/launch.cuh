/// \file  How kernels are launched, and how they overlap with the kernel before them.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/core/cuda.cuh>

#include <cstddef>
#include <vector>

namespace lmd {

struct LaunchShape {
  dim3 grid;
  dim3 block;
  std::size_t shared_bytes = 0;
  int cluster = 1;  ///< blocks of a cluster, along x
};

/// What the code of `kernel` that the device in use runs was compiled for, which may be an older
/// architecture than the device's.
template <class Args>
[[nodiscard]] cudaError_t code_arch(void (*kernel)(Args), Arch* arch) {
  cudaFuncAttributes attributes{};
  LMD_CUDA_RETURN_IF_ERROR(cudaFuncGetAttributes(&attributes, kernel));
  arch->cc = attributes.ptxVersion;
  return cudaSuccess;
}

/// A kernel that has been prepared for its launches.
struct PreparedKernel {
  const void* function = nullptr;
  Arch arch;            ///< as code_arch says
  int max_threads = 0;  ///< of a block
};

/// How many clusters of a shape run at the same time, as max_clusters says.
struct ClusterCount {
  const void* function = nullptr;
  unsigned threads = 0;
  std::size_t shared_bytes = 0;
  int cluster = 0;
  int n = 0;
  [[nodiscard]] bool is_of(const ClusterCount& other) const {
    return function == other.function && threads == other.threads &&
           shared_bytes == other.shared_bytes && cluster == other.cluster;
  }
};

/// The kernels that have been launched on one device. One thread at a time, as a stream.
class PreparedKernels {
 public:
  /// Null where `function` has not been launched yet. A model has a few dozen kernels: a walk over them
  /// takes less time than one question to the driver.
  [[nodiscard]] const PreparedKernel* find(const void* function) const {
    for (const PreparedKernel& kernel : kernels_) {
      if (kernel.function == function) return &kernel;
    }
    return nullptr;
  }
  void add(const PreparedKernel& kernel) { kernels_.push_back(kernel); }
  [[nodiscard]] int size() const { return static_cast<int>(kernels_.size()); }

  /// The same for a shape of clusters, whose n is not looked at.
  [[nodiscard]] const ClusterCount* find(const ClusterCount& shape) const {
    for (const ClusterCount& count : counts_) {
      if (count.is_of(shape)) return &count;
    }
    return nullptr;
  }
  void add(const ClusterCount& count) { counts_.push_back(count); }

 private:
  std::vector<PreparedKernel> kernels_;
  std::vector<ClusterCount> counts_;
};

/// Lets blocks of `kernel` have all the shared memory that there is, at its first launch with ctx.kernels and
/// at each one without.
template <class Args>
[[nodiscard]] cudaError_t prepare(Cuda ctx, void (*kernel)(Args), PreparedKernel* prepared) {
  const auto* const function = reinterpret_cast<const void*>(kernel);
  if (ctx.kernels != nullptr) {
    if (const PreparedKernel* found = ctx.kernels->find(function)) {
      *prepared = *found;
      return cudaSuccess;
    }
  }
  cudaFuncAttributes attributes{};
  LMD_CUDA_RETURN_IF_ERROR(cudaFuncGetAttributes(&attributes, kernel));
  int room = 0;
  int device = 0;
  LMD_CUDA_RETURN_IF_ERROR(cudaGetDevice(&device));
  LMD_CUDA_RETURN_IF_ERROR(
      cudaDeviceGetAttribute(&room, cudaDevAttrMaxSharedMemoryPerBlockOptin, device));
  // The same for every launch of a kernel: whoever else launches it does not take it back.
  LMD_CUDA_RETURN_IF_ERROR(
      cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                           room - static_cast<int>(attributes.sharedSizeBytes)));
  // Kernels whose split of a multiprocessor's memory differs never run on it side by side: all of
  // ours ask for the largest shared part.
  LMD_CUDA_RETURN_IF_ERROR(cudaFuncSetAttribute(
      kernel, cudaFuncAttributePreferredSharedMemoryCarveout, cudaSharedmemCarveoutMaxShared));
  *prepared = {function, {attributes.ptxVersion}, attributes.maxThreadsPerBlock};
  if (ctx.kernels != nullptr) ctx.kernels->add(*prepared);
  return cudaSuccess;
}

/// f.operator()<cc>() for an architecture that has the tunings of the code of `kernel`: those for large
/// blocks, or those that fit everywhere.
template <class Args, class F>
[[nodiscard]] cudaError_t with_tuned_arch(Cuda ctx, void (*kernel)(Args), F&& f) {
  PreparedKernel prepared;
  LMD_CUDA_RETURN_IF_ERROR(prepare(ctx, kernel, &prepared));
  return prepared.arch.has_large_blocks() ? f.template operator()<90>()
                                          : f.template operator()<80>();
}

/// Clusters of this shape that the device runs at the same time.
template <class Args>
[[nodiscard]] cudaError_t max_clusters(Cuda ctx,
                                       const LaunchShape& shape,
                                       void (*kernel)(Args),
                                       int* n) {
  ClusterCount count{.function = reinterpret_cast<const void*>(kernel),
                     .threads = shape.block.x,
                     .shared_bytes = shape.shared_bytes,
                     .cluster = shape.cluster};
  if (ctx.kernels != nullptr) {
    if (const ClusterCount* found = ctx.kernels->find(count)) {
      *n = found->n;
      return cudaSuccess;
    }
  }
  PreparedKernel prepared;
  LMD_CUDA_RETURN_IF_ERROR(prepare(ctx, kernel, &prepared));
  cudaLaunchAttribute attribute = {};
  attribute.id = cudaLaunchAttributeClusterDimension;
  attribute.val.clusterDim = {static_cast<unsigned>(shape.cluster), 1, 1};
  cudaLaunchConfig_t config = {};
  config.gridDim = shape.grid;
  config.blockDim = shape.block;
  config.dynamicSmemBytes = shape.shared_bytes;
  config.attrs = &attribute;
  config.numAttrs = 1;
  LMD_CUDA_RETURN_IF_ERROR(cudaOccupancyMaxActiveClusters(&count.n, kernel, &config));
  if (ctx.kernels != nullptr) ctx.kernels->add(count);
  *n = count.n;
  return cudaSuccess;
}

/// Queues `kernel(args)`; returns the launch status.
template <class Args>
[[nodiscard]] cudaError_t launch(Cuda ctx,
                                 const LaunchShape& shape,
                                 void (*kernel)(Args),
                                 const Args& args) {
  if (ctx.shared_bytes > 0 && shape.shared_bytes > static_cast<std::size_t>(ctx.shared_bytes))
    return cudaErrorInvalidValue;
  PreparedKernel prepared;
  LMD_CUDA_RETURN_IF_ERROR(prepare(ctx, kernel, &prepared));
  cudaLaunchAttribute attributes[2] = {};
  unsigned n = 0;
  if (ctx.overlap && prepared.arch.has_early_starts()) {  // else the kernel does not wait for the
    attributes[n].id = cudaLaunchAttributeProgrammaticStreamSerialization;  // one before it
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

/// Shared memory that a block may have on the device in use.
[[nodiscard]] inline cudaError_t shared_bytes_of_block(Cuda ctx, int* n) {
  *n = ctx.shared_bytes;
  if (*n > 0) return cudaSuccess;
  int device = 0;
  LMD_CUDA_RETURN_IF_ERROR(cudaGetDevice(&device));
  return cudaDeviceGetAttribute(n, cudaDevAttrMaxSharedMemoryPerBlockOptin, device);
}

/// Waits until the kernels before this one in the stream have ended and their writes are visible.
/// Every kernel calls it before it reads or writes what another kernel touches.
__device__ __forceinline__ void wait_for_previous_kernel() {
  if constexpr (kDeviceArch.has_early_starts()) asm volatile("griddepcontrol.wait;" ::: "memory");
}

/// Lets the next kernel's blocks start as soon as there is room for them. Call it after
/// `wait_for_previous_kernel`: then whatever a kernel reads before its own wait has only to be
/// written two kernels earlier.
__device__ __forceinline__ void allow_next_kernel() {
  if constexpr (kDeviceArch.has_early_starts())
    asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
}

}  // namespace lmd
