/// \file  Every thread, task and range exactly once, awake or asleep. Worth most under tsan.
// SPDX-License-Identifier: Apache-2.0
#include <lmd/core/thread_pool.hpp>

#include <atomic>
#include <chrono>
#include <thread>
#include <vector>

#include <doctest/doctest.h>

TEST_CASE("run calls each index once and waits for all") {
  for (const int threads : {1, 2, 3, 5}) {
    lmd::ThreadPool pool(threads);
    CHECK(pool.size() == threads);
    std::vector<int> calls(static_cast<std::size_t>(threads), 0);
    for (int i = 0; i < 50; ++i) {
      pool.run([&](int index) { ++calls[static_cast<std::size_t>(index)]; });
    }
    for (const int n : calls)
      CHECK(n == 50);
  }
}

TEST_CASE("workers that fell asleep wake up") {
  lmd::ThreadPool pool(3);
  std::atomic<int> calls{0};
  for (int i = 0; i < 5; ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
    pool.run([&](int) { ++calls; });
  }
  CHECK(calls == 15);
}

TEST_CASE("a pool that was never used can be destroyed") {
  const lmd::ThreadPool pool(4);
  CHECK(pool.size() == 4);
}

TEST_CASE("the number of threads is checked") {
  CHECK_THROWS_AS(lmd::ThreadPool(0), lmd::Error);
  CHECK_THROWS_WITH_AS(lmd::ThreadPool(257), "threads must be 1 to 256, not 257", lmd::Error);
}

TEST_CASE("ranges cover everything once, with borders at multiples of the step") {
  lmd::ThreadPool pool(3);
  for (lmd::ThreadPool* where : {static_cast<lmd::ThreadPool*>(nullptr), &pool}) {
    for (const std::int64_t n : {0, 1, 7, 8, 9, 24, 100}) {
      std::vector<std::atomic<int>> seen(static_cast<std::size_t>(n));
      std::atomic<bool> is_aligned{true};
      lmd::parallel_ranges(where, n, 8, [&](std::int64_t begin, std::int64_t end) {
        if (begin % 8 != 0 || (end % 8 != 0 && end != n)) is_aligned = false;
        for (std::int64_t i = begin; i < end; ++i)
          ++seen[static_cast<std::size_t>(i)];
      });
      CHECK(is_aligned);
      for (const std::atomic<int>& count : seen)
        CHECK(count == 1);
    }
  }
}

TEST_CASE("tasks are handed out once each") {
  lmd::ThreadPool pool(4);
  for (const int n : {0, 1, 2, 1000}) {
    std::vector<std::atomic<int>> seen(static_cast<std::size_t>(n));
    lmd::parallel_tasks(&pool, n, [&](int task) { ++seen[static_cast<std::size_t>(task)]; });
    for (const std::atomic<int>& count : seen)
      CHECK(count == 1);
  }
}
