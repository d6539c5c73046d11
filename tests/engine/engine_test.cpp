/// \file  The engine: answers do not depend on how they are computed, and every end is reported once.
// SPDX-License-Identifier: Apache-2.0
#include <lmd/core/thread_pool.hpp>
#include <lmd/engine/engine.hpp>

#include <map>

#include "cases/tiny_decoder.hpp"
#include <doctest/doctest.h>

using namespace lmd;
using engine::Engine;
using engine::EngineConfig;
using engine::FinishReason;

namespace {

struct Setup {
  int quant_policy = 0;
  int chunk = 512;
  int batch = 4;
  int threads = 1;
  bool has_prefix_cache = true;
  int session_len = 512;
  double share = 0.8;
  int max_queued_requests = 256;
  std::int64_t max_queued_tokens = 1 << 20;
  std::int64_t available = std::int64_t{1} << 30;
  model::ModelConfig model = cases::tiny_config();
};

struct Running {
  explicit Running(const Setup& s) : pool(s.threads) {
    EngineConfig c;
    c.quant_policy = s.quant_policy;
    c.session_len = s.session_len;
    c.max_batch_size = s.batch;
    c.max_prefill_tokens = s.chunk;
    c.has_prefix_cache = s.has_prefix_cache;
    c.cache_max_entry_count = s.share;
    c.max_queued_requests = s.max_queued_requests;
    c.max_queued_tokens = s.max_queued_tokens;
    const cache::CacheGeometry g{s.model.n_layers, s.model.n_kv_heads, s.model.head_dim,
                                 engine::sealed_unit_bytes(s.quant_policy, s.model.head_dim)};
    const engine::MemoryPlan plan = engine::plan_memory(s.model, c, g, 0, s.available);
    engine = std::make_unique<Engine>(
        cases::tiny_decoder(s.model, s.quant_policy, plan.max_rows, &pool), c, plan);
  }
  ThreadPool pool;
  std::unique_ptr<Engine> engine;
};

std::vector<int> prompt_of(int n, unsigned seed) {
  std::mt19937 random(seed);
  std::vector<int> prompt(static_cast<std::size_t>(n));
  for (int& id : prompt)
    id = static_cast<int>(random() % 97);
  return prompt;
}

engine::Request greedy(std::vector<int> prompt, int max_new_tokens) {
  engine::Request r;
  r.prompt = std::move(prompt);
  r.sampling.temperature = 0.0f;
  r.max_new_tokens = max_new_tokens;
  return r;
}

struct Result {
  std::vector<int> ids;
  FinishReason finish = FinishReason::kNone;
  int n_ends = 0;
};

engine::TokenSink into(Result& r) {
  return [&r](const engine::TokenEvent& e) {
    if (e.token >= 0) r.ids.push_back(e.token);
    if (e.finish != FinishReason::kNone) {
      r.finish = e.finish;
      ++r.n_ends;
    }
  };
}

void run_all(Engine& engine) {
  while (engine.step()) {
  }
}

/// Greedy answers to prompts of several lengths, two of which share their first 150 tokens.
std::vector<std::vector<int>> answers(const Setup& setup, bool one_by_one) {
  Running running(setup);
  std::vector<std::vector<int>> prompts;
  for (const int n : {1, 63, 64, 65, 200})
    prompts.push_back(prompt_of(n, 7));
  prompts.push_back(prompt_of(150, 7));
  prompts.back().push_back(3);
  std::vector<Result> results(prompts.size());
  for (std::size_t i = 0; i < prompts.size(); ++i) {
    (void)running.engine->submit(greedy(prompts[i], 80), into(results[i]));
    if (one_by_one) run_all(*running.engine);
  }
  run_all(*running.engine);
  std::vector<std::vector<int>> ids;
  for (const Result& r : results) {
    CHECK(r.n_ends == 1);
    CHECK(r.finish == FinishReason::kLength);
    CHECK(r.ids.size() == 80);
    ids.push_back(r.ids);
  }
  return ids;
}

}  // namespace

TEST_CASE("chunks, batches, threads and shared prefixes never change a greedy answer") {
  for (const int policy : {0, 8, 4, 84, 40}) {
    CAPTURE(policy);
    const auto expected =
        answers({.quant_policy = policy, .batch = 1, .has_prefix_cache = false}, true);
    for (const int chunk : {1, 7, 64, 100}) {
      CAPTURE(chunk);
      CHECK(answers({.quant_policy = policy, .chunk = chunk}, false) == expected);
    }
    CHECK(answers({.quant_policy = policy, .batch = 6, .threads = 2}, false) == expected);
    CHECK(answers({.quant_policy = policy, .has_prefix_cache = true}, true) == expected);
    CHECK(answers({.quant_policy = policy, .batch = 2, .has_prefix_cache = false}, false) ==
          expected);
  }
}

