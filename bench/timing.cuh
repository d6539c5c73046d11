/// \file  How kernels are timed: graphs of many calls over cold buffers, bursts, and back to back.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/core/device_buffer.cuh>
#include <lmd/core/launch.cuh>
#include <lmd/core/stream.cuh>

#include <algorithm>
#include <chrono>
#include <functional>
#include <thread>
#include <vector>

namespace lmd::bench {

/// Beyond this many bytes between two uses, nothing is left of a buffer in any cache.
inline constexpr std::int64_t kCycleBytes = 320'000'000;

/// Copies of a buffer of `bytes` that make a cycle.
inline int cold_copies(std::int64_t bytes) {
  return static_cast<int>(std::max<std::int64_t>(2, (kCycleBytes + bytes - 1) / bytes));
}

struct Times {
  double median = 0, min = 0, p95 = 0;  ///< microseconds for one call
  double clock_mhz = 0;                 ///< of the multiprocessors, right behind the last call
};

/// How calls follow each other.
enum class Timing {
  kEdges,      ///< joined by ordinary graph edges
  kChained,    ///< by programmatic dependent launch, as the engine runs them
  kBurst,      ///< chained, at most 2 ms of work (or one call) after 25 ms of nothing: full clocks
  kSustained,  ///< chained, back to back for so long that power limits the clocks
};

inline const char* name_of(Timing timing) {
  constexpr const char* kNames[] = {"edges", "chained", "burst", "sustained"};
  return kNames[static_cast<int>(timing)];
}

/// Queues call i.
using Calls = std::function<void(Cuda, int)>;

/// For how long sustained rows run; the second half is measured. `--sustained_seconds=S` sets it.
inline double& sustained_seconds() {
  static double seconds = 1.0;
  return seconds;
}

namespace detail {

inline constexpr int kReplays = 15;

/// Cycles and nanoseconds of 50 us, by one thread.
static __global__ void clock_kernel(std::int64_t* cycles_and_ns) {
  const auto now = [] {
    std::uint64_t ns = 0;
    asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(ns));
    return static_cast<std::int64_t>(ns);
  };
  const std::int64_t begin_ns = now();
  const std::int64_t begin = clock64();
  std::int64_t ns = 0;
  do {
    ns = now() - begin_ns;
  } while (ns < 50'000);
  cycles_and_ns[0] = clock64() - begin;
  cycles_and_ns[1] = ns;
}

/// A stream with a graph of `copies` calls.
class Recorded {
 public:
  Recorded(int copies, bool overlap, const Calls& queue) : copies_(copies) {
    Cuda ctx = context(overlap);
    queue(ctx, 0);  // what a library sets up in its first call may not be captured
    stream_.synchronize();
    graph_ = Graph::capture(stream_.get(), [&] {
      for (int i = 0; i < copies; ++i)
        queue(ctx, i);
    });
    for (int i = 0; i < 2; ++i)
      graph_.launch(stream_.get());
    stream_.synchronize();
  }

  /// Microseconds for one call, of one replay.
  double replay() {
    begin_.record(stream_.get());
    graph_.launch(stream_.get());
    end_.record(stream_.get());
    stream_.synchronize();
    return us_between(begin_, end_);
  }

  /// What was measured, and the clock of now.
  [[nodiscard]] Times summary(std::vector<double> us) {
    std::sort(us.begin(), us.end());
    clock_kernel<<<1, 1, 0, stream_.get()>>>(clock_.data());
    LMD_CUDA_TRY(cudaGetLastError());
    stream_.synchronize();
    std::vector<std::int64_t> found(2);
    clock_.copy_to(found);
    return {us[us.size() / 2], us.front(), us[us.size() * 95 / 100],
            1e3 * static_cast<double>(found[0]) / static_cast<double>(found[1])};
  }

  /// Replays without a pause, each timed, for about `seconds`.
  std::vector<double> replay_for(double seconds) {
    const double one = replay() * copies_ * 1e-6;
    std::vector<Event> ends(std::max(4, static_cast<int>(seconds / one)));
    for (Event& end : ends) {
      graph_.launch(stream_.get());
      end.record(stream_.get());
    }
    stream_.synchronize();
    std::vector<double> us;
    for (std::size_t i = 1; i < ends.size(); ++i)
      us.push_back(us_between(ends[i - 1], ends[i]));
    return us;
  }

 private:
  [[nodiscard]] Cuda context(bool overlap) const {
    Cuda ctx{.stream = stream_.get(), .overlap = overlap};
    LMD_CUDA_TRY(multiprocessors(ctx, &ctx.multiprocessors));
    return ctx;
  }
  [[nodiscard]] double us_between(const Event& begin, const Event& end) const {
    return 1000.0 * end.ms_since(begin) / copies_;
  }

  int copies_;
  Stream stream_;
  Graph graph_;
  Event begin_;
  Event end_;
  DeviceBuffer<std::int64_t> clock_{2};
};

/// Calls that take 2 ms together, at least one.
inline int calls_of_burst(const Calls& queue) {
  constexpr double kBurstUs = 2000.0;
  constexpr double kMaxCalls = 200.0;
  Recorded one(1, true, queue);
  return static_cast<int>(std::clamp(kBurstUs / one.replay(), 1.0, kMaxCalls));
}

}  // namespace detail

/// Captures `queue(ctx, i)` for i in [0, copies) as one graph and replays it 15 times.
inline Times time_graph(int copies, Timing timing, const Calls& queue) {
  detail::Recorded calls(copies, timing != Timing::kEdges, queue);
  std::vector<double> us;
  for (int i = 0; i < detail::kReplays; ++i)
    us.push_back(calls.replay());
  return calls.summary(std::move(us));
}

/// As Timing::kBurst says, 15 times.
inline Times time_burst(const Calls& queue) {
  detail::Recorded calls(detail::calls_of_burst(queue), true, queue);
  std::vector<double> us;
  for (int i = 0; i < detail::kReplays; ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(25));
    us.push_back(calls.replay());
  }
  return calls.summary(std::move(us));
}

/// As Timing::kSustained says.
inline Times time_sustained(const Calls& queue) {
  detail::Recorded calls(detail::calls_of_burst(queue), true, queue);
  std::vector<double> us = calls.replay_for(sustained_seconds());
  us.erase(us.begin(), us.begin() + static_cast<std::ptrdiff_t>(us.size() / 2));
  return calls.summary(std::move(us));
}

inline Times time_calls(int copies, Timing timing, const Calls& queue) {
  switch (timing) {
    case Timing::kBurst:
      return time_burst(queue);
    case Timing::kSustained:
      return time_sustained(queue);
    default:
      return time_graph(copies, timing, queue);
  }
}

}  // namespace lmd::bench
