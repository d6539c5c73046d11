/// \file  The engine over an executor of a test's own: what it asks for, and what happens when it fails.
// SPDX-License-Identifier: Apache-2.0
#include <lmd/engine/engine.hpp>

#include <map>

#include "cases/tiny_decoder.hpp"
#include <doctest/doctest.h>

using namespace lmd;
using engine::FinishReason;

namespace {

/// Draws token 7 for everybody; fails at step `fails_at`.
class ScriptedExecutor final : public engine::Executor {
 public:
  explicit ScriptedExecutor(int fails_at) : config_(cases::tiny_config()), fails_at_(fails_at) {}

  [[nodiscard]] const model::ModelConfig& model() const override { return config_; }
  [[nodiscard]] cache::CacheGeometry geometry() const override { return {}; }
  [[nodiscard]] int max_rows() const override { return 64; }
  [[nodiscard]] std::int64_t step_weight_bytes(int) const override { return 0; }
  void begin(std::span<const engine::StepItem> items) override {
    if (n_steps_++ == fails_at_) throw Error(ErrorCode::kCuda, "the device is gone");
    n_draws_ = 0;
    std::map<int, int> slots;
    for (const engine::StepItem& item : items) {
      CHECK(!item.ids.empty());
      CHECK(slots[item.slot]++ == 0);
      n_draws_ += item.draw != nullptr;
    }
  }
  void finish(std::span<engine::Drawn> drawn) override {
    CHECK(drawn.size() == n_draws_);
    for (engine::Drawn& d : drawn)
      d.token = 7;
  }
  void logits(const engine::StepItem&, float*) override {}

 private:
  model::ModelConfig config_;
  int fails_at_;
  int n_steps_ = 0;
  std::size_t n_draws_ = 0;
};

engine::EngineConfig config() {
  engine::EngineConfig c;
  c.session_len = 256;
  c.max_batch_size = 2;
  return c;
}

engine::Engine make_engine(int fails_at) {
  const model::ModelConfig m = cases::tiny_config();
  const cache::CacheGeometry geometry{m.n_layers, m.n_kv_heads, m.head_dim,
                                      engine::sealed_unit_bytes(0, m.head_dim)};
  return {std::make_unique<ScriptedExecutor>(fails_at), config(),
          engine::plan_memory(m, config(), geometry, 0, std::int64_t{1} << 30)};
}

engine::Request request(int n) {
  engine::Request r;
  r.prompt.assign(static_cast<std::size_t>(n), 3);
  r.max_new_tokens = 5;
  return r;
}

}  // namespace

TEST_CASE("a step that fails ends every request once, and the engine goes on") {
  engine::Engine engine = make_engine(2);
  std::map<engine::RequestId, std::vector<FinishReason>> ends;
  const auto sink = [&](const engine::TokenEvent& e) {
    if (e.finish != FinishReason::kNone) ends[e.id].push_back(e.finish);
  };
  for (int i = 0; i < 3; ++i)  // two run, one waits
    (void)engine.submit(request(10 + i), sink);
  CHECK(engine.step());
  CHECK(engine.step());
  CHECK_THROWS_AS((void)engine.step(), Error);
  CHECK(ends.size() == 3);
  for (const auto& [id, reasons] : ends)
    CHECK(reasons == std::vector{FinishReason::kError});
  CHECK_FALSE(engine.step());

  ends.clear();
  (void)engine.submit(request(20), sink);
  while (engine.step()) {
  }
  CHECK(ends.size() == 1);
  CHECK(ends.begin()->second == std::vector{FinishReason::kLength});
}

TEST_CASE("a step that fails before it begins ends every request, too") {
  engine::Engine engine = make_engine(-1);
  std::map<engine::RequestId, std::vector<FinishReason>> ends;
  bool throws = false;
  const auto sink = [&](const engine::TokenEvent& e) {
    if (e.finish == FinishReason::kNone) return;
    ends[e.id].push_back(e.finish);
    if (std::exchange(throws, false)) throw std::bad_alloc();
  };
  const engine::RequestId first = engine.submit(request(10), sink);
  (void)engine.submit(request(11), sink);
  CHECK(engine.step());
  (void)engine.submit(request(12), sink);
  engine.cancel(first);
  throws = true;
  CHECK_THROWS_AS((void)engine.step(), std::bad_alloc);
  REQUIRE(ends.size() == 3);
  CHECK(ends.at(first) == std::vector{FinishReason::kCancelled});
  ends.erase(first);
  for (const auto& [id, reasons] : ends)
    CHECK(reasons == std::vector{FinishReason::kError});
  CHECK_FALSE(engine.step());
  CHECK(engine.stats().running + engine.stats().waiting == 0);
}

