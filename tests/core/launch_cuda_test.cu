/// \file  Launches that remember what they have asked of the driver: the same work, in graphs too.
// SPDX-License-Identifier: Apache-2.0
#include <lmd/core/device_buffer.cuh>
#include <lmd/core/launch.cuh>
#include <lmd/core/stream.cuh>

#include <vector>

#include "gpu.cuh"
#include <doctest/doctest.h>

using namespace lmd;

namespace {

struct ShiftArgs {
  int* values = nullptr;  ///< [blockDim.x]
  int by = 0;
};

/// values[i] = values[i + 1] + by around the block, through memory that the launch has asked for.
__global__ void shift_kernel(ShiftArgs a) {
  extern __shared__ int shared[];
  wait_for_previous_kernel();
  const int last = static_cast<int>(blockDim.x) * 64 - 1;
  shared[last - threadIdx.x] = a.values[threadIdx.x];
  __syncthreads();
  a.values[threadIdx.x] = shared[last - (threadIdx.x + 1) % blockDim.x] + a.by;
}
__global__ void add_kernel(ShiftArgs a) {
  wait_for_previous_kernel();
  a.values[threadIdx.x] += a.by;
}

constexpr int kThreads = 256;
constexpr std::size_t kLarge = kThreads * 64 * sizeof(int);  // more than a block has unasked

cudaError_t launch_both(Cuda ctx, int* values, int by) {
  LMD_CUDA_RETURN_IF_ERROR(launch(ctx, {.grid = 1, .block = kThreads, .shared_bytes = kLarge},
                                  shift_kernel, ShiftArgs{values, by}));
  return launch(ctx, {.grid = 1, .block = kThreads}, add_kernel, ShiftArgs{values, 1});
}

/// What `n` rounds of launch_both make of 0, 1, 2, ...
std::vector<int> expected(int n, int by) {
  std::vector<int> values(kThreads);
  for (int i = 0; i < kThreads; ++i)
    values[i] = (i + n) % kThreads + n * (by + 1);
  return values;
}

DeviceBuffer<int> numbers(cudaStream_t stream) {
  std::vector<int> values(kThreads);
  for (int i = 0; i < kThreads; ++i)
    values[i] = i;
  DeviceBuffer<int> buffer(kThreads, stream);
  buffer.copy_from(values);
  LMD_CUDA_TRY(cudaStreamSynchronize(stream));
  return buffer;
}

std::vector<int> fetch(const DeviceBuffer<int>& from) {
  std::vector<int> values(static_cast<std::size_t>(from.size()));
  from.copy_to(values);
  return values;
}

}  // namespace

TEST_CASE("a kernel is prepared once for each table, and every launch does its work") {
  if (!has_gpu()) return;
  const Stream stream;
  for (const bool overlap : {false, true}) {
    PreparedKernels kernels;
    const Cuda remembering{.stream = stream.get(), .overlap = overlap, .kernels = &kernels};
    DeviceBuffer<int> values = numbers(stream.get());
    for (int i = 0; i < 3; ++i)
      REQUIRE(launch_both(remembering, values.data(), 5) == cudaSuccess);
    CHECK(fetch(values) == expected(3, 5));
    CHECK(kernels.size() == 2);
    CHECK(kernels.find(reinterpret_cast<const void*>(&shift_kernel)) != nullptr);
    CHECK(kernels.find(reinterpret_cast<const void*>(&add_kernel))->arch.cc == gpu_code_arch().cc);
    CHECK(kernels.find(nullptr) == nullptr);
    // Launches of others in between leave the kernel what it was given.
    REQUIRE(launch(Cuda{.stream = stream.get()}, {.grid = 1, .block = kThreads}, add_kernel,
                   ShiftArgs{values.data(), -1}) == cudaSuccess);
    REQUIRE(launch(remembering, {.grid = 1, .block = kThreads}, add_kernel,
                   ShiftArgs{values.data(), 1}) == cudaSuccess);
    REQUIRE(launch_both(Cuda{.stream = stream.get()}, values.data(), 5) == cudaSuccess);
    REQUIRE(launch_both(remembering, values.data(), 5) == cudaSuccess);
    CHECK(fetch(values) == expected(5, 5));
  }
}

TEST_CASE("kernels may be launched for the first time while a graph is recorded") {
  if (!has_gpu()) return;
  const Stream stream;
  PreparedKernels kernels;
  const Cuda ctx{.stream = stream.get(), .overlap = true, .kernels = &kernels};
  DeviceBuffer<int> values = numbers(stream.get());
  const Graph graph = Graph::capture(stream.get(), [&] {
    for (int i = 0; i < 2; ++i)
      LMD_CUDA_TRY(launch_both(ctx, values.data(), 7));
  });
  CHECK(kernels.size() == 2);
  for (int i = 0; i < 3; ++i)
    graph.launch(stream.get());
  CHECK(fetch(values) == expected(6, 7));
}

TEST_CASE("more shared memory than the context allows, or than there is, is refused") {
  if (!has_gpu()) return;
  PreparedKernels kernels;
  Cuda ctx{.shared_bytes = static_cast<int>(kLarge) - 1, .kernels = &kernels};
  const LaunchShape shape{.grid = 1, .block = kThreads, .shared_bytes = kLarge};
  CHECK(launch(ctx, shape, shift_kernel, ShiftArgs{}) == cudaErrorInvalidValue);
  ctx.shared_bytes = 0;
  const LaunchShape larger{.grid = 1, .block = kThreads, .shared_bytes = std::size_t{1} << 20};
  CHECK(launch(ctx, larger, shift_kernel, ShiftArgs{}) != cudaSuccess);
  (void)cudaGetLastError();
}
