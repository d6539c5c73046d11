/// \file  Who runs when never changes what anybody is told; nobody is forgotten, and nothing is lost.
// SPDX-License-Identifier: Apache-2.0
#include <lmd/engine/engine.hpp>

#include <atomic>
#include <memory>
#include <random>
#include <thread>
#include <vector>

#include "cases/tiny_decoder.hpp"
#include "engine/number_executor.hpp"
#include "engine/schedule_case.hpp"
#include <doctest/doctest.h>

using namespace lmd;
using engine::FinishReason;

namespace {

constexpr int kVocab = 97;
#ifdef LMD_SANITIZED
constexpr unsigned kNumberCases = 20;
constexpr unsigned kModelCases = 5;
#else
constexpr unsigned kNumberCases = 150;
constexpr unsigned kModelCases = 60;
#endif

engine::MemoryPlan plan_of(const engine::EngineConfig& config, std::int64_t n_pages) {
  const model::ModelConfig m = cases::tiny_config();
  const cache::CacheGeometry geometry{m.n_layers, m.n_kv_heads, m.head_dim,
                                      engine::sealed_unit_bytes(config.quant_policy, m.head_dim)};
  engine::MemoryPlan plan = engine::plan_memory(m, config, geometry, 0, std::int64_t{1} << 30);
  if (n_pages > 0) plan.n_pages = n_pages;
  return plan;
}

/// An engine over a NumberExecutor.
struct Numbers {
  Numbers(const engine::EngineConfig& config, std::int64_t n_pages, bool runs_ahead) {
    auto made = std::make_unique<test::NumberExecutor>(runs_ahead);
    executor = made.get();
    engine = std::make_unique<engine::Engine>(std::move(made), config, plan_of(config, n_pages));
  }
  test::NumberExecutor* executor = nullptr;
  std::unique_ptr<engine::Engine> engine;
};

/// For one request at a time.
engine::EngineConfig alone(engine::EngineConfig config) {
  config.max_batch_size = 1;
  config.has_prefix_cache = false;
  config.max_prefill_tokens = 512;
  return config;
}

std::unique_ptr<engine::Engine> on_cpu(const engine::EngineConfig& config, std::int64_t n_pages) {
  const engine::MemoryPlan plan = plan_of(config, n_pages);
  return std::make_unique<engine::Engine>(
      cases::tiny_decoder(cases::tiny_config(), config.quant_policy, plan.max_rows), config, plan);
}

engine::Request request(int n, int max_new_tokens, std::uint64_t client = 0) {
  engine::Request r;
  std::mt19937 random(static_cast<unsigned>(n));
  for (int i = 0; i < n; ++i)
    r.prompt.push_back(static_cast<int>(random() % kVocab));
  r.max_new_tokens = max_new_tokens;
  r.client = client;
  return r;
}

engine::EngineConfig config_of(int batch, int chunk) {
  engine::EngineConfig c;
  c.session_len = 400;
  c.max_batch_size = batch;
  c.max_prefill_tokens = chunk;
  return c;
}

}  // namespace

TEST_CASE("whatever comes and goes, answers are those that are given alone") {
  std::int64_t preemptions = 0;
  std::int64_t reused = 0;
  int n_ahead = 0;
  for (unsigned seed = 1; seed <= kNumberCases; ++seed) {
    CAPTURE(seed);
    const test::ScheduleCase c = test::random_case(seed, kVocab, 24, 300);
    Numbers by_itself(alone(c.config), 0, false);
    by_itself.executor->n_without = 1;
    const std::vector<test::Told> expected = test::told_alone(*by_itself.engine, c);
    for (const bool runs_ahead : {false, true}) {
      CAPTURE(runs_ahead);
      Numbers numbers(c.config, c.n_pages, runs_ahead);
      numbers.executor->n_without = 1;
      const std::vector<test::Told> told = test::told_together(*numbers.engine, c);
      test::check_answers(told, expected);
      test::check_accounts(*numbers.engine, told);
      CHECK(numbers.executor->most_rows <=
            std::max(c.config.max_prefill_tokens, 1) + c.config.max_batch_size);
      const engine::EngineStats stats = numbers.engine->stats();
      CHECK((c.config.has_prefix_cache || stats.idle_pages == 0));
      preemptions += stats.preemptions;
      reused += stats.reused_tokens;
      n_ahead += numbers.executor->n_ahead;
    }
  }
  // What is tested has happened.
  CHECK(preemptions > 2 * kNumberCases);
  CHECK(reused > 100 * kNumberCases);
  CHECK(n_ahead > 10 * kNumberCases);
}

