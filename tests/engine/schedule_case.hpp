/// \file  Random requests that come and go, and what must hold whatever the scheduler does with them.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/engine/engine.hpp>

#include <algorithm>
#include <chrono>
#include <functional>
#include <map>
#include <memory>
#include <random>
#include <utility>
#include <vector>

#include <doctest/doctest.h>

namespace lmd::test {

/// Allows two tokens of three; which ones depends on all that were drawn before.
class Changing final : public engine::TokenConstraint {
 public:
  explicit Changing(int vocab_size)
      : vocab_size_(vocab_size), mask_(static_cast<std::size_t>((vocab_size + 31) / 32)) {}
  std::span<const std::uint32_t> allowed() override {
    std::ranges::fill(mask_, 0u);
    for (int id = 0; id < vocab_size_; ++id) {
      if ((static_cast<unsigned>(id) + state_) % 3 != 0)
        mask_[static_cast<std::size_t>(id / 32)] |= 1u << (id % 32);
    }
    return mask_;
  }
  void accept(int token) override { state_ = state_ * 31 + static_cast<unsigned>(token); }

 private:
  int vocab_size_;
  unsigned state_ = 1;
  std::vector<std::uint32_t> mask_;
};

/// A request, and what its client does.
struct Arrival {
  engine::Request request;
  int steps_before = 0;   ///< since the one before it
  int cancel_after = -1;  ///< steps behind its coming; -1: never
  int deadline_ms = -1;   ///< behind its coming; 0 has passed; -1: none
  bool is_constrained = false;

  /// With a constraint of its own.
  [[nodiscard]] engine::Request made(int vocab_size) const {
    engine::Request r = request;
    if (is_constrained) r.constraint = std::make_shared<Changing>(vocab_size);
    return r;
  }
};

/// Settings of an engine, and what it is asked.
struct ScheduleCase {
  engine::EngineConfig config;
  std::int64_t n_pages = 0;  ///< at least one sequence's
  std::vector<Arrival> arrivals;
};

inline constexpr int kScheduleSessionLen = 400;

/// Few slots, fewer pages than they could fill, and prompts of three families that begin alike.
/// `most_tokens` bounds answers.
inline ScheduleCase random_case(unsigned seed, int vocab_size, int n_requests, int most_tokens) {
  std::mt19937 random(seed);
  const auto one_of = [&](auto... values) {
    const std::common_type_t<decltype(values)...> list[] = {values...};
    return list[random() % sizeof...(values)];
  };
  ScheduleCase c;
  c.config.session_len = kScheduleSessionLen;
  c.config.max_batch_size = one_of(1, 2, 3, 5, 8, 8);
  c.config.max_prefill_tokens = one_of(1, 3, 7, 64, 65, 200, 512);
  c.config.admitted_answer_tokens = one_of(0, 0, 1, 64, 256);
  c.config.has_prefix_cache = random() % 3 != 0;
  c.config.max_queued_tokens = 1 << 20;
  const int of_one = kScheduleSessionLen / cache::kPageTokens;
  c.n_pages = of_one + static_cast<int>(random() % 6);
  for (int i = 0; i < n_requests; ++i) {
    Arrival a;
    std::mt19937 family(random() % 3);
    const int n = 1 + static_cast<int>(random() % 300);
    const int alike = static_cast<int>(random() % 300);
    for (int t = 0; t < n; ++t) {
      const auto id = t < alike ? family() : random();
      a.request.prompt.push_back(static_cast<int>(id % static_cast<unsigned>(vocab_size)));
    }
    a.request.max_new_tokens = 1 + static_cast<int>(random() % static_cast<unsigned>(most_tokens));
    a.request.client = random() % 3;
    a.request.sampling.temperature = random() % 2 == 0 ? 0.0f : 0.9f;
    a.request.sampling.seed = random();
    if (random() % 6 == 0) a.request.sampling.frequency_penalty = 0.5f;
    if (random() % 6 == 0) a.request.n_logprobs = static_cast<int>(random() % 3);
    a.is_constrained = random() % 4 == 0;
    if (random() % 8 == 0)
      a.request.stop_ids = {static_cast<int>(random() % static_cast<unsigned>(vocab_size)), 11};
    if (random() % 4 == 0) a.request.min_new_tokens = 5;
    a.steps_before = static_cast<int>(random() % one_of(1u, 3u, 60u));
    if (random() % 5 == 0) a.cancel_after = static_cast<int>(random() % 150);
    if (random() % 8 == 0) a.deadline_ms = static_cast<int>(random() % 4);
    c.arrivals.push_back(std::move(a));
  }
  return c;
}

/// What one request was told.
struct Told {
  std::vector<int> ids;
  std::vector<float> logprobs;
  std::vector<engine::FinishReason> ends;
  engine::RequestProgress progress;  ///< with the last event

