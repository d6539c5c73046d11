/// \file  Threads that wait awake for a moment: a token has hundreds of parallel regions.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/core/error.hpp>

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <string>
#include <thread>
#include <type_traits>
#include <vector>

namespace lmd {

/// Runs one function on `size()` threads at a time, the calling one included. Workers spin for
/// about 50 us after their last work and then sleep, so that neither a decode step pays for wake-ups
/// nor an idle engine for spinning. One thread may call `run` at a time.
class ThreadPool {
 public:
  /// \throws Error(kConfig) unless 1 <= threads <= 256.
  explicit ThreadPool(int threads) {
    LMD_REQUIRE(threads >= 1 && threads <= 256, ErrorCode::kConfig,
                "threads must be 1 to 256, not " + std::to_string(threads));
    for (int i = 1; i < threads; ++i)
      workers_.emplace_back([this, i] { work(i); });
  }
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;
  ~ThreadPool() {
    stop_ = true;
    epoch_.fetch_add(1);
    epoch_.notify_all();
    for (std::thread& t : workers_)
      t.join();
  }

  [[nodiscard]] int size() const { return static_cast<int>(workers_.size()) + 1; }

  /// Calls `f(i)` once for every i in [0, size()), each on its own thread, and returns when all
  /// are done. `f` must not throw.
  template <class F>
  void run(F&& f) {
    if (workers_.empty()) {
      f(0);
      return;
    }
    job_ = [](void* context, int i) { (*static_cast<std::remove_reference_t<F>*>(context))(i); };
    context_ = &f;
    pending_.store(static_cast<int>(workers_.size()), std::memory_order_relaxed);
    epoch_.fetch_add(1, std::memory_order_release);
    if (sleepers_.load(std::memory_order_seq_cst) > 0) epoch_.notify_all();
    f(0);
    for (int i = 0; pending_.load(std::memory_order_acquire) != 0; ++i) {
      if (i < kSpins) {
        pause();
      } else {
        std::this_thread::yield();  // a worker waits for a processor: give it this one
      }
    }
  }

 private:
  static constexpr int kSpins = 2000;  // about 50 us of pauses

  static void pause() {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#else
    std::this_thread::yield();
#endif
  }

  void work(int index) {
    std::uint32_t seen = 0;
    for (;;) {
      seen = wait_for_epoch_after(seen);
      if (stop_) return;
      job_(context_, index);
      pending_.fetch_sub(1, std::memory_order_release);
    }
  }

  std::uint32_t wait_for_epoch_after(std::uint32_t seen) {
    for (int i = 0; i < kSpins; ++i) {
      const std::uint32_t now = epoch_.load(std::memory_order_acquire);
      if (now != seen) return now;
      pause();
    }
    sleepers_.fetch_add(1, std::memory_order_seq_cst);
    epoch_.wait(seen, std::memory_order_seq_cst);
    sleepers_.fetch_sub(1, std::memory_order_relaxed);
    return epoch_.load(std::memory_order_acquire);
  }

  std::vector<std::thread> workers_;
  void (*job_)(void*, int) = nullptr;
  void* context_ = nullptr;
  alignas(64) std::atomic<std::uint32_t> epoch_{0};
  alignas(64) std::atomic<int> pending_{0};
  alignas(64) std::atomic<int> sleepers_{0};
  std::atomic<bool> stop_{false};
};

/// Splits [0, n) into one contiguous range per thread, with borders at multiples of `step`, and
/// calls `f(begin, end)` for each that is not empty. A null pool means the calling thread.
template <class F>
void parallel_ranges(ThreadPool* pool, std::int64_t n, std::int64_t step, F&& f) {
  const std::int64_t steps = (n + step - 1) / step;
  const int threads = pool == nullptr ? 1 : pool->size();
  if (threads == 1 || steps <= 1) {
    if (n > 0) f(std::int64_t{0}, n);
    return;
  }
  pool->run([&](int i) {
    const std::int64_t begin = steps * i / threads * step;
    const std::int64_t end = std::min(n, steps * (i + 1) / threads * step);
    if (begin < end) f(begin, end);
  });
}

/// Calls `f(task)` for every task in [0, n), handed out one by one as threads become free.
template <class F>
void parallel_tasks(ThreadPool* pool, int n, F&& f) {
  if (pool == nullptr || pool->size() == 1 || n <= 1) {
    for (int task = 0; task < n; ++task)
      f(task);
    return;
  }
  std::atomic<int> next{0};
  pool->run([&](int) {
    for (int task = next.fetch_add(1); task < n; task = next.fetch_add(1))
      f(task);
  });
}

}  // namespace lmd
