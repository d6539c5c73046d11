/// \file  Steps that begin before the one in front has been finished change nothing that anybody is told.
// SPDX-License-Identifier: Apache-2.0
#include <lmd/engine/engine.hpp>

#include <map>
#include <random>

#include "engine/number_executor.hpp"
#include <doctest/doctest.h>

using namespace lmd;
using engine::FinishReason;

namespace {

constexpr int kVocab = 97;

struct Answer {
  std::vector<int> ids;
  std::vector<FinishReason> ends;
};

/// An engine of three slots over a test::NumberExecutor.
struct Running {
  explicit Running(bool runs_ahead) {
    engine::EngineConfig c;
    c.session_len = 400;
    c.max_batch_size = 3;
    const model::ModelConfig m = cases::tiny_config();
    const cache::CacheGeometry geometry{m.n_layers, m.n_kv_heads, m.head_dim,
                                        engine::sealed_unit_bytes(0, m.head_dim)};
    auto made = std::make_unique<test::NumberExecutor>(runs_ahead);
    executor = made.get();
    engine = std::make_unique<engine::Engine>(
        std::move(made), c, engine::plan_memory(m, c, geometry, {}, std::int64_t{1} << 30));
  }

  engine::RequestId submit(engine::Request r) {
    return engine->submit(std::move(r), [this](const engine::TokenEvent& e) {
      Answer& a = answers[e.id];
      CHECK(a.ends.empty());  // nothing comes behind the end
      if (e.token >= 0) a.ids.push_back(e.token);
      if (e.finish != FinishReason::kNone) a.ends.push_back(e.finish);
    });
  }
  void run_all() const {
    while (engine->step()) {
    }
  }

  test::NumberExecutor* executor = nullptr;
  std::unique_ptr<engine::Engine> engine;
  std::map<engine::RequestId, Answer> answers;
};

engine::Request request(int n, int max_new_tokens, unsigned seed) {
  engine::Request r;
  std::mt19937 random(seed % 3);  // some begin alike
  for (int i = 0; i < n; ++i)
    r.prompt.push_back(static_cast<int>(random() % kVocab));
  r.max_new_tokens = max_new_tokens;
  return r;
}

}  // namespace

TEST_CASE("answers are the same whether steps begin ahead or not") {
  int n_ahead = 0;
  for (unsigned seed = 1; seed <= 20; ++seed) {
    CAPTURE(seed);
    std::vector<std::map<engine::RequestId, Answer>> found;
    for (const bool runs_ahead : {false, true}) {
      Running running(runs_ahead);
      running.executor->n_without = 1;
      std::mt19937 random(seed);
      for (int i = 0; i < 12; ++i) {
        engine::Request r = request(1 + static_cast<int>(random() % 200),
                                    1 + static_cast<int>(random() % 150), random());
        if (random() % 2 == 0) r.stop_ids = {static_cast<int>(random() % kVocab), 11, 12, 13};
        if (random() % 3 == 0) r.min_new_tokens = 5;
        if (random() % 6 == 0) r.sampling.frequency_penalty = 0.5f;
        if (random() % 6 == 0) r.n_logprobs = 2;
        (void)running.submit(std::move(r));
        for (unsigned step = random() % 30; step > 0; --step)
          (void)running.engine->step();
      }
      running.run_all();
      CHECK((runs_ahead || running.executor->n_ahead == 0));
      n_ahead += running.executor->n_ahead;
      found.push_back(running.answers);
    }
    REQUIRE(found[0].size() == 12);
    REQUIRE(found[1].size() == 12);
    for (const auto& [id, answer] : found[0]) {
      CHECK(answer.ends.size() == 1);
      CHECK(answer.ids == found[1][id].ids);
      CHECK(answer.ends == found[1][id].ends);
    }
  }
  CHECK(n_ahead > 1000);
}

TEST_CASE("a cancelled request gets nothing more, whatever is under way") {
  Running running(true);
  const engine::RequestId cancelled = running.submit(request(10, 300, 1));
  const engine::RequestId other = running.submit(request(70, 300, 2));
  for (int i = 0; i < 20; ++i)
    (void)running.engine->step();
  REQUIRE(running.executor->n_ahead > 0);
  const std::size_t had = running.answers[cancelled].ids.size();
  running.engine->cancel(cancelled);
  (void)running.engine->step();
  CHECK(running.answers[cancelled].ids.size() == had);
  CHECK(running.answers[cancelled].ends == std::vector{FinishReason::kCancelled});
  running.run_all();
  CHECK(running.answers[other].ends.size() == 1);

  // Its slot and pages are free again: three more run at a time.
  for (unsigned i = 0; i < 3; ++i)
    (void)running.submit(request(100, 250, i));
  running.run_all();
  for (const auto& [id, answer] : running.answers)
    CHECK(answer.ends.size() == 1);
}

TEST_CASE("a request that comes while steps run ahead is let in") {
  Running running(true);
  (void)running.submit(request(10, 300, 1));
  for (int i = 0; i < 10; ++i)
    (void)running.engine->step();
  const engine::RequestId late = running.submit(request(10, 5, 2));
  for (int i = 0; i < 3; ++i)
    (void)running.engine->step();
  CHECK(!running.answers[late].ids.empty());
}

TEST_CASE("a step ahead that fails ends every request once") {
  Running running(true);
  for (unsigned i = 0; i < 4; ++i)  // three run, one waits: nobody is let in before one ends
    (void)running.submit(request(5, 50, i));
  running.executor->fails_at = 7;
  CHECK_THROWS_AS(running.run_all(), Error);
  REQUIRE(running.executor->n_ahead > 0);
  CHECK(running.answers.size() == 4);
  for (const auto& [id, answer] : running.answers)
    CHECK(answer.ends == std::vector{FinishReason::kError});
  running.answers.clear();
  const engine::RequestId next = running.submit(request(5, 50, 9));
  running.run_all();
  CHECK(running.answers[next].ends.size() == 1);
}
