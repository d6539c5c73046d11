/// \file  How fast this machine reads memory: the ceiling of decoding.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/core/buffer.hpp>
#include <lmd/core/thread_pool.hpp>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>

namespace lmd::apps {

/// Bytes per second that the threads of `pool` read together from a buffer that no cache of today
/// holds: the best of a few passes, after one that brings the pages in.
[[nodiscard]] inline double measure_read_bandwidth(ThreadPool& pool) {
  constexpr std::int64_t kWords = (std::int64_t{512} << 20) / 8;  // 512 MiB
  constexpr int kPasses = 5;
  constexpr std::int64_t kStep = 512;  // words; a page
  constexpr int kLanes = 16;           // sums that do not wait for each other
  Buffer<std::uint64_t> buffer(kWords);
  parallel_ranges(&pool, kWords, kStep, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i)
      buffer.data()[i] = static_cast<std::uint64_t>(i);
  });
  std::atomic<std::uint64_t> total{0};
  double best = 0.0;
  for (int pass = 0; pass < kPasses; ++pass) {
    const auto start = std::chrono::steady_clock::now();
    parallel_ranges(&pool, kWords, kStep, [&](std::int64_t begin, std::int64_t end) {
      std::uint64_t sums[kLanes] = {};
      for (std::int64_t i = begin; i < end; i += kLanes)
        for (int lane = 0; lane < kLanes; ++lane)
          sums[lane] += buffer.data()[i + lane];
      std::uint64_t sum = 0;
      for (const std::uint64_t each : sums)
        sum += each;
      total.fetch_add(sum);  // used, so that nothing is optimised away
    });
    const std::chrono::duration<double> taken = std::chrono::steady_clock::now() - start;
    best = std::max(best, 8.0 * static_cast<double>(kWords) / taken.count());
  }
  return total.load() != 0 ? best : 0.0;
}

}  // namespace lmd::apps
