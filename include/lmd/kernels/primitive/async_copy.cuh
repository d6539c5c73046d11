/// \file  Copies from global to shared memory that run beside other work, and the barriers that tell of
///        their arrival. From 9.0 on an engine copies, on one thread's order; before, the lanes of a warp
///        queue 16 bytes at a time. Kernels are written for both:
///
///          if (lane < kCopyLanes) {
///            expect_bytes(barrier, bytes);  // of all copies
///            bulk_copy(...);                // any number
///            end_copies(barrier);
///          }
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/core/cuda.cuh>

#include <cstdint>

namespace lmd::kernels {

/// Lanes of a warp, from the first on, that queue copies together; also the arrivals that a phase of
/// their barrier counts.
inline constexpr int kCopyLanes = kDeviceArch.has_bulk_copies() ? 1 : 32;

/// Lanes that copy one row of many: enough to read 128 bytes side by side.
inline constexpr int kRowCopyLanes = kDeviceArch.has_bulk_copies() ? 1 : 8;

__device__ __forceinline__ std::uint32_t shared_address(const void* p) {
  return static_cast<std::uint32_t>(__cvta_generic_to_shared(p));
}

/// Makes a barrier for `arrivals` arrivals a phase; its phase is 0. One thread calls it, then
/// `publish_barriers`, then the block (or warp) synchronises.
__device__ __forceinline__ void init_barrier(std::uint32_t barrier, int arrivals) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(barrier), "r"(arrivals) : "memory");
}

/// Lets the copy engine see barriers that this thread has made.
__device__ __forceinline__ void publish_barriers() {
  if constexpr (kDeviceArch.has_bulk_copies())
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
}

/// What one lane has done is seen by all that copy. A whole warp calls it.
__device__ __forceinline__ void sync_copy_lanes() {
  if constexpr (kCopyLanes > 1) __syncwarp();
}

/// The first lane's value, in all lanes that copy, which have called it together.
__device__ __forceinline__ bool of_first_copy_lane(bool value) {
  if constexpr (kCopyLanes > 1) {
    value = __shfl_sync(0xffffffffu, static_cast<int>(value), 0) != 0;
    __syncwarp();  // a shuffle orders nothing
  }
  return value;
}

/// Later copies come behind what this thread has read and written in their place. Then the threads
/// synchronise.
__device__ __forceinline__ void fence_before_copies() {
  if constexpr (kDeviceArch.has_bulk_copies())
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}

/// What copies read of global memory comes behind what was written there, by this thread or by those it
/// has synchronised with. Who writes calls it, and who copies first: later copies come behind that one.
__device__ __forceinline__ void fence_before_global_copies() {
  if constexpr (kDeviceArch.has_bulk_copies())
    asm volatile("fence.proxy.async.global;" ::: "memory");
}

/// Arrives, and announces `bytes` that copies of this phase will bring.
__device__ __forceinline__ void expect_bytes(std::uint32_t barrier, int bytes) {
  if constexpr (kDeviceArch.has_bulk_copies()) {
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(barrier), "r"(bytes)
                 : "memory");
  }
}

/// Arrives, at a barrier of no copies.
__device__ __forceinline__ void arrive_at(std::uint32_t barrier) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(barrier) : "memory");
}

/// Waits until the phase of this parity has ended. What was copied is then seen by this thread.
__device__ __forceinline__ void wait_barrier(std::uint32_t barrier, std::uint32_t parity) {
  if constexpr (kDeviceArch.cc >= 90) {
    asm volatile(
        "{\n"
        ".reg .pred done;\n"
        "again_%=:\n"
        "mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n"
        "@!done bra again_%=;\n"
        "}" ::"r"(barrier),
        "r"(parity)
        : "memory");
  } else {
    asm volatile(
        "{\n"
        ".reg .pred done;\n"
        "again_%=:\n"
        "mbarrier.test_wait.parity.shared::cta.b64 done, [%0], %1;\n"
        "@!done bra again_%=;\n"
        "}" ::"r"(barrier),
        "r"(parity)
        : "memory");
  }
}

/// Asks for the line at `from`, which this kernel may read already.
__device__ __forceinline__ void prefetch_line(const void* from) {
  asm volatile("prefetch.global.L1 [%0];" ::"l"(__cvta_generic_to_global(from)));
}

/// Queues this lane's copy of 16 bytes, past the first cache.
__device__ __forceinline__ void copy_16(std::uint32_t to, const void* from) {
  asm volatile("cp.async.cg.shared.global.L2::128B [%0], [%1], 16;" ::"r"(to), "l"(from)
               : "memory");
}

/// Queues a copy of `bytes` (a multiple of 16, both ends 16-byte aligned) that arrives at `barrier`.
/// `Lanes` neighbours call it together; a warp may copy 32 / Lanes things at once.
template <int Lanes = kCopyLanes>
__device__ __forceinline__ void bulk_copy(std::uint32_t to,
                                          const void* from,
                                          int bytes,
                                          std::uint32_t barrier) {
  if constexpr (kDeviceArch.has_bulk_copies()) {
    asm volatile(
        "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::
            "r"(to),
        "l"(from), "r"(bytes), "r"(barrier)
        : "memory");
  } else {
    const int first = static_cast<int>(threadIdx.x) % Lanes * 16;
    for (int i = 0; i < bytes; i += Lanes * 16) {
      if (i + first < bytes)
        copy_16(to + i + first, static_cast<const std::uint8_t*>(from) + i + first);
    }
  }
}

/// The copies of this phase are queued: without the engine, each lane arrives when its parts have.
__device__ __forceinline__ void end_copies(std::uint32_t barrier) {
  if constexpr (!kDeviceArch.has_bulk_copies())
    asm volatile("cp.async.mbarrier.arrive.noinc.shared::cta.b64 [%0];" ::"r"(barrier) : "memory");
}

}  // namespace lmd::kernels
