/// \file  An executor without weights: it says the prompt again, or what a script has for it.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/core/error.hpp>
#include <lmd/engine/executor.hpp>
#include <lmd/engine/memory_plan.hpp>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <string>
#include <thread>
#include <vector>

#include "byte_tokenizer.hpp"

namespace lmd::serve_test {

/// Where a prompt contains `when`, the answer is `say`. Of several, the one found last in the prompt.
struct ScriptLine {
  std::vector<int> when;
  std::vector<int> say;
};

struct EchoOptions {
  double steps_per_s = 0.0;  ///< 0: as many as there is time for
  double prefill_us_per_token =
      0;  ///< time that a step takes more for each token beyond one a sequence
  std::vector<ScriptLine> script = {};
  std::vector<int> failing_prompt = {};  ///< a step with such a prompt throws; empty: none
  std::vector<int> fatal_prompt = {};    ///< ... an error after which a device does nothing more
};

/// What a test does to a running engine, from another thread or a signal handler.
struct EchoHooks {
  std::atomic<bool> hangs{false};
};

/// Without a script, an answer is the prompt without its markers, then the end token, over and over: who
/// ignores the end gets as many tokens as asked for.
class EchoExecutor final : public engine::Executor {
 public:
  EchoExecutor(model::ModelConfig config, EchoOptions options, EchoHooks& hooks, int max_rows)
      : config_(std::move(config)),
        options_(std::move(options)),
        hooks_(hooks),
        max_rows_(max_rows) {}

  [[nodiscard]] const model::ModelConfig& model() const override { return config_; }
  [[nodiscard]] cache::CacheGeometry geometry() const override {
    return {.n_layers = 1, .kv_heads = 1, .head_dim = 64, .unit_bytes = 64};
  }
  [[nodiscard]] int max_rows() const override { return max_rows_; }
  [[nodiscard]] std::int64_t step_weight_bytes(int) const override { return 0; }

  void begin(std::span<const engine::StepItem> items) override {
    drawn_.clear();
    std::size_t n_more = 0;
    for (const engine::StepItem& item : items) {
      n_more += item.ids.size() - 1;
      if (item.draw != nullptr) drawn_.push_back(draw(*item.draw));
    }
    pace(n_more);
  }

  void finish(std::span<engine::Drawn> drawn) override {
    while (hooks_.hangs)
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    std::move(drawn_.begin(), drawn_.end(), drawn.begin());
  }

  void logits(const engine::StepItem&, float*) override {
    throw Error(ErrorCode::kInternal, "the echo has no logits");
  }

 private:
  using Clock = std::chrono::steady_clock;

  /// Sleeps until the next step's time.
  void pace(std::size_t n_more_tokens) {
    const auto us = [](double n) {
      return std::chrono::duration_cast<Clock::duration>(
          std::chrono::duration<double, std::micro>(n));
    };
    const double step_us = options_.steps_per_s > 0.0 ? 1e6 / options_.steps_per_s : 0.0;
    const double more_us = options_.prefill_us_per_token * static_cast<double>(n_more_tokens);
    if (step_us + more_us == 0.0) return;
    next_ = std::max(next_ + us(step_us), Clock::now()) + us(more_us);
    std::this_thread::sleep_until(next_);
  }

  [[nodiscard]] static std::ptrdiff_t place_of(std::span<const int> what, std::span<const int> in) {
    const auto found = std::ranges::find_end(in, what);
    return found.empty() ? -1 : found.begin() - in.begin();
  }

  engine::Drawn draw(const engine::DrawRequest& request) const {
    const auto prompt = request.tokens.first(static_cast<std::size_t>(request.n_prompt));
    if (!options_.failing_prompt.empty() && place_of(options_.failing_prompt, prompt) >= 0)
      throw Error(ErrorCode::kInternal, "a step that a test asked to fail");
    if (!options_.fatal_prompt.empty() && place_of(options_.fatal_prompt, prompt) >= 0)
      throw Error(ErrorCode::kCuda, "a fatal step that a test asked for");
    const std::size_t n = request.tokens.size() - prompt.size() + (request.follows ? 1 : 0);
    engine::Drawn drawn;
    drawn.token = allowed_token(token_at(n, prompt, request.banned), request.allowed);
    if (request.n_logprobs < 0) return drawn;
    drawn.logprobs.chosen = -0.125f;
    for (int i = 0; i < request.n_logprobs; ++i)
      drawn.logprobs.top.emplace_back((drawn.token + i) % kVocabulary,
                                      -0.125f - static_cast<float>(i));
    return drawn;
  }

  /// Token n of an answer. A banned one is left out.
  [[nodiscard]] int token_at(std::size_t n,
                             std::span<const int> prompt,
                             std::span<const int> banned) const {
    std::vector<int> answer = answer_to(prompt);
    const bool may_end = std::ranges::find(banned, kEos) == banned.end();
    if (may_end || answer.empty()) answer.push_back(kEos);
    return answer[n % answer.size()];
  }

  [[nodiscard]] static bool is_allowed(int id, std::span<const std::uint32_t> allowed) {
    return (allowed[static_cast<std::size_t>(id) / 32] >> (id % 32) & 1) != 0;
  }

  /// `token` if a constraint allows it; else what brings the answer to its end soonest: the end itself, what
  /// closes a string, an object, a list, what goes on with one.
  [[nodiscard]] static int allowed_token(int token, std::span<const std::uint32_t> allowed) {
    if (allowed.empty() || is_allowed(token, allowed)) return token;
    for (const int id :
         {kEos, int{'"'}, int{'}'}, int{']'}, int{':'}, int{','}, int{'{'}, int{'0'}}) {
      if (is_allowed(id, allowed)) return id;
    }
    for (int id = 0; id < kVocabulary; ++id) {
      if (is_allowed(id, allowed)) return id;
    }
    return -1;
  }

  [[nodiscard]] std::vector<int> answer_to(std::span<const int> prompt) const {
    const ScriptLine* best = nullptr;
    std::ptrdiff_t best_place = -1;
    for (const ScriptLine& line : options_.script) {
      const std::ptrdiff_t place = place_of(line.when, prompt);
      if (place <= best_place) continue;
      best_place = place;
      best = &line;
    }
    if (best != nullptr) return best->say;
    std::vector<int> answer;
    std::ranges::copy_if(prompt, std::back_inserter(answer),
                         [](int id) { return id < kFirstMarker; });
    return answer;
  }

  model::ModelConfig config_;
  EchoOptions options_;
  EchoHooks& hooks_;
  int max_rows_;
  Clock::time_point next_{};
  std::vector<engine::Drawn> drawn_;  // of the step that was begun
};

inline model::ModelConfig echo_config(int max_position) {
  model::ModelConfig c;
  c.architecture = "InternLM2ForCausalLM";
  c.hidden_size = 64;
  c.intermediate_size = 64;
  c.n_layers = 1;
  c.n_heads = 1;
  c.n_kv_heads = 1;
  c.head_dim = 64;
  c.vocab_size = kVocabulary;
  c.max_position = max_position;
  c.rms_eps = 1e-5f;
  c.eos_ids = {kEos};
  return c;
}

/// Room for every sequence at full length: no memory is behind it.
inline engine::MemoryPlan echo_plan(const engine::EngineConfig& config) {
  return {.page_bytes = 64,
          .n_pages = std::int64_t{config.max_batch_size} * cache::sealed_pages(config.session_len),
          .session_len = config.session_len,
          .max_batch_size = config.max_batch_size,
          .max_rows = config.max_prefill_tokens + config.max_batch_size};
}

}  // namespace lmd::serve_test