TEST_CASE("answers differ between prompts, so that equal answers mean something") {
  const auto ids = answers({}, true);
  CHECK(std::map<std::vector<int>, int>{{ids[1], 0}, {ids[2], 0}, {ids[4], 0}}.size() == 3);
}

TEST_CASE("a shared prefix is computed once") {
  Running running({});
  std::vector<int> a = prompt_of(200, 1);
  std::vector<int> b = a;
  b.back() = (b.back() + 1) % 97;
  Result ra;
  Result rb;
  (void)running.engine->submit(greedy(a, 4), into(ra));
  run_all(*running.engine);
  CHECK(running.engine->stats().reused_tokens == 0);
  (void)running.engine->submit(greedy(b, 4), into(rb));
  run_all(*running.engine);
  CHECK(running.engine->stats().reused_tokens == 192);
}

TEST_CASE("prompts with different RoPE bases share nothing") {
  Setup s;
  s.model.max_position = 150;
  s.model.rope.dynamic_factor = 2.0;
  const std::vector<int> prompt = prompt_of(200, 1);
  const std::vector<int> shorter(prompt.begin(), prompt.begin() + 140);
  Running running(s);
  Result r;
  (void)running.engine->submit(greedy(shorter, 2), into(r));
  run_all(*running.engine);
  (void)running.engine->submit(greedy(prompt, 2), into(r));
  run_all(*running.engine);
  CHECK(running.engine->stats().reused_tokens == 0);
}

TEST_CASE("a stop token ends the answer and min_new_tokens holds it off") {
  Running running({});
  Result free;
  (void)running.engine->submit(greedy(prompt_of(20, 5), 30), into(free));
  run_all(*running.engine);
  const int stop = free.ids[9];
  const auto first = static_cast<std::size_t>(std::ranges::find(free.ids, stop) - free.ids.begin());

  Result stopped;
  engine::Request r = greedy(prompt_of(20, 5), 30);
  r.stop_ids = {stop};
  (void)running.engine->submit(r, into(stopped));
  run_all(*running.engine);
  CHECK(stopped.finish == FinishReason::kStop);
  CHECK(stopped.ids == std::vector<int>(free.ids.begin(),
                                        free.ids.begin() + static_cast<std::ptrdiff_t>(first) + 1));

  Result held;
  r.min_new_tokens = 30;
  (void)running.engine->submit(r, into(held));
  run_all(*running.engine);
  CHECK(held.ids.size() == 30);
  CHECK(std::ranges::find(held.ids, stop) == held.ids.end());
}

TEST_CASE("an answer is cut at the session's length, a prompt that fills it is refused") {
  Running running({.session_len = 128});
  Result r;
  (void)running.engine->submit(greedy(prompt_of(120, 5), 1000), into(r));
  run_all(*running.engine);
  CHECK(r.finish == FinishReason::kLength);
  CHECK(r.ids.size() == 8);
  CHECK_THROWS_AS((void)running.engine->submit(greedy(prompt_of(128, 5), 1), into(r)), Error);
  CHECK_THROWS_AS((void)running.engine->submit(greedy({}, 1), into(r)), Error);
  CHECK_THROWS_AS((void)running.engine->submit(greedy({97}, 1), into(r)), Error);
  CHECK_THROWS_AS((void)running.engine->submit(greedy({-1}, 1), into(r)), Error);
}

TEST_CASE("more requests than memory: all are answered, first come first served") {
  Setup s{.batch = 4, .session_len = 256};
  const model::ModelConfig m = s.model;
  const std::int64_t page = std::int64_t{m.n_layers} * engine::sealed_unit_bytes(0, m.head_dim);
  Running roomy(s);
  s.available = roomy.engine->plan().total() - roomy.engine->plan().sealed_pages() + 8 * page;
  Running tight(s);  // pages for one sequence and a half
  CHECK(tight.engine->plan().n_pages < 8);
  std::vector<Result> expected(8);
  std::vector<Result> results(8);
  std::vector<int> order;
  for (unsigned i = 0; i < 8; ++i) {
    const engine::Request r = greedy(prompt_of(100, i), 100);
    (void)roomy.engine->submit(r, into(expected[i]));
    (void)tight.engine->submit(r, [&, i](const engine::TokenEvent& e) {
      into(results[i])(e);
      if (e.finish != FinishReason::kNone) order.push_back(static_cast<int>(i));
    });
  }
  run_all(*roomy.engine);
  run_all(*tight.engine);
  CHECK(order == std::vector<int>{0, 1, 2, 3, 4, 5, 6, 7});
  for (std::size_t i = 0; i < 8; ++i)
    CHECK(results[i].ids == expected[i].ids);
}

