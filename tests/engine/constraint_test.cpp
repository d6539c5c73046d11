/// \file  Constrained decoding: what the engine asks of a constraint, and what it does with bad ones.
// SPDX-License-Identifier: Apache-2.0
#include <lmd/engine/engine.hpp>

#include <memory>
#include <stdexcept>
#include <vector>

#include "cases/tiny_decoder.hpp"
#include <doctest/doctest.h>

using namespace lmd;
using engine::FinishReason;

namespace {

constexpr int kVocab = 97;
constexpr std::size_t kWords = 4;

std::vector<std::uint32_t> mask_of(const std::vector<int>& ids) {
  std::vector<std::uint32_t> mask(kWords);
  for (const int id : ids)
    mask[static_cast<std::size_t>(id / 32)] |= 1u << (id % 32);
  return mask;
}

/// Allows the ids of a list, another one for each place of the answer; the last goes on.
class Listed final : public engine::TokenConstraint {
 public:
  explicit Listed(std::vector<std::vector<int>> lists) {
    for (const std::vector<int>& ids : lists)
      masks_.push_back(mask_of(ids));
  }
  std::span<const std::uint32_t> allowed() override {
    ++n_asked;
    CHECK(n_asked == static_cast<int>(accepted.size()) + 1);  // once for each draw
    return masks_[std::min(accepted.size(), masks_.size() - 1)];
  }
  void accept(int token) override { accepted.push_back(token); }

  int n_asked = 0;
  std::vector<int> accepted;

 private:
  std::vector<std::vector<std::uint32_t>> masks_;
};

/// Fails in one of the ways in which a constraint can.
class Failing final : public engine::TokenConstraint {
 public:
  enum Way { kThrowsFirst, kThrowsInAccept, kTooShort, kAllowsNothing };
  Failing(Way way, int at) : way_(way), at_(at), all_(kWords, ~0u), none_(kWords) {}
  std::span<const std::uint32_t> allowed() override {
    if (n_ != at_) return all_;
    if (way_ == kThrowsFirst) throw std::runtime_error("no grammar");
    if (way_ == kTooShort) return std::span(all_).first(kWords - 1);
    return way_ == kAllowsNothing ? std::span<const std::uint32_t>(none_) : all_;
  }
  void accept(int) override {
    if (n_++ == at_ && way_ == kThrowsInAccept) throw 7;
  }

 private:
  Way way_;
  int at_;
  int n_ = 0;
  std::vector<std::uint32_t> all_;
  std::vector<std::uint32_t> none_;
};

struct Result {
  std::vector<int> ids;
  std::vector<FinishReason> ends;
  std::vector<float> logprobs;
};

/// An engine over the tiny model on the Cpu backend.
struct Running {
  Running() {
    engine::EngineConfig c;
    c.session_len = 256;
    c.max_batch_size = 4;
    const model::ModelConfig m = cases::tiny_config();
    const cache::CacheGeometry geometry{m.n_layers, m.n_kv_heads, m.head_dim,
                                        engine::sealed_unit_bytes(0, m.head_dim)};
    const engine::MemoryPlan plan = engine::plan_memory(m, c, geometry, 0, std::int64_t{1} << 30);
    engine = std::make_unique<engine::Engine>(cases::tiny_decoder(m, 0, plan.max_rows), c, plan);
  }
  void submit(engine::Request r, Result& to) const {
    (void)engine->submit(std::move(r), [&to](const engine::TokenEvent& e) {
      if (e.token >= 0) to.ids.push_back(e.token);
      if (e.logprobs != nullptr) to.logprobs.push_back(e.logprobs->chosen);
      if (e.finish != FinishReason::kNone) to.ends.push_back(e.finish);
    });
  }
  [[nodiscard]] Result run(engine::Request r) const {
    Result result;
    submit(std::move(r), result);
    while (engine->step()) {
    }
    return result;
  }
  std::unique_ptr<engine::Engine> engine;
};

engine::Request greedy(int max_new_tokens) {
  engine::Request r;
  r.prompt = {1, 2, 3};
  r.sampling.temperature = 0.0f;
  r.max_new_tokens = max_new_tokens;
  return r;
}

}  // namespace

