/// \file  Linear on the Cpu backend: one token against the read bandwidth, many against the peak of
///        multiply-adds. Shapes of SmolLM2-135M and InternLM2.5-7B.
// SPDX-License-Identifier: Apache-2.0
#include <lmd/core/thread_pool.hpp>
#include <lmd/kernels/linear/linear_cpu.hpp>

#include <cstdio>
#include <string>
#include <vector>

#include "cases/random.hpp"
#include "cases/weights.hpp"
#include "machine.hpp"
#include <benchmark/benchmark.h>

namespace {

using namespace lmd;

struct Shape {
  const char* name;
  int n, k;
};

constexpr Shape kSmolLm2[] = {{"smollm2.qkv", 960, 576},
                              {"smollm2.out", 576, 576},
                              {"smollm2.gate_up", 3072, 576},
                              {"smollm2.down", 576, 1536}};
constexpr Shape kSmolLm2Head = {"smollm2.head", 49152, 576};
constexpr Shape kInternLm7b[] = {{"internlm7b.qkv", 6144, 4096},
                                 {"internlm7b.gate_up", 28672, 4096},
                                 {"internlm7b.down", 4096, 14336}};

struct Setting {
  ThreadPool* pool;
  bench::Machine machine;
};

/// Times y = x w^T of m rows over as many copies of w as do not fit into a cache.
template <class F>
void run(benchmark::State& state, const Setting& s, Shape shape, int m) {
  using P = kernels::WeightPolicy<F, quant::PairedOrder>;
  const test::StoredWeights w = test::random_weights<F>(shape.n, shape.k, 1);
  const std::int64_t code_bytes = w.codes.size();
  const std::int64_t param_bytes = w.params.size();
  const std::int64_t bytes = code_bytes + param_bytes;
  const auto copies = static_cast<int>(ceil_div(bench::kRotatedBytes, bytes));
  Buffer<std::uint8_t> codes(code_bytes * copies);
  Buffer<std::uint8_t> params(param_bytes * copies);
  for (int c = 0; c < copies; ++c) {
    std::ranges::copy(w.codes, codes.data() + c * code_bytes);
    std::ranges::copy(w.params, params.data() + c * param_bytes);
  }
  const std::vector<float> x = test::random_floats(std::int64_t{m} * shape.k, 2);
  std::vector<float> y(static_cast<std::size_t>(m) * shape.n);
  int copy = 0;
  for (auto _ : state) {
    kernels::linear<P>(Cpu{s.pool}, {.y = y.data(),
                                     .x = x.data(),
                                     .codes = codes.data() + copy * code_bytes,
                                     .params = params.data() + copy * param_bytes,
                                     .m = m,
                                     .n = shape.n,
                                     .k = shape.k,
                                     .x_stride = shape.k,
                                     .y_stride = shape.n});
    copy = (copy + 1) % copies;
    benchmark::ClobberMemory();
  }
  using benchmark::Counter;
  const auto runs = static_cast<double>(state.iterations());
  const double flops = 2.0 * m * shape.n * shape.k;
  state.counters["GB/s"] = Counter(runs * bytes * 1e-9, Counter::kIsRate);
  state.counters["of_read"] = Counter(runs * bytes / s.machine.read_bytes_per_s, Counter::kIsRate);
  state.counters["GFLOP/s"] = Counter(runs * flops * 1e-9, Counter::kIsRate);
  state.counters["of_peak"] = Counter(runs * flops / s.machine.flops_per_s, Counter::kIsRate);
}

template <class F>
void add(const Setting& s, Shape shape, int m) {
  const std::string name = std::string(shape.name) + "/" + F::kName + "/m:" + std::to_string(m) +
                           "/threads:" + std::to_string(s.pool->size());
  benchmark::RegisterBenchmark(name.c_str(), [s, shape, m](benchmark::State& state) {
    run<F>(state, s, shape, m);
  })->UseRealTime();
}

void add_all(const Setting& s) {
  for (const int m : {1, 2, 4, 8, 64, 512}) {
    for (const Shape& shape : kSmolLm2)
      add<quant::WeightAffine4<32>>(s, shape, m);
    if (m <= 8) add<quant::WeightInt8<32>>(s, kSmolLm2Head, m);
    for (const Shape& shape : kInternLm7b)
      add<quant::WeightInt4<128>>(s, shape, m);
    add<quant::WeightHalf>(s, kInternLm7b[0], m);
  }
}

}  // namespace

/// Usage: linear_bench [--benchmark_filter=REGEX ...]; each row for 1 thread and for all.
int main(int argc, char** argv) {
  benchmark::Initialize(&argc, argv);
  ThreadPool one(1);
  const int threads = std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
  ThreadPool all(threads);
  const Setting settings[] = {{&one, bench::measure(one)}, {&all, bench::measure(all)}};
  for (const Setting& s : settings) {
    std::printf("%s, %d threads: reads %.1f GB/s, multiply-adds %.0f GFLOP/s\n",
                to_string(best_cpu_isa()), s.pool->size(), s.machine.read_bytes_per_s * 1e-9,
                s.machine.flops_per_s * 1e-9);
  }
  add_all(settings[0]);
  if (threads > 1) add_all(settings[1]);
  benchmark::RunSpecifiedBenchmarks();
}
