/// \file  What kernels need of threads, without the threads: ThreadPool offers it, as may a pool of
///        your own.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <type_traits>

namespace lmd {

/// Runs tasks on `size()` threads, the calling one included.
class TaskRunner {
 public:
  TaskRunner(const TaskRunner&) = delete;
  TaskRunner& operator=(const TaskRunner&) = delete;

  [[nodiscard]] int size() const { return size_; }

  /// Calls `f(task)` once for every task in [0, n) and returns when all are done. Which thread gets
  /// which task is left to chance. `f` must not throw.
  template <class F>
  void run(int n, F&& f) {
    if (size_ == 1 || n <= 1) {
      for (int task = 0; task < n; ++task)
        f(task);
      return;
    }
    run_on_threads(
        n,
        [](void* context, int task) { (*static_cast<std::remove_reference_t<F>*>(context))(task); },
        &f);
  }

 protected:
  using Job = void (*)(void* context, int task);

  /// \pre size >= 1
  explicit TaskRunner(int size) : size_(size) {}
  ~TaskRunner() = default;

 private:
  /// Calls `job(context, task)` for every task in [0, n), n > 1, and returns when all have returned;
  /// what they wrote is then seen by the caller.
  virtual void run_on_threads(int n, Job job, void* context) = 0;

  int size_;
};

/// Splits [0, n) into a few contiguous ranges per thread, with borders at multiples of `step`, and
/// calls `f(begin, end)` for each. A null pool means the calling thread.
template <class F>
void parallel_ranges(TaskRunner* pool, std::int64_t n, std::int64_t step, F&& f) {
  constexpr std::int64_t kRangesPerThread = 4;
  const std::int64_t steps = (n + step - 1) / step;
  const int threads = pool == nullptr ? 1 : pool->size();
  if (threads == 1 || steps <= 1) {
    if (n > 0) f(std::int64_t{0}, n);
    return;
  }
  const std::int64_t wanted = threads * kRangesPerThread;
  const std::int64_t ranges = steps < wanted ? steps : wanted;
  pool->run(static_cast<int>(ranges), [&](int i) {
    const std::int64_t end = steps * (i + 1) / ranges * step;
    f(steps * i / ranges * step, end < n ? end : n);
  });
}

/// Calls `f(task)` for every task in [0, n), handed out one by one as threads become free. A null
/// pool means the calling thread.
template <class F>
void parallel_tasks(TaskRunner* pool, int n, F&& f) {
  if (pool != nullptr) {
    pool->run(n, f);
    return;
  }
  for (int task = 0; task < n; ++task)
    f(task);
}

}  // namespace lmd
