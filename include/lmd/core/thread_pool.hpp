/// \file  Threads that wait awake for a moment: a token has hundreds of parallel regions.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/core/error.hpp>
#include <lmd/core/task_runner.hpp>

#include <atomic>
#include <cstdint>
#include <string>
#include <thread>
#include <vector>

namespace lmd {

/// Runs tasks on `size()` threads, the calling one included. Each has a share of the tasks and, done
/// with it, takes what others have not begun: a thread that the system has suspended, or that has not
/// woken up yet, holds up at most the task that it is in. Workers spin for about 50 us after their
/// last work and then sleep, so that neither a decode step pays for wake-ups nor an idle engine for
/// spinning. One thread may call `run` at a time. A thread's share are neighbours.
class ThreadPool final : public TaskRunner {
 public:
  /// \throws Error(kConfig) unless 1 <= threads <= 256.
  explicit ThreadPool(int threads)
      : TaskRunner(checked(threads)), shares_(static_cast<std::size_t>(threads)) {
    for (int i = 1; i < threads; ++i)
      workers_.emplace_back([this, i] { work(i); });
  }
  ~ThreadPool() {
    stop_ = true;
    wakes_.fetch_add(1);
    wakes_.notify_all();
    for (std::thread& t : workers_)
      t.join();
  }

 private:
  void run_on_threads(int n, Job job, void* context) override {
    ++epoch_;
    for (int i = size(); i-- > 0;) {
      Share& share = shares_[static_cast<std::size_t>(i)];
      share.job.store(job, std::memory_order_relaxed);
      share.context.store(context, std::memory_order_relaxed);
      const int end = border(n, i + 1);
      share.end.store(end, std::memory_order_relaxed);
      const auto left = static_cast<std::uint64_t>(end - border(n, i));
      share.left.store(std::uint64_t{epoch_} << 32 | left, std::memory_order_release);
    }
    // An addition, so that it has a place among those of wait_after: a worker that counts itself later
    // sees its new share, one that did before is woken.
    if (sleepers_.fetch_add(0) > 0) {
      wakes_.fetch_add(1);
      wakes_.notify_all();
    }
    done_by_workers_ += n - take_tasks(0);
    for (int i = 0; done_.load(std::memory_order_acquire) != done_by_workers_; ++i) {
      if (i < kSpins) {
        pause();
      } else {
        std::this_thread::yield();  // a worker waits for a processor: give it this one
      }
    }
  }

  /// One line of the cache: a worker learns of its work by one miss.
  struct alignas(64) Share {
    std::atomic<std::uint64_t> left{0};  ///< epoch * 2^32 + tasks that nobody has taken
    std::atomic<Job> job{nullptr};
    std::atomic<void*> context{nullptr};
    std::atomic<int> end{0};
  };

  static constexpr int kSpins = 2000;  // about 50 us of pauses

  static int checked(int threads) {
    LMD_REQUIRE(threads >= 1 && threads <= 256, ErrorCode::kConfig,
                "threads must be 1 to 256, not " + std::to_string(threads));
    return threads;
  }

  static void pause() {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#else
    std::this_thread::yield();
#endif
  }

  /// Where share i of n tasks begins.
  [[nodiscard]] int border(int n, int i) const {
    return static_cast<int>(std::int64_t{n} * i / size());
  }

  void work(int index) {
    std::uint64_t epoch = 0;
    for (;;) {
      epoch = wait_after(index, epoch);
      if (stop_) return;
      const int done = take_tasks(index);
      if (done != 0) done_.fetch_add(done, std::memory_order_release);
    }
  }

  /// Own tasks first. Returns how many were done.
  int take_tasks(int index) {
    int done = 0;
    for (int i = 0; i < size(); ++i)
      done += take_share(shares_[static_cast<std::size_t>((index + i) % size())]);
    return done;
  }

  /// Takes tasks as long as any are left. What a task needs is read once it is taken: until then a
  /// thread that comes late might mix one run with the next, from then on `run` waits for it.
  static int take_share(Share& share) {
    int done = 0;
    for (std::uint64_t left = share.left.load(std::memory_order_acquire);
         (left & 0xffffffffu) != 0;) {
      if (!share.left.compare_exchange_weak(left, left - 1, std::memory_order_acq_rel,
                                            std::memory_order_acquire)) {
        continue;
      }
      const int task =
          share.end.load(std::memory_order_relaxed) - static_cast<int>(left & 0xffffffffu);
      share.job.load(std::memory_order_relaxed)(share.context.load(std::memory_order_relaxed),
                                                task);
      ++done;
      left = share.left.load(std::memory_order_acquire);
    }
    return done;
  }

  /// Waits until the worker's share is of another epoch, which it returns, or stop_.
  std::uint64_t wait_after(int index, std::uint64_t epoch) {
    const Share& share = shares_[static_cast<std::size_t>(index)];
    const auto current = [&] { return share.left.load(std::memory_order_acquire) >> 32; };
    for (int i = 0; i < kSpins; ++i) {
      if (current() != epoch) return current();
      pause();
    }
    sleepers_.fetch_add(1);
    for (;;) {
      const std::uint32_t wakes = wakes_.load();
      if (current() != epoch || stop_) break;
      wakes_.wait(wakes);
    }
    sleepers_.fetch_sub(1);
    return current();
  }

  std::vector<Share> shares_;
  std::vector<std::thread> workers_;
  std::uint32_t epoch_ = 0;           // of the calling thread, as the next one
  std::int64_t done_by_workers_ = 0;  // what done_ will be
  alignas(64) std::atomic<std::int64_t> done_{0};
  alignas(64) std::atomic<std::uint32_t> wakes_{0};
  alignas(64) std::atomic<int> sleepers_{0};
  std::atomic<bool> stop_{false};
};

}  // namespace lmd
