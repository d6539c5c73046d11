/// \file  The engine: requests of token ids in, tokens out, many sequences at a time.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/engine/cpu_executor.hpp>
#include <lmd/engine/inbox.hpp>
#include <lmd/engine/scheduler.hpp>
#include <lmd/engine/stats.hpp>
#include <lmd/engine/step.hpp>

#include <atomic>
#include <mutex>
#include <utility>

namespace lmd::engine {

/// Continuous batching over one executor. `submit`, `cancel`, `stats` and `heartbeat` may be called from any
/// thread; `step` is called by the one thread that owns the engine.
class Engine {
 public:
  /// `executor` must have been made for `plan`.
  Engine(std::unique_ptr<Executor> executor, const EngineConfig& config, const MemoryPlan& plan)
      : executor_(std::move(executor)),
        plan_(plan),
        inbox_(plan.max_batch_size + config.max_queued_requests, most_queued_tokens(config, plan)),
        scheduler_(executor_->model(), plan, config),
        nothing_(static_cast<std::size_t>(ceil_div(executor_->model().vocab_size, 32))) {
    executor_->on_progress([this] { heartbeat_ = Clock::now(); });
    publish();
  }
  /// On the Host or Cpu backend; `decoder` must have room for plan.max_rows rows.
  Engine(model::Decoder decoder, const EngineConfig& config, const MemoryPlan& plan)
      : Engine(std::make_unique<CpuExecutor>(std::move(decoder), plan), config, plan) {}

  [[nodiscard]] const model::ModelConfig& model() const { return executor_->model(); }
  [[nodiscard]] const MemoryPlan& plan() const { return plan_; }
  [[nodiscard]] Executor& executor() { return *executor_; }

  [[nodiscard]] EngineStats stats() const {
    const Load load = inbox_.load();
    const std::lock_guard lock(published_mutex_);
    EngineStats stats = published_;
    stats.waiting = load.waiting;
    stats.waiting_tokens = load.tokens;
    return stats;
  }

  /// When `step` last returned, or a long one got on. A thread that owns an idle engine calls it now and then: where this is long
  /// ago, the thread hangs.
  [[nodiscard]] Clock::time_point heartbeat() const { return heartbeat_.load(); }

  /// Queues a request. An answer is cut at the session's length.
  ///
  /// Errors:  \throws Error(kConfig) for an empty prompt, an id outside the vocabulary or a bad
  ///          sampling value; Error(kCapacity) for a prompt that fills the session; Error(kBusy) where
  ///          too much waits already.
  RequestId submit(Request request, TokenSink sink) {
    validate(request, model().vocab_size, plan_.session_len);
    auto s = std::make_unique<Sequence>();
    s->n_prompt = static_cast<int>(request.prompt.size());
    request.max_new_tokens = std::min(request.max_new_tokens, plan_.session_len - s->n_prompt);
    s->tokens = std::move(request.prompt);
    s->tokens.reserve(static_cast<std::size_t>(
        s->n_prompt + request.max_new_tokens));  // steps under way point into it
    s->request = std::move(request);
    s->sink = std::move(sink);
    s->id = next_id_.fetch_add(1);
    s->progress.submitted = Clock::now();
    s->progress.n_prompt = s->n_prompt;
    const RequestId id = s->id;
    inbox_.submit(std::move(s));
    return id;
  }

  /// Ends a request before its next token. Ids of ended requests are ignored.
  void cancel(RequestId id) { inbox_.cancel(id); }

  /// One step for everything that runs; the sinks get their tokens. False when nothing was left.
  ///
  /// Where the executor allows it, and nobody can be let in, the next step begins before: the device does
  /// not stand still while sinks take tokens. Who ends is then in one step too many; its draw is dropped.
  ///
  /// Errors:  what the executor \throws, or std::bad_alloc; every request has then ended with kError.
  bool step() {
    const bool is_any_left = run_step();
    heartbeat_ = Clock::now();
    return is_any_left;
  }

 private:
  [[nodiscard]] static std::int64_t most_queued_tokens(const EngineConfig& config,
                                                       const MemoryPlan& plan) {
    if (config.max_queued_tokens > 0) return config.max_queued_tokens;
    // Open pages hold tokens, too: all of them where sessions are shorter than a page.
    return 2 * (plan.n_pages + plan.max_batch_size) * cache::kPageTokens;
  }

