/// \file  Copies into shared memory: what arrives, in slots that are filled again and again.
// SPDX-License-Identifier: Apache-2.0
#include <lmd/kernels/primitive/async_copy.cuh>

#include <vector>

#include "gpu.cuh"
#include "oracle/device_guard.cuh"
#include <doctest/doctest.h>

using namespace lmd;
using namespace lmd::kernels;

namespace {

constexpr int kWarps = 4;
constexpr int kSlots = 3;
constexpr int kMostBytes = 2048;

struct Args {
  std::uint8_t* out;  ///< [warp][copies, kMostBytes]: what a warp has read, in 16-byte pieces
  const std::uint8_t* from;  ///< [copies, kMostBytes]
  int copies;
};

/// Of copy i, a multiple of 16.
LMD_HD int bytes_of(int i) {
  return 16 + i * 272 % (kMostBytes - 16) / 16 * 16;
}

/// All warps read each slot; warps take turns to fill one, which has been overwritten by then.
template <class A>
__global__ void copy_kernel(A a) {
  __shared__ __align__(128) std::uint8_t ring[kSlots * kMostBytes];
  __shared__ std::uint64_t words[2 * kSlots];
  const std::uint32_t barriers = shared_address(words);
  const int warp = static_cast<int>(threadIdx.x) / 32;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  if (threadIdx.x == 0) {
    for (int i = 0; i < kSlots; ++i) {
      init_barrier(barriers + i * 8, kCopyLanes);
      init_barrier(barriers + (kSlots + i) * 8, kWarps);
    }
    publish_barriers();
  }
  __syncthreads();
  const auto fetch = [&](int i) {
    if (i >= a.copies || lane >= kCopyLanes) return;
    const std::uint32_t full = barriers + i % kSlots * 8;
    const std::uint32_t to = shared_address(ring + i % kSlots * kMostBytes);
    const std::uint8_t* from = a.from + i * kMostBytes;
    const int bytes = bytes_of(i);
    const int first = bytes / 32 * 16;
    expect_bytes(full, bytes);
    if (first > 0) bulk_copy(to, from, first, full);
    bulk_copy(to + first, from + first, bytes - first, full);
    end_copies(full);
  };
  if (warp == 0) {
    for (int i = 0; i < kSlots; ++i)
      fetch(i);
  }
  for (int i = 0; i < a.copies; ++i) {
    const int slot = i % kSlots;
    const auto parity = static_cast<std::uint32_t>(i / kSlots % 2);
    std::uint8_t* to = a.out + (warp * a.copies + i) * kMostBytes;
    wait_barrier(barriers + slot * 8, parity);
    for (int at = lane * 16; at < bytes_of(i); at += 512)
      *reinterpret_cast<uint4*>(to + at) =
          *reinterpret_cast<const uint4*>(ring + slot * kMostBytes + at);
    __syncwarp();
    if (lane == 0) arrive_at(barriers + (kSlots + slot) * 8);
    if (i % kWarps != warp) continue;
    wait_barrier(barriers + (kSlots + slot) * 8, parity);
    for (int at = (31 - lane) * 16; at < kMostBytes; at += 512)
      *reinterpret_cast<uint4*>(ring + slot * kMostBytes + at) = uint4{~0u, ~0u, ~0u, ~0u};
    fence_before_copies();
    __syncwarp();
    fetch(i + kSlots);
  }
}

}  // namespace

TEST_CASE("copies into shared memory arrive whole, in the slots of a ring") {
  if (!has_gpu()) return;
  constexpr int kCopies = 301;
  std::vector<std::uint8_t> from(kCopies * kMostBytes);
  for (std::size_t i = 0; i < from.size(); ++i)
    from[i] = static_cast<std::uint8_t>(i * 2654435761u >> 24);
  test::OnDevice<std::uint8_t> device_from(from);
  test::GuardedDevice<std::uint8_t> out(std::int64_t{kWarps} * kCopies * kMostBytes);
  const Args args{out.data(), device_from.data(), kCopies};
  REQUIRE(launch(Cuda{}, {.grid = 1, .block = kWarps * 32}, &copy_kernel<Args>, args) ==
          cudaSuccess);
  const std::vector<std::uint8_t> found = out.fetch();
  CHECK(out.is_intact());
  int wrong = 0;
  for (int warp = 0; warp < kWarps; ++warp) {
    for (int i = 0; i < kCopies; ++i) {
      for (int at = 0; at < kMostBytes; ++at) {
        const std::uint8_t expected =
            at < bytes_of(i) ? from[std::size_t(i) * kMostBytes + at] : 0xff;
        wrong += found[(std::size_t(warp) * kCopies + i) * kMostBytes + at] != expected;
      }
    }
  }
  CHECK(wrong == 0);
}
