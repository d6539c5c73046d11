/// \file  The GPU's memory plan is what is allocated; what does not fit is refused and given back.
// SPDX-License-Identifier: Apache-2.0
#include <string>

#include "engine/gpu_case.hpp"

using namespace lmd;
using test::has_gpu;
using test::Setup;

TEST_CASE("a plan is what an engine takes, to the rounding of allocations") {
  if (!has_gpu()) return;
  constexpr std::int64_t kRounding = 512;  // of an allocation, by the pool
  constexpr int kMostAllocations = 64;     // of an engine over the tiny model
  for (const auto activations :
       {engine::ActivationType::kFloat16, engine::ActivationType::kBFloat16}) {
    for (const int policy : {0, 8, 4}) {
      for (const int batch : {1, 64}) {
        for (const int chunk : {64, 1000}) {
          CAPTURE(policy);
          CAPTURE(batch);
          CAPTURE(chunk);
          const std::int64_t before = apps::gpu_bytes_in_use();
          const engine::Engine engine = test::make_engine(
              {.quant_policy = policy, .chunk = chunk, .batch = batch, .activations = activations},
              cases::tiny_weights(cases::tiny_config(), 1));
          const std::int64_t taken = apps::gpu_bytes_in_use() - before;
          CHECK(taken >= engine.plan().total());
          CHECK(taken <= engine.plan().total() + kMostAllocations * kRounding);
        }
      }
    }
  }
}

TEST_CASE("steps take nothing beyond the plan") {
  if (!has_gpu()) return;
  const Setup s{.batch = 8, .is_deterministic = false};
  engine::Engine engine = test::make_engine(s, cases::tiny_weights(cases::tiny_config(), 1));
  const std::int64_t before = apps::gpu_bytes_in_use();
  for (int i = 0; i < 12; ++i) {
    engine::Request r = test::request_of(300, i, static_cast<unsigned>(i));
    r.sampling.repetition_penalty = 1.1f;
    (void)engine.submit(std::move(r), [](const engine::TokenEvent&) {});
  }
  while (engine.step()) {
  }
  CHECK(apps::gpu_bytes_in_use() == before);
}

TEST_CASE("what CUDA takes itself stays within the reserve") {
  if (!has_gpu()) return;
  const std::int64_t before = apps::query_gpu().free_bytes;
  const Setup s{.batch = 200, .is_deterministic = false};
  engine::Engine engine = test::make_engine(s, cases::tiny_weights(cases::tiny_config(), 1));
  for (const int batch : {1, 2, 4, 8, 16, 32, 64, 128, 200}) {  // a graph each
    for (int i = 0; i < batch; ++i) {
      (void)engine.submit(test::request_of(batch == 1 ? 500 : 20, i % 97),
                          [](const engine::TokenEvent&) {});
    }
    while (engine.step()) {
    }
  }
  const std::int64_t own = before - apps::query_gpu().free_bytes - engine.plan().total();
  MESSAGE("beside the plan: " << own / 1000000 << " MB, less where another test has come first");
  CHECK(own <= apps::kGpuReserve);
}

TEST_CASE("an engine for which there is no memory is refused, and leaves nothing behind") {
  if (!has_gpu()) return;
  const model::ModelConfig m = cases::tiny_config();
  model::DecoderWeights weights = cases::tiny_weights(m, 1);
  engine::EngineConfig config = test::config_of({.batch = 64});
  config.session_len = 1 << 24;  // half a terabyte of pages
  const engine::MemoryPlan plan =
      test::plan_for(m, config, cases::shapes_of(weights), std::int64_t{8} << 40);
  REQUIRE(plan.total() > apps::query_gpu().total_bytes);
  const std::int64_t before = apps::gpu_bytes_in_use();
  std::string error;
  try {
    (void)apps::make_cuda_executor(m, std::move(weights), config, plan);
  } catch (const Error& e) {
    CHECK(e.code() == ErrorCode::kCapacity);
    error = e.what();
  }
  CHECK(error.find("cannot allocate") != std::string::npos);
  CHECK(error.find("are free") != std::string::npos);
  CHECK(apps::gpu_bytes_in_use() == before);
  // The next one is not harmed.
  engine::Engine engine = test::make_engine({.batch = 1}, cases::tiny_weights(m, 1));
  int n = 0;
  (void)engine.submit(test::request_of(5, 1),
                      [&](const engine::TokenEvent& e) { n += e.token >= 0; });
  while (engine.step()) {
  }
  CHECK(n == 80);
}
