/// \file  Blocks of a cluster: who they are, waiting for each other, and each other's shared memory.
///        Before 9.0 a block is a cluster of its own.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/core/cuda.cuh>

#include <cstdint>

namespace lmd::kernels {

/// More than the eight that every device can hold; the launcher asks for it.
inline constexpr int kMaxCluster = 16;

__device__ __forceinline__ int cluster_rank() {
  std::uint32_t rank = 0;
  if constexpr (kDeviceArch.has_clusters())
    asm volatile("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
  return static_cast<int>(rank);
}

__device__ __forceinline__ int cluster_size() {
  std::uint32_t size = 1;
  if constexpr (kDeviceArch.has_clusters())
    asm volatile("mov.u32 %0, %%cluster_nctarank;" : "=r"(size));
  return static_cast<int>(size);
}

/// First half of a barrier of all threads of the cluster: what was written before it ...
__device__ __forceinline__ void cluster_arrive() {
  if constexpr (kDeviceArch.has_clusters())
    asm volatile("barrier.cluster.arrive.release;" ::: "memory");
}

/// First half of a barrier that orders no memory but what `publish_barriers` has published: no wait
/// for writes that are under way.
__device__ __forceinline__ void cluster_arrive_relaxed() {
  if constexpr (kDeviceArch.has_clusters())
    asm volatile("barrier.cluster.arrive.relaxed;" ::: "memory");
}

/// ... is seen by all threads behind this second half.
__device__ __forceinline__ void cluster_wait() {
  if constexpr (kDeviceArch.has_clusters()) {
    asm volatile("barrier.cluster.wait.acquire;" ::: "memory");
  } else {
    __syncthreads();
  }
}

__device__ __forceinline__ void cluster_sync() {
  cluster_arrive();
  cluster_wait();
}

/// Where `shared`, an address in this block's shared memory, lies in block `rank`. That block must
/// have begun (one cluster barrier tells) and may not end before the access.
template <class T>
__device__ __forceinline__ T* in_block(T* shared, int rank) {
  if constexpr (kDeviceArch.has_clusters()) {
    std::uint64_t address;
    asm("mapa.u64 %0, %1, %2;"
        : "=l"(address)
        : "l"(reinterpret_cast<std::uint64_t>(shared)), "r"(rank));
    return reinterpret_cast<T*>(address);
  } else {
    return shared;
  }
}

/// Writes 16 bytes to `to`, an address in this block's shared memory, of block `rank`, and counts them
/// at `barrier` of that block, which announced them: whoever waits there sees them.
__device__ __forceinline__ void store_in_block(std::uint32_t to,
                                               std::uint32_t barrier,
                                               int rank,
                                               const float4& value) {
  if constexpr (kDeviceArch.has_clusters()) {
    asm volatile(
        "{\n"
        ".reg .b32 to, barrier;\n"
        "mapa.shared::cluster.u32 to, %0, %2;\n"
        "mapa.shared::cluster.u32 barrier, %1, %2;\n"
        "st.async.shared::cluster.mbarrier::complete_tx::bytes.v4.f32 [to], {%3, %4, %5, %6}, "
        "[barrier];\n"
        "}" ::"r"(to),
        "r"(barrier), "r"(rank), "f"(value.x), "f"(value.y), "f"(value.z), "f"(value.w)
        : "memory");
  }
}

}  // namespace lmd::kernels