TEST_CASE("whatever comes and goes, the model's answers are bit by bit those that it gives alone") {
  std::int64_t preemptions = 0;
  const int policies[] = {0, 8, 4, 84, 40};
  for (unsigned seed = 1; seed <= kModelCases; ++seed) {
    CAPTURE(seed);
    test::ScheduleCase c = test::random_case(1000 + seed, kVocab, 16, 250);
    c.config.quant_policy = policies[seed % 5];
    const auto by_itself = on_cpu(alone(c.config), 0);
    const std::vector<test::Told> expected = test::told_alone(*by_itself, c);
    const auto engine = on_cpu(c.config, c.n_pages);
    const std::vector<test::Told> told = test::told_together(*engine, c);
    test::check_answers(told, expected);
    test::check_accounts(*engine, told);
    preemptions += engine->stats().preemptions;
  }
  CHECK(preemptions > kModelCases);
}

TEST_CASE("when pages run out the newest gives way, and comes back before those that wait") {
  engine::EngineConfig config = config_of(3, 512);
  config.admitted_answer_tokens = 0;
  Numbers numbers(config, 6, false);  // three sequences of 2 pages that become 5
  std::vector<test::Told> told(4);
  std::vector<std::size_t> order;
  for (std::size_t i = 0; i < 4; ++i) {
    (void)numbers.engine->submit(request(130 + static_cast<int>(i), 200),
                                 [&, i](const engine::TokenEvent& e) {
                                   told[i].take(e);
                                   if (e.finish != FinishReason::kNone) order.push_back(i);
                                 });
  }
  (void)numbers.engine->step();
  CHECK(numbers.engine->stats().running == 3);
  CHECK(numbers.engine->stats().waiting == 1);
  while (numbers.engine->step()) {
  }
  CHECK(order == std::vector<std::size_t>{0, 1, 2, 3});
  CHECK(told[0].progress.n_preempted == 0);
  CHECK(told[1].progress.n_preempted > 0);
  CHECK(told[2].progress.n_preempted > 0);
  CHECK(numbers.engine->stats().preemptions > 0);
}

TEST_CASE("who was preempted reads again only what the prefix tree has lost") {
  engine::EngineConfig config = config_of(2, 512);
  config.admitted_answer_tokens = 0;
  config.session_len = 384;
  Numbers numbers(config, 6, false);  // the third pages of both fill all, a fourth is too much
  test::Told old;
  test::Told young;
  (void)numbers.engine->submit(request(190, 70), [&](const engine::TokenEvent& e) { old.take(e); });
  (void)numbers.engine->submit(request(191, 70),
                               [&](const engine::TokenEvent& e) { young.take(e); });
  while (numbers.engine->stats().preemptions == 0) {
    REQUIRE(numbers.engine->step());
  }
  CHECK(numbers.engine->stats().running == 1);
  CHECK(numbers.engine->stats().preempted == 1);
  while (numbers.engine->step()) {
  }
  CHECK(old.ids.size() == 70);
  CHECK(young.ids.size() == 70);
  CHECK(young.progress.n_preempted == 1);
  CHECK(young.progress.n_reused == 0);  // of its start
  // What each has read, the last token drawn apart; and once more what came behind two pages, which the
  // older one has left in the tree.
  const int once = 190 + 69 + 191 + 69;
  CHECK(numbers.executor->n_rows > once);
  CHECK(numbers.executor->n_rows <= once + 2 * cache::kPageTokens);
}

TEST_CASE("sequences that decode get a token in every step while prompts are read") {
  Numbers numbers(config_of(4, 32), 0, false);
  int n_tokens = 0;
  (void)numbers.engine->submit(request(10, 200),
                               [&](const engine::TokenEvent& e) { n_tokens += e.token >= 0; });
  (void)numbers.engine->step();
  REQUIRE(n_tokens == 1);
  std::vector<test::Told> told(3);
  for (std::size_t i = 0; i < 3; ++i) {
    (void)numbers.engine->submit(request(150 + static_cast<int>(i), 5),
                                 [&, i](const engine::TokenEvent& e) { told[i].take(e); });
  }
  for (int step = 2; told[2].ids.empty(); ++step) {
    REQUIRE(step < 40);
    (void)numbers.engine->step();
    CHECK(n_tokens == step);
  }
  CHECK(numbers.executor->most_rows == 32);  // rows of those that decode count
}

