/// \file  What this machine can do at best: read bandwidth and float operations per second.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/core/buffer.hpp>
#include <lmd/core/cpu_features.hpp>
#include <lmd/core/thread_pool.hpp>
#include <lmd/kernels/primitive/simd.hpp>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>

namespace lmd::bench {

/// Larger than any last-level cache here: what is rotated through this many bytes comes from memory.
inline constexpr std::int64_t kRotatedBytes = 256 << 20;

}  // namespace lmd::bench

#define LMD_SIMD_BODY_ "machine.inc"
#include <lmd/kernels/primitive/for_each_isa.inc>

namespace lmd::bench {

struct Machine {
  double read_bytes_per_s = 0.0;
  double flops_per_s = 0.0;
};

/// The shortest of several runs of `f`, in seconds.
template <class F>
double shortest_run(int runs, F&& f) {
  double best = 1e30;
  for (int i = 0; i < runs; ++i) {
    const auto begin = std::chrono::steady_clock::now();
    f();
    const std::chrono::duration<double> time = std::chrono::steady_clock::now() - begin;
    best = std::min(best, time.count());
  }
  return best;
}

/// Measures with all threads of the pool at once.
[[nodiscard]] inline Machine measure(ThreadPool& pool) {
  double (*read)(const float*, std::int64_t) = &kernels::scalar::read_all;
  std::int64_t (*multiply)(int) = &kernels::scalar::multiply_add;
#if defined(__x86_64__)
  if (best_cpu_isa() == CpuIsa::kAvx512) {
    read = &kernels::avx512::read_all;
    multiply = &kernels::avx512::multiply_add;
  } else if (best_cpu_isa() == CpuIsa::kAvx2) {
    read = &kernels::avx2::read_all;
    multiply = &kernels::avx2::multiply_add;
  }
#endif
  Buffer<float> memory(kRotatedBytes / static_cast<std::int64_t>(sizeof(float)));
  std::ranges::fill(memory, 1.0f);
  const double read_s = shortest_run(10, [&] {
    parallel_ranges(&pool, memory.size(), 1024, [&](std::int64_t begin, std::int64_t end) {
      volatile double sum = read(memory.data() + begin, end - begin);
      (void)sum;
    });
  });
  constexpr int kSteps = 200000;
  std::atomic<std::int64_t> flops{0};
  const double multiply_s = shortest_run(20, [&] {
    flops = 0;
    pool.run(pool.size(), [&](int) { flops += multiply(kSteps); });
  });
  return {static_cast<double>(memory.size_bytes()) / read_s,
          static_cast<double>(flops.load()) / multiply_s};
}

}  // namespace lmd::bench
