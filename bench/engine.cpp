/// \file  The whole engine on random weights of InternLM2.5-7B: a decode step of 1, 16 and 64 sequences, and
///        the first token of one prompt. On the GPU where there is one.
// SPDX-License-Identifier: Apache-2.0
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "../apps/bench_model.hpp"
#include "../apps/latency_cases.hpp"
#include <benchmark/benchmark.h>

using namespace lmd;
using namespace lmd::apps;

namespace {

constexpr int kContext = 1024;
constexpr int kAnswer = 256;
constexpr int kMostSequences = 64;
constexpr int kRepeat = 3;

struct Setting {
  std::string shape;
  std::string weights;
  int quant_policy = 0;

  [[nodiscard]] std::string name() const {
    return shape + "/" + weights + "/kv" + kv_scheme_name(quant_policy);
  }
};

/// The engine that the last row used: the next one takes it where only the case differs.
const BenchModel& model_of(const Setting& setting) {
  static std::unique_ptr<BenchModel> model;
  static std::string name;
  if (name == setting.name()) return *model;
  model.reset();  // two do not fit
  BenchFlags flags;
  flags.random = {.shape = setting.shape, .weights = setting.weights};
  flags.runtime.engine.has_prefix_cache = false;
  flags.runtime.engine.quant_policy = setting.quant_policy;
  const LatencyCase largest{kContext, kAnswer, kMostSequences};
  prepare(flags, {.batch = kMostSequences,
                  .session_len = kContext + kAnswer,
                  .usual_session_len = std::max(longest_sequence(largest, 512), 8192 + 1)});
  model = std::make_unique<BenchModel>(load_bench_model(flags));
  name = setting.name();
  return *model;
}

/// The time of a step, and which part of it reading the weights and the cache would take at the memory's
/// rate.
void run_decode(benchmark::State& state, const Setting& setting, int batch) {
  const BenchModel& model = model_of(setting);
  const LatencyCase size{kContext, kAnswer, batch};
  const std::string problem = why_not(size, model.runtime.engine->plan());
  if (!problem.empty()) return state.SkipWithError(problem.c_str());
  LatencyRow row;
  for (auto _ : state) {
    row = measure(model, size, {}, kRepeat);
    state.SetIterationTime(row.step_s);
  }
  const double bytes = row.bytes_per_token * batch;
  state.counters["tok/s"] = row.decode_tokens_per_s;
  state.counters["bytes"] = bytes;
  state.counters["TB/s"] = bytes / row.step_s * 1e-12;
  state.counters["roofline"] = row.bandwidth_fraction;
}

/// Seconds to the first token of one prompt. Its floor is that of products, which this program does not
/// measure: `prefill_cuda_bench` and `tile_cuda_bench` do.
void run_prefill(benchmark::State& state, const Setting& setting, int prompt, bool is_sustained) {
  const BenchModel& model = model_of(setting);
  double seconds = 0.0;
  for (auto _ : state) {
    const PrefillTimes times = measure_prefill(*model.runtime.engine, prompt, kRepeat);
    seconds = is_sustained ? times.sustained_s : times.single_shot_s;
    state.SetIterationTime(seconds);
  }
  state.counters["tok/s"] = prompt / seconds;
}

void add_row(const std::string& name, const std::function<void(benchmark::State&)>& run) {
  benchmark::RegisterBenchmark(name.c_str(), run)
      ->Iterations(1)
      ->UseManualTime()
      ->Unit(benchmark::kMicrosecond);
}

void add_rows(const Setting& setting) {
  for (const int batch : {1, 16, kMostSequences}) {
    add_row("decode/" + setting.name() + "/1k/batch:" + std::to_string(batch),
            [=](benchmark::State& state) { run_decode(state, setting, batch); });
  }
  for (const int prompt : {2048, 8192}) {
    for (const bool is_sustained : {false, true}) {
      add_row("prefill/" + setting.name() + "/" + std::to_string(prompt / 1024) + "k/" +
                  (is_sustained ? "sustained" : "single_shot"),
              [=](benchmark::State& state) { run_prefill(state, setting, prompt, is_sustained); });
    }
  }
}

/// `--shape=NAME` out of the arguments; else the GPU's, or one that a processor can run.
std::string shape_of(int& argc, char** argv) {
  constexpr const char* kFlag = "--shape=";
  std::string shape = query_gpu().is_usable ? "internlm2_5-7b" : "smollm2-135m";
  int kept = 1;
  for (int i = 1; i < argc; ++i) {
    if (std::strncmp(argv[i], kFlag, std::strlen(kFlag)) == 0) {
      shape = argv[i] + std::strlen(kFlag);
    } else {
      argv[kept++] = argv[i];
    }
  }
  argc = kept;
  return shape;
}

}  // namespace

int main(int argc, char** argv) try {
  const std::string shape = shape_of(argc, argv);
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 1;
  const GpuFacts gpu = query_gpu();
  benchmark::AddCustomContext("device", gpu.is_usable ? gpu.name : "the processor");
  for (const char* weights : {"w4", "f16"}) {
    for (const int quant_policy : {0, 8, 4})
      add_rows({shape, weights, quant_policy});
  }
  benchmark::RunSpecifiedBenchmarks();
  return 0;
} catch (const std::exception& error) {
  std::fprintf(stderr, "%s\n", error.what());
  return 1;
}
