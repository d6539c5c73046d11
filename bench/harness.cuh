/// \file  How kernels are timed: graphs of many copies over cold buffers, edges and chained.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/core/device_buffer.cuh>
#include <lmd/core/launch.cuh>
#include <lmd/core/stream.cuh>

#include <algorithm>
#include <cstdio>
#include <functional>
#include <string>
#include <vector>

#include <benchmark/benchmark.h>

namespace lmd::bench {

/// Beyond this many bytes between two uses, nothing is left of a buffer in any cache.
inline constexpr std::int64_t kCycleBytes = 320'000'000;

/// Copies of a buffer of `bytes` that make a cycle.
inline int cold_copies(std::int64_t bytes) {
  return static_cast<int>(std::max<std::int64_t>(2, (kCycleBytes + bytes - 1) / bytes));
}

struct Times {
  double median = 0, min = 0, p95 = 0;  ///< microseconds for one copy
};

/// How the copies in a graph follow each other.
enum class Follow {
  kEdges,    ///< ordinary edges
  kChained,  ///< programmatic dependent launch, as the engine runs them
};

/// Captures `queue(ctx, i)` for i in [0, copies) as one graph and replays it.
inline Times time_graph(int copies, Follow follow, const std::function<void(Cuda, int)>& queue) {
  constexpr int kReplays = 15;
  Stream stream;
  Cuda ctx{.stream = stream.get(), .overlap = follow == Follow::kChained};
  LMD_CUDA_TRY(multiprocessors(ctx, &ctx.multiprocessors));
  const Graph graph = Graph::capture(stream.get(), [&] {
    for (int i = 0; i < copies; ++i)
      queue(ctx, i);
  });
  for (int i = 0; i < 3; ++i)
    graph.launch(stream.get());
  stream.synchronize();
  Event start;
  Event end;
  std::vector<double> us;
  for (int i = 0; i < kReplays; ++i) {
    start.record(stream.get());
    graph.launch(stream.get());
    end.record(stream.get());
    stream.synchronize();
    us.push_back(1000.0 * end.ms_since(start) / copies);
  }
  std::sort(us.begin(), us.end());
  return {us[us.size() / 2], us.front(), us[us.size() * 95 / 100]};
}

namespace detail {

static __global__ void read_only_kernel(const uint4* from, std::int64_t n, unsigned* out) {
  const std::int64_t stride = std::int64_t{gridDim.x} * blockDim.x;
  unsigned sum = 0;
  std::int64_t i = std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  for (; i + 3 * stride < n; i += 4 * stride) {
    uint4 v[4];
#pragma unroll
    for (int j = 0; j < 4; ++j)
      v[j] = __ldg(from + i + j * stride);
#pragma unroll
    for (int j = 0; j < 4; ++j)
      sum ^= v[j].x ^ v[j].y ^ v[j].z ^ v[j].w;
  }
  if (sum == 0x2545f491u) *out = sum;  // keeps the loads
}

}  // namespace detail

/// Bytes a second of a long read, the ceiling of this run. 4 GiB, 16-byte loads.
inline double read_bandwidth() {
  static const double bandwidth = [] {
    constexpr std::int64_t kBytes = std::int64_t{4} << 30;
    DeviceBuffer<std::uint8_t> data(kBytes);
    DeviceBuffer<unsigned> out(1);
    data.fill_bytes(0x5a);
    LMD_CUDA_TRY(cudaDeviceSynchronize());
    const Times t = time_graph(4, Follow::kEdges, [&](Cuda ctx, int) {
      detail::read_only_kernel<<<ctx.multiprocessors * 2, 1024, 0, ctx.stream>>>(
          reinterpret_cast<const uint4*>(data.data()), kBytes / 16, out.data());
    });
    return kBytes / (t.min * 1e-6);
  }();
  return bandwidth;
}

/// What a row times: `copies` calls of `queue`, each of which has to move `bytes`.
struct MemoryRow {
  std::int64_t bytes = 0;
  int copies = 0;
  std::function<void(Cuda, int)> queue;
};

/// One row of a table: the time of one copy, and which part of it reading `bytes` would take.
/// `make` runs when the row is reached; what it made is given back with the row.
inline void add_lazy_memory_row(const std::string& name,
                                Follow follow,
                                const std::function<MemoryRow()>& make) {
  benchmark::RegisterBenchmark((name + (follow == Follow::kEdges ? "/edges" : "/chained")).c_str(),
                               [=](benchmark::State& state) {
                                 const MemoryRow row = make();
                                 Times t;
                                 for (auto _ : state) {
                                   t = time_graph(row.copies, follow, row.queue);
                                   state.SetIterationTime(t.median * 1e-6);
                                 }
                                 state.counters["min_us"] = t.min;
                                 state.counters["p95_us"] = t.p95;
                                 state.counters["roofline"] = static_cast<double>(row.bytes) /
                                                              read_bandwidth() / (t.median * 1e-6);
                                 state.counters["TB/s"] =
                                     static_cast<double>(row.bytes) / t.median * 1e-6;
                               })
      ->Iterations(1)
      ->UseManualTime()
      ->Unit(benchmark::kMicrosecond);
}

inline void add_memory_row(const std::string& name, const MemoryRow& row) {
  for (const Follow follow : {Follow::kEdges, Follow::kChained})
    add_lazy_memory_row(name, follow, [=] { return row; });
}

/// Prints device, clocks and ceilings, then runs the registered rows.
inline int run(int argc, char** argv) {
  cudaDeviceProp device{};
  LMD_CUDA_TRY(cudaGetDeviceProperties(&device, 0));
  benchmark::AddCustomContext("device", device.name);
  char text[64];
  std::snprintf(text, sizeof text, "%.2f TB/s", read_bandwidth() * 1e-12);
  benchmark::AddCustomContext("read_only_stream", text);
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 1;
  benchmark::RunSpecifiedBenchmarks();
  return 0;
}

}  // namespace lmd::bench
