/// \file  The engine: requests of token ids in, tokens out, many sequences at a time.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/engine/cpu_executor.hpp>
#include <lmd/engine/scheduler.hpp>
#include <lmd/engine/step.hpp>

#include <atomic>
#include <mutex>
#include <utility>

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
      : executor_(std::move(executor)),
        plan_(plan),
        scheduler_(executor_->model(), plan, config),
        nothing_(static_cast<std::size_t>(ceil_div(executor_->model().vocab_size, 32))) {}
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
    s->tokens.reserve(static_cast<std::size_t>(
        s->n_prompt + request.max_new_tokens));  // steps under way point into it
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
  /// Where the executor allows it, and nobody waits to be let in, the next step begins before: the device
  /// does not stand still while sinks take tokens. A sequence that ends is then in one step too
  /// many, whose draw is dropped.
  ///
  /// Errors:  what the executor \throws; every request has then ended with kError.
  bool step() {
    read_inbox();
    end_cancelled();
    try {
      if (!is_under_way_) {
        scheduler_.admit();
        if (scheduler_.running().empty()) return !scheduler_.is_idle();
        begin();
      }
      const bool goes_ahead = can_go_ahead();
      if (goes_ahead) begin_ahead();
      drawn_.resize(front_.draws.size());
      executor_->finish(drawn_);
      is_under_way_ = goes_ahead;
    } catch (...) {
      is_under_way_ = false;
      executor_->abandon();
      end_all();
      throw;
    }
    scheduler_.finish_step();
    hand_out();
    if (is_under_way_) move_up();
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

  /// Tells who was cancelled. A sequence leaves once no step under way has it.
  void end_cancelled(FinishReason reason = FinishReason::kCancelled) {
    for (const auto& s : scheduler_.take_cancelled_waiting())
      s->sink({.id = s->id, .finish = reason});
    for (const auto& s : scheduler_.running()) {
      if (!s->is_cancelled || s->has_ended) continue;
      s->has_ended = true;
      s->sink({.id = s->id, .finish = reason});
    }
    if (!is_under_way_) remove_ended();
  }

  void remove_ended() {
    for (std::size_t i = scheduler_.running().size(); i-- > 0;) {
      const Sequence& s = *scheduler_.running()[i];
      if (s.has_ended && s.next_draw < 0) scheduler_.remove(i);
    }
  }

  /// A step has failed: nobody knows what the cache holds of the sequences, and nobody will ask.
  void end_all() {
    scheduler_.cancel_all();
    for (const auto& s : scheduler_.running())
      s->next_draw = -1;
    end_cancelled(FinishReason::kError);
  }

  /// A token is drawn for every sequence whose tokens are all in the step.
  void begin() {
    scheduler_.plan_step();
    front_.clear(scheduler_.running().size());
    for (const auto& s : scheduler_.running()) {
      s->draw = -1;
      if (s->n_step == 0) continue;
      front_.add(*s);
      if (s->n_step == s->n_pending())
        s->draw = front_.add_draw(*s, allowed(*s), model().vocab_size);
    }
    executor_->begin(front_.items);
  }

  /// The mask of a sequence with a constraint; where that fails, nothing may be drawn, which ends it.
  [[nodiscard]] std::span<const std::uint32_t> allowed(const Sequence& s) const {
    if (s.request.constraint == nullptr) return {};
    try {
      const std::span<const std::uint32_t> mask = s.request.constraint->allowed();
      if (mask.size() == nothing_.size()) return mask;
    } catch (...) {
    }
    return nothing_;
  }

  /// Whether the step under way is one of single tokens that nothing but its draws will change.
  [[nodiscard]] bool can_go_ahead() const {
    if (!executor_->runs_ahead() || !scheduler_.is_closed()) return false;
    bool is_any = false;
    for (const auto& s : scheduler_.running()) {
      const Request& r = s->request;
      if (s->has_ended) continue;
      if (s->draw < 0 || s->n_step != 1 || r.n_logprobs > 0 || r.sampling.has_penalties() ||
          r.constraint != nullptr)
        return false;
      is_any |= goes_on(*s);
    }
    return is_any;
  }

  /// Whether a sequence that draws goes on behind it, unless what it draws ends it.
  static bool goes_on(const Sequence& s) {
    return !s.has_ended && s.n_generated() + 1 < s.request.max_new_tokens;
  }

  /// Begins the step behind the one that is under way.
  void begin_ahead() {
    behind_.clear(scheduler_.running().size());
    for (const auto& s : scheduler_.running()) {
      if (!goes_on(*s)) continue;
      scheduler_.plan_ahead(*s);
      behind_.add_following(*s);
      s->next_draw = behind_.add_draw(*s, {}, model().vocab_size);
    }
    executor_->begin(behind_.items);
  }

  /// Hands out the tokens that were drawn.
  void hand_out() {
    for (const auto& s : scheduler_.running()) {
      if (s->draw >= 0 && !s->has_ended) take(*s, drawn_[static_cast<std::size_t>(s->draw)]);
    }
    remove_ended();
  }

  /// The step behind is now the oldest.
  void move_up() {
    std::swap(front_, behind_);
    for (const auto& s : scheduler_.running()) {
      s->draw = std::exchange(s->next_draw, -1);
      s->n_step = s->draw >= 0 ? 1 : 0;
    }
  }

  void take(Sequence& s, const Drawn& drawn) {
    if (s.n_generated() == 0) {
      stats_.prompt_tokens += s.n_prompt;
      stats_.reused_tokens += s.n_reused;
    }
    if (drawn.token < 0 || !accept(s, drawn.token)) {
      s.has_ended = true;
      s.sink({.id = s.id, .finish = FinishReason::kError});
      return;
    }
    s.tokens.push_back(drawn.token);
    ++stats_.generated_tokens;
    FinishReason finish = FinishReason::kNone;
    if (std::ranges::find(s.request.stop_ids, drawn.token) != s.request.stop_ids.end()) {
      finish = FinishReason::kStop;
    } else if (s.n_generated() >= s.request.max_new_tokens) {
      finish = FinishReason::kLength;
    }
    s.has_ended = finish != FinishReason::kNone;
    s.sink({.id = s.id,
            .token = drawn.token,
            .finish = finish,
            .logprobs = s.request.n_logprobs >= 0 ? &drawn.logprobs : nullptr});
  }

  /// Tells the sequence's constraint what was drawn. False where that fails.
  static bool accept(const Sequence& s, int token) {
    if (s.request.constraint == nullptr) return true;
    try {
      s.request.constraint->accept(token);
      return true;
    } catch (...) {
      return false;
    }
  }

  std::unique_ptr<Executor> executor_;
  MemoryPlan plan_;
  Scheduler scheduler_;
  EngineStats stats_;

  std::atomic<RequestId> next_id_{1};
  std::mutex inbox_mutex_;
  std::vector<std::unique_ptr<Sequence>> submitted_;
  std::vector<RequestId> cancelled_;

  Step front_;   // under way, or being prepared
  Step behind_;  // the one behind it
  bool is_under_way_ = false;
  std::vector<Drawn> drawn_;
  std::vector<std::uint32_t> nothing_;  // [ceil(vocab / 32)] a mask without a bit
};

}  // namespace lmd::engine