TEST_CASE("tokens come from what the constraint allows, and it is told each of them") {
  const Running running;
  engine::Request r = greedy(6);
  const auto constraint =
      std::make_shared<Listed>(std::vector<std::vector<int>>{{5}, {6, 96}, {40}, {0, 1, 2, 3}});
  r.constraint = constraint;
  const Result result = running.run(std::move(r));
  REQUIRE(result.ids.size() == 6);
  CHECK(result.ids[0] == 5);
  CHECK((result.ids[1] == 6 || result.ids[1] == 96));
  CHECK(result.ids[2] == 40);
  for (std::size_t i = 3; i < 6; ++i)
    CHECK(result.ids[i] <= 3);
  CHECK(constraint->accepted == result.ids);
  CHECK(constraint->n_asked == 6);
  CHECK(result.ends == std::vector{FinishReason::kLength});
}

TEST_CASE("a constraint that allows all changes nothing, beside others or alone") {
  const Running running;
  std::vector<int> all(kVocab);
  for (int id = 0; id < kVocab; ++id)
    all[static_cast<std::size_t>(id)] = id;
  engine::Request r = greedy(40);
  r.sampling.temperature = 1.0f;
  r.sampling.top_p = 0.9f;
  r.sampling.seed = 5;
  r.n_logprobs = 0;
  const Result free = running.run(r);
  Result masked;
  Result beside;
  running.submit(r, beside);
  r.constraint = std::make_shared<Listed>(std::vector<std::vector<int>>{all});
  running.submit(r, masked);
  while (running.engine->step()) {
  }
  CHECK(masked.ids == free.ids);
  CHECK(beside.ids == free.ids);
  CHECK(masked.logprobs == free.logprobs);
}

TEST_CASE("a constraint's stop token ends the answer, and is accepted") {
  const Running running;
  engine::Request r = greedy(20);
  const auto constraint = std::make_shared<Listed>(std::vector<std::vector<int>>{{5}, {6}, {9}});
  r.constraint = constraint;
  r.stop_ids = {9};
  const Result result = running.run(std::move(r));
  CHECK(result.ids == std::vector{5, 6, 9});
  CHECK(result.ends == std::vector{FinishReason::kStop});
  CHECK(constraint->accepted == result.ids);
}

TEST_CASE("min_new_tokens holds a stop token off only where something else is allowed") {
  const Running running;
  engine::Request r = greedy(20);
  r.stop_ids = {9, 10};
  r.min_new_tokens = 10;
  r.constraint =
      std::make_shared<Listed>(std::vector<std::vector<int>>{{9, 5}, {9, 10, 96}, {10, 9}});
  const Result result = running.run(std::move(r));
  REQUIRE(result.ids.size() == 3);
  CHECK(result.ids[0] == 5);
  CHECK(result.ids[1] == 96);
  CHECK((result.ids[2] == 9 || result.ids[2] == 10));
  CHECK(result.ends == std::vector{FinishReason::kStop});
}

TEST_CASE("a constraint that fails ends its request with an error, not the engine") {
  for (const auto way : {Failing::kThrowsFirst, Failing::kThrowsInAccept, Failing::kTooShort,
                         Failing::kAllowsNothing}) {
    CAPTURE(static_cast<int>(way));
    const Running running;
    engine::Request r = greedy(20);
    r.constraint = std::make_shared<Failing>(way, 3);
    Result bad;
    Result good;
    running.submit(std::move(r), bad);
    running.submit(greedy(20), good);
    while (running.engine->step()) {
    }
    CHECK(bad.ids.size() == 3);
    CHECK(bad.ends == std::vector{FinishReason::kError});
    CHECK(good.ids.size() == 20);
    CHECK(good.ends == std::vector{FinishReason::kLength});
  }
}

TEST_CASE("whether a mask has more than the tokens of a list") {
  const std::vector<int> ids = {3, 64};
  CHECK_FALSE(engine::allows_others(mask_of({}), ids, kVocab));
  CHECK_FALSE(engine::allows_others(mask_of({3, 64}), ids, kVocab));
  CHECK_FALSE(engine::allows_others(mask_of({64}), ids, kVocab));
  CHECK(engine::allows_others(mask_of({3, 4}), ids, kVocab));
  CHECK(engine::allows_others(mask_of({3, 64, 96}), ids, kVocab));
  CHECK_FALSE(engine::allows_others(mask_of({3, 97, 127}), ids, kVocab));  // no tokens
}