  bool run_step() {
    const Clock::time_point now = Clock::now();
    try {
      read_inbox();
      end_due(now);
      if (!is_under_way_) {
        scheduler_.admit(now);
        publish();
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
      publish();
      throw;
    }
    counts_.computed_tokens += front_.n_tokens();
    scheduler_.finish_step();
    hand_out();
    if (is_under_way_) move_up();
    ++counts_.steps;
    publish();
    return true;
  }

  void read_inbox() {
    letters_ = inbox_.take();
    for (SequencePtr& s : letters_.submitted)
      scheduler_.enqueue(std::move(s));
    for (const RequestId id : letters_.cancelled)
      scheduler_.cancel(id);
  }

  /// What other threads can see.
  void publish() {
    const FairQueue& queue = scheduler_.queue();
    const auto running = static_cast<int>(scheduler_.running().size());
    const auto preempted = static_cast<int>(scheduler_.preempted().size());
    inbox_.set_taken({running + preempted + queue.size(), queue.size(), queue.n_tokens()});
    const cache::BlockPool& pool = scheduler_.pool();
    const SchedulerCounts& counts = scheduler_.counts();
    counts_.prompt_tokens = counts.prompt_tokens;
    counts_.reused_tokens = counts.reused_tokens;
    counts_.preemptions = counts.preemptions;
    counts_.running = running;
    counts_.preempted = preempted;
    counts_.pages = pool.size();
    counts_.free_pages = pool.n_free();
    counts_.idle_pages = pool.n_idle();
    const std::lock_guard lock(published_mutex_);
    published_ = counts_;
  }

  /// Tells who was cancelled, and whose deadline has passed. A sequence leaves once no step under way has it.
  void end_due(Clock::time_point now) {
    const auto reason_of = [now](const Sequence& s) {
      if (s.is_cancelled) return FinishReason::kCancelled;
      const bool waits_too_long = s.progress.started == kNotStarted && s.request.start_by <= now;
      return s.request.deadline <= now || waits_too_long ? FinishReason::kDeadline
                                                         : FinishReason::kNone;
    };
    const auto is_due = [&](const Sequence& s) { return reason_of(s) != FinishReason::kNone; };
    for (const SequencePtr& s : scheduler_.take_waiting_if(is_due))
      end(*s, reason_of(*s));
    for (const SequencePtr& s : scheduler_.running()) {
      if (is_due(*s) && !s->has_ended) end(*s, reason_of(*s));
    }
    if (!is_under_way_) remove_ended();
  }

  static void end(Sequence& s, FinishReason reason) {
    s.has_ended = true;
    s.sink({.id = s.id, .finish = reason, .progress = &s.progress});
  }

  void remove_ended() {
    for (std::size_t i = scheduler_.running().size(); i-- > 0;) {
      const Sequence& s = *scheduler_.running()[i];
      if (s.has_ended && s.next_draw < 0) scheduler_.remove(i);
    }
  }

  /// A step has failed: nobody knows what the cache holds of the sequences, and nobody will ask.
  void end_all() {
    for (const SequencePtr& s : letters_.submitted)  // no longer there once they are in the queue
      if (s != nullptr) end(*s, FinishReason::kError);
    letters_ = {};
    for (const SequencePtr& s : scheduler_.take_waiting_if([](const Sequence&) { return true; }))
      end(*s, FinishReason::kError);
    for (const SequencePtr& s : scheduler_.running()) {
      s->next_draw = -1;
      if (!s->has_ended) end(*s, FinishReason::kError);
    }
    remove_ended();
  }

  /// A token is drawn for every sequence whose tokens are all in the step.
  void begin() {
    scheduler_.plan_step();
    front_.clear(scheduler_.running().size());
    for (const SequencePtr& s : scheduler_.running()) {
      s->draw = -1;
      if (s->n_step == 0) continue;
      front_.add(*s);
      if (s->n_step == s->n_pending())
        s->draw = front_.add_draw(*s, allowed_tokens(s->request, nothing_), model().vocab_size);
    }
    executor_->begin(front_.items);
  }

  /// Whether the step under way is one of single tokens that nothing but its draws will change.
  [[nodiscard]] bool can_go_ahead() const {
    if (!executor_->runs_ahead() || !scheduler_.is_closed()) return false;
    bool is_any = false;
    int n_pages = 0;
    for (const SequencePtr& s : scheduler_.running()) {
      const Request& r = s->request;
      if (s->has_ended) continue;
      if (s->draw < 0 || s->n_step != 1 || r.n_logprobs > 0 || r.sampling.has_penalties() ||
          r.constraint != nullptr)
        return false;
      if (!goes_on(*s)) continue;
      is_any = true;
      n_pages += Scheduler::n_pages_ahead(*s);
    }
    return is_any && n_pages <= scheduler_.n_available();
  }

  /// Whether a sequence that draws goes on behind it, unless what it draws ends it.
  static bool goes_on(const Sequence& s) {
    return !s.has_ended && s.n_generated() + 1 < s.request.max_new_tokens;
  }

  /// Begins the step behind the one that is under way.
  void begin_ahead() {
    behind_.clear(scheduler_.running().size());
    for (const SequencePtr& s : scheduler_.running()) {
      if (!goes_on(*s)) continue;
      scheduler_.plan_ahead(*s);
      behind_.add_following(*s);
      s->next_draw = behind_.add_draw(*s, {}, model().vocab_size);
    }
    executor_->begin(behind_.items);
  }

  /// Hands out the tokens that were drawn.
  void hand_out() {
    for (const SequencePtr& s : scheduler_.running()) {
      if (s->draw >= 0 && !s->has_ended) take(*s, drawn_[static_cast<std::size_t>(s->draw)]);
    }
    remove_ended();
  }

  /// The step behind is now the oldest.
  void move_up() {
    std::swap(front_, behind_);
    for (const SequencePtr& s : scheduler_.running()) {
      s->draw = std::exchange(s->next_draw, -1);
      s->n_step = s->draw >= 0 ? 1 : 0;
    }
  }

  void take(Sequence& s, const Drawn& drawn) {
    if (drawn.token < 0 || !accept_token(s.request, drawn.token)) {
      end(s, FinishReason::kError);
      return;
    }
    scheduler_.append(s, drawn.token);
    ++counts_.generated_tokens;
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
            .logprobs = s.request.n_logprobs >= 0 ? &drawn.logprobs : nullptr,
            .progress = &s.progress});
  }

  std::unique_ptr<Executor> executor_;
  MemoryPlan plan_;
  Inbox inbox_;
  Inbox::Letters letters_;  // that are being read
  std::atomic<RequestId> next_id_{1};
  Scheduler scheduler_;

  Step front_;   // under way, or being prepared
  Step behind_;  // the one behind it
  bool is_under_way_ = false;
  std::vector<Drawn> drawn_;
  std::vector<std::uint32_t> nothing_;  // [ceil(vocab / 32)] a mask without a bit

  EngineStats counts_;
  mutable std::mutex published_mutex_;
  EngineStats published_;
  std::atomic<Clock::time_point> heartbeat_{Clock::now()};
};

}  // namespace lmd::engine
