/// \file  Attention on the Cpu: decode over sealed pages and prefill of a prompt, every KV scheme.
// SPDX-License-Identifier: Apache-2.0
#include <lmd/core/thread_pool.hpp>
#include <lmd/kernels/attention/step_cpu.hpp>
#include <lmd/quant/kv_formats.hpp>

#include <cstdlib>
#include <random>
#include <string>
#include <vector>

#include <benchmark/benchmark.h>

namespace {

using namespace lmd;

struct Shape {
  const char* name;
  int heads;
  int kv_heads;
};

/// LMD_BENCH_THREADS, or 2.
ThreadPool& pool() {
  static ThreadPool threads([] {
    const char* text = std::getenv("LMD_BENCH_THREADS");
    return text == nullptr ? 2 : std::atoi(text);
  }());
  return threads;
}

/// One layer's cache of `batch` sequences with `tokens` tokens each, made by prefill.
template <class P>
struct Layer {
  Shape shape;
  int batch;
  int width;
  std::int64_t page_bytes;
  std::int64_t open_halves;
  std::vector<std::vector<std::int32_t>> page_ids;
  Buffer<std::uint8_t> pool_bytes;
  Buffer<Half> open_keys, open_values;
  std::vector<float> qkv, rotation, out;
  std::vector<kernels::SequenceChunk> chunks;

  Layer(Shape s, int batch_, int tokens, int rows)
      : shape(s),
        batch(batch_),
        width((s.heads + 2 * s.kv_heads) * P::kHeadDim),
        page_bytes(std::int64_t{s.kv_heads} * P::Unit::kBytes),
        open_halves(std::int64_t{s.kv_heads} * cache::kPageTokens * P::kHeadDim),
        page_ids(static_cast<std::size_t>(batch)),
        pool_bytes((tokens / cache::kPageTokens + 1) * batch * page_bytes),
        open_keys(batch * open_halves),
        open_values(batch * open_halves),
        qkv(static_cast<std::size_t>(batch) * rows * width),
        rotation(static_cast<std::size_t>(batch) * rows * P::kHeadDim, 0.6f),
        out(static_cast<std::size_t>(batch) * rows * s.heads * P::kHeadDim) {
    std::int32_t id = 0;
    for (auto& ids : page_ids) {
      for (int i = 0; i <= tokens / cache::kPageTokens; ++i)
        ids.push_back(id++);
    }
    std::mt19937 random(1);
    std::normal_distribution<float> normal;
    for (float& x : qkv)
      x = normal(random);
  }

  /// `n` tokens of every sequence from `position` on.
  void step(int position, int n) {
    chunks.clear();
    for (int b = 0; b < batch; ++b) {
      chunks.push_back({b * n, n, position, open_keys.data() + b * open_halves,
                        open_values.data() + b * open_halves, page_ids[b].data()});
    }
    kernels::attention_step<P>(Cpu{&pool()}, {.out = out.data(),
                                              .qkv = qkv.data(),
                                              .rotation = rotation.data(),
                                              .chunks = chunks.data(),
                                              .pool = pool_bytes.data(),
                                              .page_bytes = page_bytes,
                                              .n_chunks = batch,
                                              .heads = shape.heads,
                                              .kv_heads = shape.kv_heads});
  }
};

/// One token per sequence at `context` + 32 tokens: the open page is half full. Bytes are those of
/// the sealed pages and of half an open one.
template <class P>
void decode(benchmark::State& state, Shape shape, int batch, int context) {
  Layer<P> layer(shape, batch, context + 64, 64);
  for (int position = 0; position < context; position += 64)
    layer.step(position, 64);
  layer.step(context, 31);
  for (auto _ : state)
    layer.step(context + 31, 1);
  const std::int64_t pages = std::int64_t{batch} * (context / cache::kPageTokens);
  const std::int64_t open = std::int64_t{batch} * layer.open_halves * 2;
  state.SetBytesProcessed(state.iterations() * (pages * layer.page_bytes + open));
  const double products = 2.0 * batch * shape.heads * P::kHeadDim * (context + 32);
  state.counters["GFLOP/s"] = benchmark::Counter(
      2e-9 * products * static_cast<double>(state.iterations()), benchmark::Counter::kIsRate);
}

/// A prompt in one chunk. Flops are those of the causal half.
template <class P>
void prefill(benchmark::State& state, Shape shape, int tokens) {
  Layer<P> layer(shape, 1, tokens, tokens);
  for (auto _ : state)
    layer.step(0, tokens);
  const double products = 1.0 * shape.heads * P::kHeadDim * tokens * (tokens + 1);
  state.counters["GFLOP/s"] = benchmark::Counter(
      2e-9 * products * static_cast<double>(state.iterations()), benchmark::Counter::kIsRate);
}

template <class P>
void register_policy(Shape shape) {
  const std::string tail = std::string(shape.name) + "/" + P::Scheme::kName;
  const int cases[][2] = {{1, 1024}, {1, 8192}, {8, 1024}};
  for (const auto& [batch, context] : cases) {
    benchmark::RegisterBenchmark(
        ("decode/" + tail + "/" + std::to_string(batch) + "x" + std::to_string(context)).c_str(),
        [=, b = batch, c = context](benchmark::State& state) { decode<P>(state, shape, b, c); })
        ->UseRealTime();
  }
  for (int tokens : {512, 2048}) {
    benchmark::RegisterBenchmark(("prefill/" + tail + "/" + std::to_string(tokens)).c_str(),
                                 [=](benchmark::State& state) { prefill<P>(state, shape, tokens); })
        ->UseRealTime()
        ->Unit(benchmark::kMillisecond);
  }
}

}  // namespace

int main(int argc, char** argv) {
  benchmark::Initialize(&argc, argv);
  for_each_type(quant::KvSchemes{}, [](auto t) {
    using S = typename decltype(t)::type;
    register_policy<kernels::KvPolicy<S, 64>>({"smollm2-135m", 9, 3});
    register_policy<kernels::KvPolicy<S, 128>>({"internlm2_5-7b", 32, 8});
  });
  benchmark::RunSpecifiedBenchmarks();
  return 0;
}
