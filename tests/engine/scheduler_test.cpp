/// \file  The scheduler by itself: sequences start, run and give way in one order.
// SPDX-License-Identifier: Apache-2.0
#include <lmd/engine/scheduler.hpp>

#include <memory>
#include <random>
#include <vector>

#include "cases/tiny_decoder.hpp"
#include <doctest/doctest.h>

using namespace lmd;

namespace {

engine::SequencePtr sequence(engine::RequestId id, int n_prompt, int max_new_tokens) {
  auto s = std::make_unique<engine::Sequence>();
  s->id = id;
  s->n_prompt = n_prompt;
  std::mt19937 random(static_cast<unsigned>(id));
  for (int i = 0; i < n_prompt; ++i)
    s->tokens.push_back(static_cast<int>(random() % 97));
  s->request.max_new_tokens = max_new_tokens;
  return s;
}

/// One step, in which everybody whose tokens are all there draws.
void step(engine::Scheduler& scheduler) {
  scheduler.admit(engine::Clock::now());
  REQUIRE(!scheduler.running().empty());
  const engine::RequestId oldest = scheduler.running().front()->id;
  scheduler.plan_step();
  CHECK(scheduler.running().front()->id == oldest);
  CHECK(scheduler.running().front()->n_step > 0);  // it always goes on
  std::vector<engine::Sequence*> drawing;
  for (const engine::SequencePtr& s : scheduler.running()) {
    CHECK(s->pages.size() >= cache::sealed_pages(s->n_cached + s->n_step));
    if (s->n_step == s->n_pending()) drawing.push_back(s.get());
  }
  scheduler.finish_step();
  for (engine::Sequence* s : drawing)
    scheduler.append(*s, s->n_tokens() % 97);
}

/// Those that run, then those that have given way: as they have started.
void check_order(const engine::Scheduler& scheduler) {
  engine::RequestId last = 0;
  for (const engine::SequencePtr& s : scheduler.running()) {
    CHECK(s->id > last);
    last = s->id;
  }
  for (const engine::SequencePtr& s : scheduler.preempted()) {
    CHECK(s->id > last);
    CHECK(s->slot == -1);
    CHECK(s->pages.size() == 0);
    last = s->id;
  }
}

}  // namespace

TEST_CASE("sequences start, run and give way in one order, and all come to their end") {
  engine::EngineConfig config;
  config.session_len = 384;
  config.max_batch_size = 6;
  config.max_prefill_tokens = 100;
  config.admitted_answer_tokens = 0;
  const model::ModelConfig m = cases::tiny_config();
  const cache::CacheGeometry geometry{m.n_layers, m.n_kv_heads, m.head_dim,
                                      engine::sealed_unit_bytes(0, m.head_dim)};
  engine::MemoryPlan plan = engine::plan_memory(m, config, geometry, 0, std::int64_t{1} << 30);
  plan.n_pages = 8;
  std::size_t most_preempted = 0;
  for (unsigned seed = 1; seed <= 20; ++seed) {
    CAPTURE(seed);
    std::mt19937 random(seed);
    engine::Scheduler scheduler(m, plan, config);
    constexpr int kSequences = 20;
    for (engine::RequestId id = 1; id <= kSequences; ++id) {
      const int n_prompt = 1 + static_cast<int>(random() % 150);
      scheduler.enqueue(sequence(id, n_prompt, 1 + static_cast<int>(random() % 230)));
    }
    int n_ended = 0;
    for (int n_steps = 0; n_ended < kSequences; ++n_steps) {
      REQUIRE(n_steps < 20'000);
      step(scheduler);
      check_order(scheduler);
      most_preempted = std::max(most_preempted, scheduler.preempted().size());
      for (std::size_t i = scheduler.running().size(); i-- > 0;) {
        const engine::Sequence& s = *scheduler.running()[i];
        if (s.n_generated() < s.request.max_new_tokens) continue;
        (void)scheduler.remove(i);
        ++n_ended;
      }
    }
    CHECK(scheduler.is_idle());
    CHECK(scheduler.n_available() == scheduler.pool().size());
  }
  CHECK(most_preempted >= 3);
}

TEST_CASE("prompts get what sequences that decode leave of a step, a quarter of it at least") {
  CHECK(engine::prompt_share(512, 0) == 512);
  CHECK(engine::prompt_share(512, 100) == 412);
  CHECK(engine::prompt_share(512, 500) == 128);
  CHECK(engine::prompt_share(1, 0) == 1);
  CHECK(engine::prompt_share(1, 8) == 1);
}
