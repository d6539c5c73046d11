/// \file  Rows of the GPU benchmarks, and the ceilings that each run measures for itself.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/kernels/linear/dense.cuh>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>

#include "buffers.cuh"
#include "timing.cuh"
#include <benchmark/benchmark.h>

namespace lmd::bench {

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

inline constexpr std::int64_t kStreamBytes = std::int64_t{4} << 30;

}  // namespace detail

/// Bytes a second of a long read, the ceiling of this run. 4 GiB, 16-byte loads.
inline double read_bandwidth() {
  static const double bandwidth = [] {
    DeviceBuffer<std::uint8_t> data(detail::kStreamBytes);
    DeviceBuffer<unsigned> out(1);
    data.fill_bytes(0x5a);
    LMD_CUDA_TRY(cudaDeviceSynchronize());
    const Times t = time_graph(4, Timing::kEdges, [&](Cuda ctx, int) {
      detail::read_only_kernel<<<ctx.multiprocessors * 2, 1024, 0, ctx.stream>>>(
          reinterpret_cast<const uint4*>(data.data()), detail::kStreamBytes / 16, out.data());
    });
    return detail::kStreamBytes / (t.min * 1e-6);
  }();
  return bandwidth;
}

/// Bytes read and bytes written a second by the driver's copy from one half of 4 GiB to the other.
inline double copy_bandwidth() {
  static const double bandwidth = [] {
    DeviceBuffer<std::uint8_t> bytes(detail::kStreamBytes);
    bytes.fill_bytes(0x5a);
    LMD_CUDA_TRY(cudaDeviceSynchronize());
    constexpr std::int64_t kHalf = detail::kStreamBytes / 2;
    const Times t = time_graph(4, Timing::kEdges, [&](Cuda ctx, int) {
      LMD_CUDA_TRY(cudaMemcpyAsync(bytes.data() + kHalf, bytes.data(), kHalf,
                                   cudaMemcpyDeviceToDevice, ctx.stream));
    });
    return detail::kStreamBytes / (t.min * 1e-6);
  }();
  return bandwidth;
}

/// FLOP a second of cuBLASLt's product of normal bfloat16 matrices of 8192 x 8192, by the clocks of
/// a burst, or of a sustained row.
inline double peak_flops(Timing timing) {
  const auto measure = [](Timing t) {
    constexpr int kSize = 8192;
    constexpr std::int64_t kWorkspaceBytes = std::int64_t{32} << 20;
    DeviceBuffer<BFloat16> x = normal_buffer<BFloat16>(std::int64_t{kSize} * kSize, 1);
    DeviceBuffer<BFloat16> w = normal_buffer<BFloat16>(std::int64_t{kSize} * kSize, 2);
    DeviceBuffer<BFloat16> y(std::int64_t{kSize} * kSize);
    DeviceBuffer<std::uint8_t> workspace(kWorkspaceBytes);
    kernels::DenseGemm dense(workspace.data(), kWorkspaceBytes);
    LMD_CUDA_TRY(cudaDeviceSynchronize());
    const kernels::DenseArgs<BFloat16> args{.y = y.data(),
                                            .x = x.data(),
                                            .w = w.data(),
                                            .m = kSize,
                                            .n = kSize,
                                            .k = kSize,
                                            .x_stride = kSize,
                                            .y_stride = kSize,
                                            .w_stride = kSize};
    const Times times =
        time_calls(1, t, [&](Cuda ctx, int) { LMD_CUDA_TRY(dense.multiply(ctx, args)); });
    return 2.0 * kSize * kSize * kSize / (times.median * 1e-6);
  };
  if (timing == Timing::kSustained) {
    static const double sustained = measure(Timing::kSustained);
    return sustained;
  }
  static const double burst = measure(Timing::kBurst);
  return burst;
}

/// What a row times: `copies` calls of `queue` (bursts and sustained rows choose their own number),
/// each of which has to move `bytes` and to do `flops`.
struct Row {
  std::int64_t bytes = 0;
  int copies = 0;
  Calls queue;
  double flops = 0;
  double error = 0;  ///< relative, found before anything is timed
};

