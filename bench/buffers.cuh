/// \file  Device buffers of the benchmarks: normal numbers made where they are used, and copies.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/core/activation.hpp>
#include <lmd/core/device_buffer.cuh>

#include <vector>

namespace lmd::bench {

namespace detail {

/// SplitMix64, then Box and Muller: two numbers a turn.
template <Activation T>
__global__ void __launch_bounds__(256)
    fill_normal_kernel(T* to, std::int64_t n, std::uint64_t seed, float deviation) {
  const std::int64_t step = std::int64_t{gridDim.x} * blockDim.x;
  for (std::int64_t i = std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x; i * 2 < n; i += step) {
    std::uint64_t z = (seed + static_cast<std::uint64_t>(i) + 1) * 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    z ^= z >> 31;
    const float uniform = (static_cast<float>(z >> 40) + 0.5f) * 0x1p-24f;  // above 0
    const float turn = static_cast<float>(z & 0xffffff) * 0x1p-23f;         // times pi
    const float radius = deviation * sqrtf(-2.0f * logf(uniform));
    float sine;
    float cosine;
    sincospif(turn, &sine, &cosine);
    to[i * 2] = from_float<T>(radius * cosine);
    if (i * 2 + 1 < n) to[i * 2 + 1] = from_float<T>(radius * sine);
  }
}

}  // namespace detail

/// Queues the filling of a whole buffer; other seeds give other numbers.
template <Activation T>
void fill_normal(DeviceBuffer<T>& to, unsigned seed, float deviation = 1.0f) {
  if (to.size() == 0) return;
  detail::fill_normal_kernel<T>
      <<<2048, 256>>>(to.data(), to.size(), std::uint64_t{seed} << 40, deviation);
  LMD_CUDA_TRY(cudaGetLastError());
}

template <Activation T>
[[nodiscard]] DeviceBuffer<T> normal_buffer(std::int64_t n, unsigned seed, float deviation = 1.0f) {
  DeviceBuffer<T> made(n);
  fill_normal(made, seed, deviation);
  return made;
}

template <class T>
[[nodiscard]] DeviceBuffer<T> on_device(const std::vector<T>& from) {
  DeviceBuffer<T> made(static_cast<std::int64_t>(from.size()));
  made.copy_from(from);
  return made;
}

/// Waits for all work before it.
template <class T>
[[nodiscard]] std::vector<T> on_host(const T* from, std::int64_t n) {
  std::vector<T> made(static_cast<std::size_t>(n));
  LMD_CUDA_TRY(cudaMemcpy(made.data(), from, made.size() * sizeof(T), cudaMemcpyDefault));
  return made;
}

}  // namespace lmd::bench