TEST_CASE("several prompts are read in one step where they fit") {
  Numbers numbers(config_of(4, 100), 0, false);
  int n_first = 0;
  for (int i = 0; i < 4; ++i) {
    (void)numbers.engine->submit(request(24 + i, 5),
                                 [&](const engine::TokenEvent& e) { n_first += e.token >= 0; });
  }
  (void)numbers.engine->step();
  CHECK(n_first == 3);  // 24 + 25 + 26 tokens, and 25 of 27
  CHECK(numbers.executor->most_rows == 100);
}

TEST_CASE("a client with one short request does not wait for the 200 of another") {
  engine::EngineConfig config = config_of(2, 512);
  config.max_queued_tokens = 1 << 20;
  Numbers numbers(config, 0, true);
  int n_ended = 0;
  for (int i = 0; i < 200; ++i) {
    (void)numbers.engine->submit(request(20, 10, 1), [&](const engine::TokenEvent& e) {
      n_ended += e.finish != FinishReason::kNone;
    });
  }
  for (int i = 0; i < 25; ++i)
    (void)numbers.engine->step();
  const int before = n_ended;
  REQUIRE(before < 10);
  test::Told told;
  (void)numbers.engine->submit(request(5, 3, 2),
                               [&](const engine::TokenEvent& e) { told.take(e); });
  while (told.ends.empty()) {
    REQUIRE(numbers.engine->step());
  }
  CHECK(n_ended - before <= 2 + 2);  // those that ran, and those that took their slots beside it
  while (numbers.engine->step()) {
  }
  CHECK(n_ended == 200);
}

TEST_CASE("steps begin ahead while somebody waits for whom there is no memory") {
  engine::EngineConfig config = config_of(4, 512);
  Numbers numbers(config, 7, true);  // one of 390 tokens, and no other of that size
  std::vector<test::Told> told(2);
  for (std::size_t i = 0; i < 2; ++i) {
    (void)numbers.engine->submit(request(190 + static_cast<int>(i), 200),
                                 [&, i](const engine::TokenEvent& e) { told[i].take(e); });
  }
  for (int step = 0; step < 100; ++step)
    (void)numbers.engine->step();
  CHECK(numbers.engine->stats().waiting == 1);
  CHECK(numbers.executor->n_ahead == 99);
  // A short one comes, whose client is next: it is let in beside the first.
  test::Told other;
  (void)numbers.engine->submit(request(20, 5, 1),
                               [&](const engine::TokenEvent& e) { other.take(e); });
  while (numbers.engine->step()) {
  }
  CHECK(other.progress.started < told[1].progress.started);
  CHECK(numbers.engine->stats().preemptions == 0);
}

TEST_CASE("a request past its deadline never starts, or stops within a step") {
  Numbers numbers(config_of(1, 512), 0, true);
  test::Told running;
  test::Told waiting;
  test::Told late;
  const auto submit = [&](engine::Request r, engine::Clock::time_point deadline, test::Told& to) {
    r.deadline = deadline;
    (void)numbers.engine->submit(std::move(r), [&](const engine::TokenEvent& e) { to.take(e); });
  };
  const auto now = engine::Clock::now();
  submit(request(10, 300), now + std::chrono::milliseconds(250), running);
  submit(request(11, 300), now + std::chrono::milliseconds(250), waiting);
  submit(request(12, 300), now - std::chrono::milliseconds(1), late);
  (void)numbers.engine->step();
  CHECK(late.ends == std::vector{FinishReason::kDeadline});
  CHECK(running.ids.size() == 1);
  std::this_thread::sleep_until(now + std::chrono::milliseconds(250));
  const std::size_t had = running.ids.size();
  (void)numbers.engine->step();
  CHECK(running.ends == std::vector{FinishReason::kDeadline});
  CHECK(running.ids.size() == had);
  CHECK(waiting.ends == std::vector{FinishReason::kDeadline});
  CHECK(waiting.progress.started == engine::kNotStarted);
  CHECK_FALSE(numbers.engine->step());
  test::check_accounts(*numbers.engine, {running, waiting, late});
}

TEST_CASE("a request that has not started in time never does; one that has goes on") {
  Numbers numbers(config_of(1, 512), 0, true);
  test::Told told[2];
  const auto start_by = engine::Clock::now() + std::chrono::milliseconds(250);
  for (test::Told& to : told) {
    engine::Request r = request(10, 300);
    r.start_by = start_by;
    (void)numbers.engine->submit(std::move(r), [&](const engine::TokenEvent& e) { to.take(e); });
  }
  (void)numbers.engine->step();
  std::this_thread::sleep_until(start_by);
  (void)numbers.engine->step();
  CHECK(told[1].ends == std::vector{FinishReason::kDeadline});
  CHECK(told[1].progress.started == engine::kNotStarted);
  while (numbers.engine->step()) {
  }
  CHECK(told[0].ends == std::vector{FinishReason::kLength});
}

