/// \file  The engine: requests of token ids in, tokens out, many sequences at a time.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/engine/cpu_executor.hpp>
#include <lmd/engine/scheduler.hpp>

#include <atomic>
#include <mutex>

namespace lmd::engine {

/// Counters since the start.
struct EngineStats {
  std::int64_t prompt_tokens = 0;  ///< of requests that were admitted
  std::int64_t reused_tokens = 0;  ///< of these, taken from the prefix tree
  std::int64_t generated_tokens = 0;
  std::int64_t steps = 0;
};

/// Continuous batching over one executor. `submit` and `cancel` may be called from any thread;
/// `step` is called by the one thread that owns the engine.
class Engine {
 public:
  /// `executor` must have been made for `plan`.
  Engine(std::unique_ptr<Executor> executor, const EngineConfig& config, const MemoryPlan& plan)
      : executor_(std::move(executor)), plan_(plan), scheduler_(executor_->model(), plan, config) {}
  /// On the Host or Cpu backend; `decoder` must have room for plan.max_rows rows.
  Engine(model::Decoder decoder, const EngineConfig& config, const MemoryPlan& plan)
      : Engine(std::make_unique<CpuExecutor>(std::move(decoder), plan), config, plan) {}

  [[nodiscard]] const model::ModelConfig& model() const { return executor_->model(); }
  [[nodiscard]] const MemoryPlan& plan() const { return plan_; }
  [[nodiscard]] const EngineStats& stats() const { return stats_; }
  [[nodiscard]] Executor& executor() { return *executor_; }

  /// Queues a request. An answer is cut at the session's length.
  ///
  /// Errors:  \throws Error(kConfig) for an empty prompt, an id outside the vocabulary or a bad
  ///          sampling value; Error(kCapacity) for a prompt that fills the session.
  RequestId submit(Request request, TokenSink sink) {
    check(request);
    auto s = std::make_unique<Sequence>();
    s->n_prompt = static_cast<int>(request.prompt.size());
    request.max_new_tokens = std::min(request.max_new_tokens, plan_.session_len - s->n_prompt);
    s->tokens = std::move(request.prompt);
    s->request = std::move(request);
    s->sink = std::move(sink);
    s->id = next_id_.fetch_add(1);
    const RequestId id = s->id;
    const std::lock_guard lock(inbox_mutex_);
    submitted_.push_back(std::move(s));
    return id;
  }

  /// Ends a request before its next token. Ids of ended requests are ignored.
  void cancel(RequestId id) {
    const std::lock_guard lock(inbox_mutex_);
    cancelled_.push_back(id);
  }

  /// One step for everything that runs; the sinks get their tokens. False when nothing was left.
  ///
  /// Errors:  what the executor \throws; every request has then ended with kError.
  bool step() {
    read_inbox();
    end_cancelled();
    scheduler_.admit();
    if (scheduler_.running().empty()) return !scheduler_.is_idle();
    scheduler_.plan_step();
    try {
      forward();
    } catch (...) {
      end_all();
      throw;
    }
    scheduler_.finish_step();
    finish();
    ++stats_.steps;
    return true;
  }

 private:
  void check(const Request& r) const {
    const int vocab = executor_->model().vocab_size;
    LMD_REQUIRE(!r.prompt.empty(), ErrorCode::kConfig, "the prompt is empty");
    LMD_REQUIRE(std::ssize(r.prompt) < plan_.session_len, ErrorCode::kCapacity,
                "the prompt has " + std::to_string(r.prompt.size()) +
                    " tokens, it must be shorter than the session length of " +
                    std::to_string(plan_.session_len));
    for (const int id : r.prompt) {
      LMD_REQUIRE(id >= 0 && id < vocab, ErrorCode::kConfig,
                  "token id " + std::to_string(id) + " is outside the vocabulary of " +
                      std::to_string(vocab));
    }
    LMD_REQUIRE(r.max_new_tokens >= 1, ErrorCode::kConfig,
                "max_new_tokens " + std::to_string(r.max_new_tokens) + ": must be at least 1");
    kernels::validate(r.sampling);
  }

