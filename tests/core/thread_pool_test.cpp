/// \file  Every thread, task and range exactly once, awake or asleep. Worth most under tsan.
// SPDX-License-Identifier: Apache-2.0
#include <lmd/core/thread_pool.hpp>

#include <atomic>
#include <chrono>
#include <thread>
#include <vector>

#include <doctest/doctest.h>

TEST_CASE("run calls each task once and waits for all") {
  for (const int threads : {1, 2, 3, 5}) {
    lmd::ThreadPool pool(threads);
    CHECK(pool.size() == threads);
    for (const int n : {0, 1, threads - 1, threads, threads + 1, 37}) {
      std::vector<int> calls(static_cast<std::size_t>(n), 0);
      for (int i = 0; i < 50; ++i) {
        pool.run(n, [&](int task) { ++calls[static_cast<std::size_t>(task)]; });
      }
      for (const int count : calls)
        CHECK(count == 50);
    }
  }
}

namespace {

/// Threads of somebody else's: here those of the standard library, started anew for each run.
class OwnThreads final : public lmd::TaskRunner {
 public:
  OwnThreads() : TaskRunner(3) {}
  int n_runs = 0;

 private:
  void run_on_threads(int n, Job job, void* context) override {
    ++n_runs;
    std::vector<std::thread> threads;
    for (int task = 1; task < n; ++task)
      threads.emplace_back(job, context, task);
    job(context, 0);
    for (std::thread& thread : threads)
      thread.join();
  }
};

}  // namespace

TEST_CASE("threads of one's own run what kernels split") {
  OwnThreads own;
  std::vector<int> calls(40, 0);
  lmd::parallel_ranges(&own, 40, 7, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i)
      ++calls[static_cast<std::size_t>(i)];
  });
  lmd::parallel_tasks(&own, 40, [&](int task) { ++calls[static_cast<std::size_t>(task)]; });
  for (const int count : calls)
    CHECK(count == 2);
  CHECK(own.n_runs == 2);
  lmd::parallel_tasks(&own, 1, [&](int) { ++calls[0]; });
  CHECK(calls[0] == 3);
  CHECK(own.n_runs == 2);  // one task is the caller's
}

TEST_CASE("runs follow each other without a task lost or done twice") {
  lmd::ThreadPool pool(4);
  std::int64_t sum = 0;
  std::int64_t expected = 0;
  for (int i = 0; i < 20000; ++i) {
    // A job of its own, with a size of its own: a late worker must not mix two of them.
    const int n = 1 + i % 7;
    std::vector<int> out(static_cast<std::size_t>(n), 0);
    pool.run(n, [&out, i](int task) { out[static_cast<std::size_t>(task)] += i + task; });
    for (int task = 0; task < n; ++task) {
      sum += out[static_cast<std::size_t>(task)];
      expected += i + task;
    }
  }
  CHECK(sum == expected);
}

TEST_CASE("a thread that is held up holds up its task alone") {
  lmd::ThreadPool pool(2);
  std::atomic<int> others{0};
  std::atomic<bool> is_held_up{false};
  pool.run(8, [&](int) {
    if (!is_held_up.exchange(true)) {
      while (others.load() < 7)
        std::this_thread::yield();
    } else {
      ++others;
    }
  });
  CHECK(others == 7);
}

TEST_CASE("workers that fell asleep wake up") {
  lmd::ThreadPool pool(3);
  for (int i = 0; i < 5; ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
    std::atomic<int> here{0};
    // Each waits for the others, so that it takes three threads.
    pool.run(3, [&](int) {
      ++here;
      while (here.load() < 3)
        std::this_thread::yield();
    });
    CHECK(here == 3);
  }
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