TEST_CASE("cancelling ends a request once, running or waiting, and frees what it held") {
  Running running({.batch = 1});
  Result a;
  Result b;
  const auto id_a = running.engine->submit(greedy(prompt_of(70, 1), 200), into(a));
  const auto id_b = running.engine->submit(greedy(prompt_of(70, 2), 200), into(b));
  for (int i = 0; i < 5; ++i)
    running.engine->step();
  running.engine->cancel(id_b);
  running.engine->cancel(id_a);
  running.engine->cancel(12345);
  run_all(*running.engine);
  CHECK(a.finish == FinishReason::kCancelled);
  CHECK(b.finish == FinishReason::kCancelled);
  CHECK(a.n_ends == 1);
  CHECK(b.n_ends == 1);
  CHECK(b.ids.empty());
  Result c;
  (void)running.engine->submit(greedy(prompt_of(70, 1), 5), into(c));
  run_all(*running.engine);
  CHECK(c.ids.size() == 5);
}

TEST_CASE("the same seed draws the same answer, alone or in a batch; another seed another") {
  const auto drawn = [](std::uint64_t seed, int others) {
    Running running({.batch = 4});
    Result r;
    std::vector<Result> rest(static_cast<std::size_t>(others));
    engine::Request request = greedy(prompt_of(30, 1), 40);
    request.sampling.temperature = 1.0f;
    request.sampling.top_k = 40;
    request.sampling.top_p = 0.9f;
    request.sampling.seed = seed;
    for (Result& o : rest)
      (void)running.engine->submit(greedy(prompt_of(33, 9), 20), into(o));
    (void)running.engine->submit(request, into(r));
    run_all(*running.engine);
    return r.ids;
  };
  CHECK(drawn(1, 0) == drawn(1, 3));
  CHECK(drawn(1, 0) != drawn(2, 0));
}

TEST_CASE("logits that are no numbers end that request and no other") {
  Setup s;
  const model::ModelConfig m = s.model;
  ThreadPool pool(1);
  EngineConfig c;
  c.session_len = 256;
  const cache::CacheGeometry g{m.n_layers, m.n_kv_heads, m.head_dim,
                               engine::sealed_unit_bytes(0, m.head_dim)};
  const engine::MemoryPlan plan = engine::plan_memory(m, c, g, 0, std::int64_t{1} << 30);
  model::DecoderWeights weights = cases::tiny_weights(m, 1);
  const float nan = std::numeric_limits<float>::quiet_NaN();
  std::memcpy(weights.embedding.codes.data() + 4 * 96 * m.hidden_size, &nan, 4);  // of token 96
  Engine engine({m, std::move(weights), engine::make_cpu_ops(0, m.head_dim, best_cpu_isa()),
                 Cpu{&pool}, plan.max_rows},
                c, plan);
  Result bad;
  Result good;
  (void)engine.submit(greedy({1, 2, 96}, 5), into(bad));
  (void)engine.submit(greedy({1, 2, 3}, 5), into(good));
  run_all(engine);
  CHECK(bad.finish == FinishReason::kError);
  CHECK(bad.n_ends == 1);
  CHECK(good.ids.size() == 5);
}

TEST_CASE("what does not fit is refused with the plan and a way out") {
  Setup s{.session_len = 8192, .available = 4 << 20};
  try {
    Running running(s);
    FAIL("a plan beyond the memory was accepted");
  } catch (const Error& e) {
    CHECK(e.code() == ErrorCode::kCapacity);
    const std::string what = e.what();
    CHECK(what.find("memory plan") != std::string::npos);
    CHECK(what.find("--session-len") != std::string::npos);
  }
  CHECK_THROWS_AS(Running({.share = 1.5}), Error);
  CHECK_THROWS_AS(Running({.batch = 0}), Error);
}