  void take(const engine::TokenEvent& e) {
    CHECK(ends.empty());  // nothing comes behind the end
    CHECK((e.token >= 0 || e.finish != engine::FinishReason::kNone));
    if (e.token >= 0) ids.push_back(e.token);
    if (e.logprobs != nullptr) logprobs.push_back(e.logprobs->chosen);
    if (e.finish != engine::FinishReason::kNone) ends.push_back(e.finish);
    REQUIRE(e.progress != nullptr);
    progress = *e.progress;
  }
};

/// Each request by itself, whatever its client does.
inline std::vector<Told> told_alone(engine::Engine& engine, const ScheduleCase& c) {
  std::vector<Told> told(c.arrivals.size());
  for (std::size_t i = 0; i < told.size(); ++i) {
    (void)engine.submit(c.arrivals[i].made(engine.model().vocab_size),
                        [&, i](const engine::TokenEvent& e) { told[i].take(e); });
    while (engine.step()) {
    }
  }
  return told;
}

/// All of them as they come.
inline std::vector<Told> told_together(engine::Engine& engine, const ScheduleCase& c) {
  std::vector<Told> told(c.arrivals.size());
  std::multimap<int, engine::RequestId> leaving;  // by step
  int n_steps = 0;
  const auto step = [&] {
    for (auto at = leaving.begin(); at != leaving.end() && at->first <= n_steps;
         at = leaving.erase(at))
      engine.cancel(at->second);
    ++n_steps;
    const bool is_any_left = engine.step();
    const engine::EngineStats stats = engine.stats();
    CHECK(stats.running <= c.config.max_batch_size);
    CHECK(stats.free_pages + stats.idle_pages <= stats.pages);
    return is_any_left;
  };
  for (std::size_t i = 0; i < told.size(); ++i) {
    const Arrival& a = c.arrivals[i];
    for (int s = 0; s < a.steps_before; ++s)
      (void)step();
    engine::Request r = a.made(engine.model().vocab_size);
    if (a.deadline_ms >= 0)
      r.deadline = engine::Clock::now() + std::chrono::milliseconds(a.deadline_ms);
    const engine::RequestId id =
        engine.submit(std::move(r), [&, i](const engine::TokenEvent& e) { told[i].take(e); });
    if (a.cancel_after >= 0) leaving.emplace(n_steps + a.cancel_after, id);
  }
  while (step()) {
    REQUIRE(n_steps < 1'000'000);
  }
  return told;
}

/// Nothing is lost, nobody holds anything, and all of it adds up.
inline void check_accounts(const engine::Engine& engine, const std::vector<Told>& told) {
  const engine::EngineStats stats = engine.stats();
  CHECK(stats.running == 0);
  CHECK(stats.preempted == 0);
  CHECK(stats.waiting == 0);
  CHECK(stats.waiting_tokens == 0);
  CHECK(stats.free_pages + stats.idle_pages == stats.pages);
  std::int64_t generated = 0;
  std::int64_t read = 0;
  std::int64_t reused = 0;
  std::int64_t preemptions = 0;
  for (const Told& t : told) {
    CHECK(t.ends.size() == 1);
    generated += std::ssize(t.ids);
    preemptions += t.progress.n_preempted;
    if (t.progress.started == engine::kNotStarted) {
      CHECK(t.ids.empty());
      continue;
    }
    CHECK(t.progress.started >= t.progress.submitted);
    read += t.progress.n_prompt;
    reused += t.progress.n_reused;
  }
  CHECK(stats.generated_tokens == generated);
  CHECK(stats.prompt_tokens == read);
  CHECK(stats.reused_tokens == reused);
  CHECK(stats.preemptions == preemptions);
}

/// Answers are those that were given alone; those that were broken off begin like them.
inline void check_answers(const std::vector<Told>& told, const std::vector<Told>& alone) {
  REQUIRE(told.size() == alone.size());
  for (std::size_t i = 0; i < told.size(); ++i) {
    CAPTURE(i);
    const Told& expected = alone[i];
    const Told& found = told[i];
    REQUIRE(found.ends.size() == 1);
    if (found.ends[0] == engine::FinishReason::kCancelled ||
        found.ends[0] == engine::FinishReason::kDeadline) {
      REQUIRE(found.ids.size() <= expected.ids.size());
      CHECK(std::equal(found.ids.begin(), found.ids.end(), expected.ids.begin()));
    } else {
      CHECK(found.ids == expected.ids);
      CHECK(found.logprobs == expected.logprobs);
      CHECK(found.ends == expected.ends);
    }
  }
}

}  // namespace lmd::test
