/// \file  A call whose requests are in the engine.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/serve/api_call.hpp>

#include <algorithm>
#include <chrono>
#include <functional>
#include <memory>
#include <utility>
#include <vector>

namespace lmd::serve {

using engine::Clock;

/// How an answer got on, for the metrics.
struct AnswerTimes {
  Clock::time_point started = engine::kNotStarted;  ///< its prompt was being read
  Clock::time_point first = {};                     ///< token
  Clock::time_point last = {};                      ///< token
  int n_tokens = 0;
  int n_prompt = 0;       ///< tokens of its prompt
  bool is_whole = false;  ///< a stop string ended it, and the engine was told to leave it
};

/// Made on a worker thread, then used by the I/O thread alone. The engine holds it while it runs; the call
/// itself lives until the last of its requests has ended, as grammars and the like are its own.
class RunningCall {
 public:
  RunningCall(std::shared_ptr<ApiCall> call, std::size_t n_answers)
      : call_(std::move(call)), times_(n_answers), has_ended_(n_answers), n_open_(n_answers) {}

  [[nodiscard]] ApiCall& call() { return *call_; }
  /// For who uses it beside the connection, which may end.
  [[nodiscard]] std::shared_ptr<ApiCall> shared_call() const { return call_; }
  [[nodiscard]] Clock::time_point submitted() const { return submitted_; }
  [[nodiscard]] int n_answers() const { return static_cast<int>(times_.size()); }
  [[nodiscard]] AnswerTimes& times(int answer) { return times_[static_cast<std::size_t>(answer)]; }
  [[nodiscard]] bool has_ended(int answer) const {
    return has_ended_[static_cast<std::size_t>(answer)];
  }
  /// Whether its answers are among those that the metrics call waiting or running.
  [[nodiscard]] bool is_counted() const { return is_counted_; }
  void set_counted() {
    is_counted_ = true;
    for (const auto& f : std::exchange(held_counts_, {}))
      f();
  }
  /// Runs `f` as soon as the call is counted: never for one that was not taken whole.
  template <class F>
  void once_counted(F f) {
    if (is_counted_)
      f();
    else
      held_counts_.emplace_back(std::move(f));
  }

  /// What the engine said and nobody has taken yet.
  [[nodiscard]] std::vector<AnswerEvent> take_events() { return std::exchange(unread_, {}); }
  [[nodiscard]] std::size_t n_unread() const { return unread_.size(); }

  /// Runs when there is something to take again, and when more than `n_most` wait: who cannot take any now,
  /// as his client is slow, is not woken for each.
  void on_event(std::size_t n_most, std::function<void()> wake) {
    n_most_ = n_most;
    wake_ = std::move(wake);
  }

  /// Takes an event from the engine.
  void deliver(AnswerEvent event) {
    if (event.finish != engine::FinishReason::kNone) {
      has_ended_[static_cast<std::size_t>(event.answer)] = true;
      --n_open_;
    }
    if (!is_left_) {
      unread_.push_back(std::move(event));
      if (wake_ && (unread_.size() == 1 || unread_.size() == n_most_ + 1)) wake_();
    }
    if (is_left_ && n_open_ == 0) call_.reset();
  }

  /// Nobody reads any more. Returns the requests that are still in the engine.
  [[nodiscard]] std::vector<engine::RequestId> leave() {
    is_left_ = true;
    wake_ = nullptr;
    unread_.clear();
    std::vector<engine::RequestId> open;
    for (std::size_t i = 0; i < ids_.size(); ++i) {
      if (!has_ended_[i]) open.push_back(ids_[i]);
    }
    if (n_open_ == 0) call_.reset();
    return open;
  }

  [[nodiscard]] const std::vector<engine::RequestId>& ids() const { return ids_; }

 private:
  friend class EngineThread;

  std::shared_ptr<ApiCall> call_;
  std::vector<engine::RequestId> ids_;
  std::vector<AnswerTimes> times_;
  std::vector<bool> has_ended_;
  std::size_t n_open_;
  Clock::time_point submitted_ = Clock::now();
  std::vector<AnswerEvent> unread_;
  std::size_t n_most_ = 0;
  std::function<void()> wake_;
  bool is_left_ = false;
  bool is_counted_ = false;
  std::vector<std::function<void()>> held_counts_;
};

}  // namespace lmd::serve