TEST_CASE("cancelling frees slot and pages within one step: waiting, while read, while drawn") {
  for (const bool runs_ahead : {false, true}) {
    engine::EngineConfig config = config_of(2, 16);
    Numbers numbers(config, 0, runs_ahead);
    std::vector<test::Told> told(3);
    std::vector<engine::RequestId> ids;
    for (std::size_t i = 0; i < 3; ++i) {
      ids.push_back(
          numbers.engine->submit(request(i == 1 ? 390 : 10, 390),
                                 [&, i](const engine::TokenEvent& e) { told[i].take(e); }));
    }
    for (int step = 0; step < 10; ++step)
      (void)numbers.engine->step();
    REQUIRE(!told[0].ids.empty());
    REQUIRE(told[1].ids.empty());
    REQUIRE(numbers.engine->stats().waiting == 1);
    for (const engine::RequestId id : ids)
      numbers.engine->cancel(id);
    (void)numbers.engine->step();
    for (const test::Told& t : told)
      CHECK(t.ends == std::vector{FinishReason::kCancelled});
    test::check_accounts(*numbers.engine, told);
  }
}

TEST_CASE("too many requests, or too many tokens of prompts, are refused at once") {
  engine::EngineConfig config = config_of(2, 512);
  config.max_queued_requests = 3;
  config.max_queued_tokens = 100;
  const auto code_of = [](engine::Engine& engine, int n) {
    try {
      (void)engine.submit(request(n, 5), [](const engine::TokenEvent&) {});
    } catch (const Error& e) {
      return static_cast<int>(e.code());
    }
    return 0;
  };
  constexpr int kBusy = static_cast<int>(ErrorCode::kBusy);
  Numbers many(config, 0, false);
  for (int i = 0; i < 5; ++i)  // two slots, three that wait
    CHECK(code_of(*many.engine, 10) == 0);
  CHECK(code_of(*many.engine, 10) == kBusy);
  CHECK(many.engine->stats().waiting == 5);
  CHECK(many.engine->stats().waiting_tokens == 50);
  while (many.engine->step()) {
  }
  CHECK(code_of(*many.engine, 10) == 0);

  Numbers long_ones(config, 0, false);
  CHECK(code_of(*long_ones.engine, 350) == 0);  // alone
  CHECK(code_of(*long_ones.engine, 1) == kBusy);
  (void)long_ones.engine->step();  // it has started
  CHECK(code_of(*long_ones.engine, 60) == 0);
  CHECK(code_of(*long_ones.engine, 41) == kBusy);
  CHECK(code_of(*long_ones.engine, 40) == 0);
  while (long_ones.engine->step()) {
  }
  CHECK(long_ones.engine->stats().waiting_tokens == 0);
}

TEST_CASE("requests come and go from any thread, and stats can be read meanwhile") {
  engine::EngineConfig config = config_of(4, 64);
  config.max_queued_requests = 20;
  Numbers numbers(config, 8, true);
  engine::Engine& engine = *numbers.engine;
  constexpr int kThreads = 3;
  constexpr int kRequests = 60;
  std::atomic<int> n_ended = 0;
  std::atomic<int> n_refused = 0;
  std::atomic<int> n_left = kThreads;
  const auto client = [&](std::uint64_t id) {
    std::mt19937 random(static_cast<unsigned>(id));
    for (int i = 0; i < kRequests; ++i) {
      try {
        const engine::RequestId submitted =
            engine.submit(request(1 + static_cast<int>(random() % 100), 30, id),
                          [&](const engine::TokenEvent& e) {
                            n_ended += e.finish != FinishReason::kNone ? 1 : 0;
                          });
        if (random() % 3 == 0) engine.cancel(submitted);
      } catch (const Error& e) {
        CHECK(e.code() == ErrorCode::kBusy);
        ++n_refused;
      }
      const engine::EngineStats stats = engine.stats();
      CHECK(stats.running <= 4);
      const auto heartbeat = engine.heartbeat();  // before now(): CHECK evaluates in any order
      CHECK(heartbeat <= engine::Clock::now());
    }
    --n_left;
  };
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t)
    threads.emplace_back(client, static_cast<std::uint64_t>(t));
  const auto start = engine.heartbeat();
  while (engine.step() || n_left > 0) {
  }
  for (std::thread& t : threads)
    t.join();
  while (engine.step()) {
  }
  CHECK(n_ended + n_refused == kThreads * kRequests);
  CHECK(engine.heartbeat() > start);
  CHECK(engine.stats().running == 0);
  CHECK(engine.stats().waiting == 0);
}