namespace detail {

/// What the last row made: the next one uses it where it only differs in how calls follow.
struct KeptRow {
  std::string name;
  Row row;
};
inline KeptRow& kept_row() {
  static KeptRow kept;
  return kept;
}

inline bool& has_sustained_rows() {
  static bool has_some = false;
  return has_some;
}

inline void run_row(benchmark::State& state, const Row& row, Timing timing) {
  Times t;
  for (auto _ : state) {
    t = time_calls(row.copies, timing, row.queue);
    state.SetIterationTime(t.median * 1e-6);
  }
  const double seconds = t.median * 1e-6;
  const auto bytes = static_cast<double>(row.bytes);
  const double floor = std::max(bytes / read_bandwidth(), row.flops / peak_flops(timing));
  state.counters["min_us"] = t.min;
  state.counters["p95_us"] = t.p95;
  state.counters["clock_mhz"] = t.clock_mhz;
  state.counters["roofline"] = floor / seconds;
  state.counters["TB/s"] = bytes / seconds * 1e-12;
  state.counters["bytes"] = bytes;
  state.counters["flops"] = row.flops;
  if (row.flops > 0) state.counters["TFLOP/s"] = row.flops / seconds * 1e-12;
  if (row.error > 0) state.counters["error"] = row.error;
}

}  // namespace detail

/// One row of a table: the time of one call, and which part of it the floor is, which is reading
/// `bytes` or doing `flops`, whatever takes longer. `make` runs when a row of this name is reached;
/// what it made is given back when a row of another name is.
inline void add_lazy_row(const std::string& name, Timing timing, const std::function<Row()>& make) {
  detail::has_sustained_rows() |= timing == Timing::kSustained;
  benchmark::RegisterBenchmark((name + "/" + name_of(timing)).c_str(),
                               [=](benchmark::State& state) {
                                 detail::KeptRow& kept = detail::kept_row();
                                 if (kept.name != name) {
                                   kept = {};
                                   kept = {name, make()};
                                 }
                                 detail::run_row(state, kept.row, timing);
                               })
      ->Iterations(1)
      ->UseManualTime()
      ->Unit(benchmark::kMicrosecond);
}

inline void add_memory_row(const std::string& name, const Row& row) {
  for (const Timing timing : {Timing::kEdges, Timing::kChained})
    add_lazy_row(name, timing, [=] { return row; });
}

namespace detail {

/// Takes `--sustained_seconds=S` out of the arguments.
inline void read_flags(int& argc, char** argv) {
  constexpr const char* kFlag = "--sustained_seconds=";
  int kept = 1;
  for (int i = 1; i < argc; ++i) {
    if (std::strncmp(argv[i], kFlag, std::strlen(kFlag)) == 0) {
      sustained_seconds() = std::max(0.01, std::atof(argv[i] + std::strlen(kFlag)));
    } else {
      argv[kept++] = argv[i];
    }
  }
  argc = kept;
}

inline void add_context(const char* name, const char* format, double value) {
  char text[64];
  std::snprintf(text, sizeof text, format, value);
  benchmark::AddCustomContext(name, text);
}

}  // namespace detail

/// Measures this run's ceilings, prints them beside the device, then runs the registered rows.
inline int run(int argc, char** argv) {
  detail::read_flags(argc, argv);
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 1;
  cudaDeviceProp device{};
  LMD_CUDA_TRY(cudaGetDeviceProperties(&device, 0));
  benchmark::AddCustomContext("device", device.name);
  detail::add_context("read_only_stream", "%.2f TB/s", read_bandwidth() * 1e-12);
  detail::add_context("copy", "%.2f TB/s", copy_bandwidth() * 1e-12);
  detail::add_context("cublaslt_bf16_burst", "%.0f TFLOP/s", peak_flops(Timing::kBurst) * 1e-12);
  if (detail::has_sustained_rows()) {
    detail::add_context("cublaslt_bf16_sustained", "%.0f TFLOP/s",
                        peak_flops(Timing::kSustained) * 1e-12);
    detail::add_context("sustained_for", "%g s", sustained_seconds());
  }
  benchmark::RunSpecifiedBenchmarks();
  detail::kept_row() = {};
  return 0;
}

}  // namespace lmd::bench