  void read_inbox() {
    const std::lock_guard lock(inbox_mutex_);
    for (auto& s : submitted_)
      scheduler_.enqueue(std::move(s));
    for (const RequestId id : cancelled_)
      scheduler_.cancel(id);
    submitted_.clear();
    cancelled_.clear();
  }

  void end_cancelled(FinishReason reason = FinishReason::kCancelled) {
    for (const auto& s : scheduler_.take_cancelled_waiting())
      s->sink({.id = s->id, .finish = reason});
    for (std::size_t i = scheduler_.running().size(); i-- > 0;) {
      if (scheduler_.running()[i]->is_cancelled) end(i, reason);
    }
  }

  /// A step has failed: nobody knows what the cache holds of the sequences, and nobody will ask.
  void end_all() {
    scheduler_.cancel_all();
    end_cancelled(FinishReason::kError);
  }

  /// What the step brings; a token is drawn for every sequence whose tokens are all in it.
  void forward() {
    const std::size_t n = scheduler_.running().size();
    items_.clear();
    draws_.clear();
    draws_.reserve(n);  // items point into it
    for (const auto& s : scheduler_.running()) {
      if (s->n_step == 0) continue;
      StepItem item{.slot = s->slot,
                    .position = s->n_cached,
                    .ids = std::span(s->tokens).subspan(static_cast<std::size_t>(s->n_cached),
                                                        static_cast<std::size_t>(s->n_step)),
                    .rope_base = s->rope_base,
                    .page_ids = {s->pages.data(), static_cast<std::size_t>(s->pages.size())}};
      if (s->n_step == s->n_pending()) {
        draws_.push_back({.params = &s->request.sampling,
                          .tokens = s->tokens,
                          .n_prompt = s->n_prompt,
                          .n_logprobs = s->request.n_logprobs});
        if (s->n_generated() < s->request.min_new_tokens)
          draws_.back().banned = s->request.stop_ids;
        item.draw = &draws_.back();
      }
      items_.push_back(item);
    }
    drawn_.resize(draws_.size());
    executor_->run(items_, drawn_);
  }

  /// Hands out the tokens that were drawn.
  void finish() {
    std::size_t row = 0;
    ended_.clear();
    for (std::size_t i = 0; i < scheduler_.running().size(); ++i) {
      Sequence& s = *scheduler_.running()[i];
      if (s.n_step == 0 || s.n_pending() > 0) continue;
      if (take(s, drawn_[row++]) != FinishReason::kNone) ended_.push_back(i);
    }
    for (auto at = ended_.rbegin(); at != ended_.rend(); ++at)
      scheduler_.remove(*at);
  }

  FinishReason take(Sequence& s, const Drawn& drawn) {
    if (s.n_generated() == 0) {
      stats_.prompt_tokens += s.n_prompt;
      stats_.reused_tokens += s.n_reused;
    }
    if (drawn.token < 0) {
      s.sink({.id = s.id, .finish = FinishReason::kError});
      return FinishReason::kError;
    }
    s.tokens.push_back(drawn.token);
    ++stats_.generated_tokens;
    FinishReason finish = FinishReason::kNone;
    if (std::ranges::find(s.request.stop_ids, drawn.token) != s.request.stop_ids.end()) {
      finish = FinishReason::kStop;
    } else if (s.n_generated() >= s.request.max_new_tokens) {
      finish = FinishReason::kLength;
    }
    s.sink({.id = s.id,
            .token = drawn.token,
            .finish = finish,
            .logprobs = s.request.n_logprobs >= 0 ? &drawn.logprobs : nullptr});
    return finish;
  }

  void end(std::size_t index, FinishReason reason) {
    const auto s = scheduler_.remove(index);
    s->sink({.id = s->id, .finish = reason});
  }

  std::unique_ptr<Executor> executor_;
  MemoryPlan plan_;
  Scheduler scheduler_;
  EngineStats stats_;

  std::atomic<RequestId> next_id_{1};
  std::mutex inbox_mutex_;
  std::vector<std::unique_ptr<Sequence>> submitted_;
  std::vector<RequestId> cancelled_;

  std::vector<StepItem> items_;
  std::vector<DrawRequest> draws_;
  std::vector<Drawn> drawn_;
  std::vector<std::size_t> ended_;
};

}  // namespace lmd::engine