TEST_CASE("activations follow the model unless a flag says otherwise; AWQ has halves") {
  using engine::ActivationType, engine::parse_dtype;
  CHECK(parse_dtype("auto", "bfloat16", false) == ActivationType::kBFloat16);
  CHECK(parse_dtype("auto", "bfloat16", true) == ActivationType::kFloat16);
  for (const char* saved_as : {"", "float16", "float32"})
    CHECK(parse_dtype("auto", saved_as, false) == ActivationType::kFloat16);
  for (const bool is_awq : {false, true}) {
    CHECK(parse_dtype("bfloat16", "float16", is_awq) == ActivationType::kBFloat16);
    CHECK(parse_dtype("float16", "bfloat16", is_awq) == ActivationType::kFloat16);
  }
  CHECK_THROWS_WITH_AS((void)parse_dtype("int8", "float16", false),
                       doctest::Contains("known: auto float16 bfloat16"), Error);
}

TEST_CASE("a plan counts what the backend needs") {
  const model::ModelConfig m = cases::tiny_config();
  const cache::CacheGeometry geometry{m.n_layers, m.n_kv_heads, m.head_dim,
                                      engine::sealed_unit_bytes(0, m.head_dim)};
  const auto plan = [&](const engine::BackendNeeds& needs) {
    return engine::plan_memory(m, config(), geometry, needs, std::int64_t{1} << 30);
  };
  const engine::MemoryPlan some =
      plan({.weights = 70, .workspace = {{"one use", 1000}, {"another", 24}}, .idle_slots = 1});
  const engine::MemoryPlan none = plan({});
  CHECK(some.workspace_bytes() == 1024);
  CHECK(some.open_pages == none.open_pages + geometry.open_elements() * 2);
  CHECK(some.total() - some.sealed_pages() == 70 + 1024 + some.open_pages);
  CHECK(none.total() == none.open_pages + none.sealed_pages());
  for (const char* text : {"1.00 KB   one use\n", "24.0 B   another\n"})
    CHECK(engine::to_text(some).find(text) != std::string::npos);
  CHECK_THROWS_WITH_AS((void)plan({.workspace = {{"too much", std::int64_t{2} << 30}}}),
                       doctest::Contains("--max-prefill-token-num"), Error);
}

TEST_CASE("activations and logits of the processor are in its plan") {
  const model::ModelConfig m = cases::tiny_config();
  const engine::BackendNeeds needs = engine::host_needs(m, config(), 12);
  CHECK(needs.weights == 12);
  CHECK(needs.idle_slots == 0);
  const std::int64_t row =
      2 * m.hidden_size + m.qkv_size() + m.q_size() + m.head_dim + 3 * m.intermediate_size;
  CHECK(total_bytes(needs.workspace) ==
        4 * (engine::step_rows(m, config()) * row + config().max_batch_size * m.vocab_size));
}

TEST_CASE("a long step gives signs of life, one behind each layer") {
  const model::ModelConfig m = cases::tiny_config();
  const engine::EngineConfig c = config();
  const cache::CacheGeometry geometry{m.n_layers, m.n_kv_heads, m.head_dim,
                                      engine::sealed_unit_bytes(0, m.head_dim)};
  const engine::MemoryPlan plan = engine::plan_memory(m, c, geometry, 0, std::int64_t{1} << 30);
  engine::CpuExecutor executor(cases::tiny_decoder(m, 0, plan.max_rows), plan);
  int n_signs = 0;
  executor.on_progress([&] { ++n_signs; });
  const std::vector<int> ids = {1, 2, 3};
  const engine::StepItem item{.slot = 0, .ids = ids, .rope_base = 10000.0};
  executor.begin({&item, 1});
  CHECK(n_signs == m.n_layers);
}

TEST_CASE("what an executor reports is the engine's sign of life") {
  class Reporting final : public engine::Executor {
   public:
    explicit Reporting(std::function<void()>& report) : report_(report) {}
    [[nodiscard]] const model::ModelConfig& model() const override { return config_; }
    [[nodiscard]] cache::CacheGeometry geometry() const override { return {}; }
    [[nodiscard]] int max_rows() const override { return 64; }
    [[nodiscard]] std::int64_t step_weight_bytes(int) const override { return 0; }
    void on_progress(std::function<void()> report) override { report_ = std::move(report); }
    void begin(std::span<const engine::StepItem>) override {}
    void finish(std::span<engine::Drawn>) override {}
    void logits(const engine::StepItem&, float*) override {}

   private:
    model::ModelConfig config_ = cases::tiny_config();
    std::function<void()>& report_;
  };
  const model::ModelConfig m = cases::tiny_config();
  const cache::CacheGeometry geometry{m.n_layers, m.n_kv_heads, m.head_dim,
                                      engine::sealed_unit_bytes(0, m.head_dim)};
  std::function<void()> report;
  engine::Engine e(std::make_unique<Reporting>(report), config(),
                   engine::plan_memory(m, config(), geometry, 0, std::int64_t{1} << 30));
  REQUIRE(report);
  const engine::Clock::time_point before = e.heartbeat();
  while (engine::Clock::now() == before) {
  }
  report();
  CHECK(e.heartbeat() > before);
}
