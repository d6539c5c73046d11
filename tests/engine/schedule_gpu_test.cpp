/// \file  Who runs when never changes what anybody is told, Cuda.
// SPDX-License-Identifier: Apache-2.0
#include <memory>
#include <vector>

#include "engine/gpu_case.hpp"
#include "engine/schedule_case.hpp"

using namespace lmd;
using test::has_gpu;

namespace {

/// With `n_pages` pages, or with as many as there is use for where it is 0.
std::unique_ptr<engine::Engine> on_gpu(engine::EngineConfig config, std::int64_t n_pages) {
  config.is_deterministic = true;
  const model::ModelConfig m = cases::tiny_config();
  model::DecoderWeights weights = cases::tiny_weights(m, 1);
  engine::MemoryPlan plan = test::plan_for(m, config, cases::shapes_of(weights));
  if (n_pages > 0) plan.n_pages = n_pages;
  return std::make_unique<engine::Engine>(
      apps::make_cuda_executor(m, std::move(weights), config, plan), config, plan);
}

}  // namespace

TEST_CASE("deterministic: whatever comes and goes, answers are bit by bit those given alone") {
  if (!has_gpu()) return;
  std::int64_t preemptions = 0;
  const int policies[] = {0, 8, 4, 84, 40};
  for (unsigned seed = 1; seed <= 30; ++seed) {
    CAPTURE(seed);
    test::ScheduleCase c = test::random_case(2000 + seed, cases::tiny_config().vocab_size, 16, 250);
    c.config.quant_policy = policies[seed % 5];
    engine::EngineConfig alone = c.config;
    alone.max_batch_size = 1;
    alone.has_prefix_cache = false;
    alone.max_prefill_tokens = 512;
    const std::vector<test::Told> expected = test::told_alone(*on_gpu(alone, 0), c);
    const auto engine = on_gpu(c.config, c.n_pages);
    const std::vector<test::Told> told = test::told_together(*engine, c);
    test::check_answers(told, expected);
    test::check_accounts(*engine, told);
    preemptions += engine->stats().preemptions;
  }
  CHECK(preemptions > 10);  // what is tested has happened; how often depends on the device's pace
}
