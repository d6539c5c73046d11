/// \file  A warp's ring of stages in shared memory, filled by copies that run ahead of their reader.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/kernels/primitive/async_copy.cuh>

namespace lmd::kernels {

/// `fetch(bytes, barrier)` queues the copies of the next stage: in the lanes that copy (see async_copy.cuh)
/// it expects their bytes at the barrier and ends them. All lanes of the warp call everything.
template <int Stages, int StageBytes>
struct CopyRing {
  std::uint8_t* bytes;     ///< [Stages, StageBytes] of shared memory
  std::uint32_t barriers;  ///< [Stages] of 8 bytes: their shared address
  int left;                ///< stages that no copy has been queued for
  int stage = 0;           ///< that is read next
  std::uint32_t parity = 0;

  /// Makes the barriers and queues as many copies as there is room for.
  template <class Fetch>
  __device__ __forceinline__ void start(Fetch&& fetch) {
    if (threadIdx.x % 32 == 0) {
      for (int i = 0; i < Stages; ++i)
        init_barrier(barriers + i * 8, kCopyLanes);
      publish_barriers();
    }
    __syncwarp();
    for (int i = 0; i < Stages; ++i)
      refill(i, fetch);
  }
  /// Waits for the oldest copies.
  [[nodiscard]] const __device__ __forceinline__ std::uint8_t* wait() const {
    wait_barrier(barriers + stage * 8, parity);
    return bytes + stage * StageBytes;
  }
  /// The warp has read them: their place is filled again.
  template <class Fetch>
  __device__ __forceinline__ void release(Fetch&& fetch) {
    __syncwarp();
    refill(stage, fetch);
    if (++stage == Stages) {
      stage = 0;
      parity ^= 1;
    }
  }

 private:
  template <class Fetch>
  __device__ __forceinline__ void refill(int into, Fetch&& fetch) {
    if (left == 0) return;
    --left;
    fetch(shared_address(bytes + into * StageBytes), barriers + into * 8);
  }
};

}  // namespace lmd::kernels
