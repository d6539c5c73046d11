/// \file  The thread that steps the engine, and how calls reach it and come back.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/core/log.hpp>
#include <lmd/engine/engine.hpp>
#include <lmd/serve/error_reply.hpp>
#include <lmd/serve/metrics.hpp>
#include <lmd/serve/running_call.hpp>

#include <atomic>
#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <utility>
#include <vector>

namespace lmd::serve {

/// What the engine's thread tells of itself.
struct EngineState {
  engine::EngineStats stats = {};
  std::int64_t failed_steps = 0;
  std::string fatal = {};  ///< why it will not go on; empty while it does
};

/// Steps an engine that nobody else steps. Idle, it sleeps, and still gives a sign of life.
///
///   worker threads  submit        -> engine's inbox -> this thread
///   this thread     events        -> mailbox, once a step -> I/O thread: `deliver`
///
/// Nothing but ids and tokens passes: no socket, no JSON on this side.
class EngineThread {
 public:
  /// `wake` runs on the engine's thread when the mailbox has something after it was empty: it has the
  /// I/O thread call `deliver` soon.
  EngineThread(engine::Engine& engine, std::function<void()> wake)
      : engine_(engine), wake_(std::move(wake)), thread_([this] { run(); }) {}
  EngineThread(const EngineThread&) = delete;
  EngineThread& operator=(const EngineThread&) = delete;
  ~EngineThread() { stop(); }

  /// Hands a call's requests to the engine. From any thread. One that has not started within `patience`, if
  /// that is not 0, ends with kDeadline.
  ///
  /// Errors:  \throws what Engine::submit throws; what was submitted before is cancelled then.
  [[nodiscard]] std::shared_ptr<RunningCall> submit(std::unique_ptr<ApiCall> call,
                                                    std::uint64_t client,
                                                    std::chrono::seconds patience) {
    std::vector<engine::Request> requests = call->take_requests();
    auto running = std::make_shared<RunningCall>(std::move(call), requests.size());
    running->ids_.reserve(requests.size());
    try {
      for (std::size_t i = 0; i < requests.size(); ++i) {
        running->times_[i].n_prompt = static_cast<int>(requests[i].prompt.size());
        requests[i].client = client;
        if (patience.count() > 0) requests[i].start_by = Clock::now() + patience;
        running->ids_.push_back(engine_.submit(
            std::move(requests[i]),
            [this, running, answer = static_cast<int>(i)](const engine::TokenEvent& event) {
              take(running, answer, event);
            }));
      }
    } catch (...) {
      cancel(running->ids_);
      throw;
    }
    nudge();
    return running;
  }

  /// From any thread. Slots and pages are free at the end of the step under way.
  void cancel(const std::vector<engine::RequestId>& ids) {
    for (const engine::RequestId id : ids)
      engine_.cancel(id);
    if (!ids.empty()) nudge();
  }

  /// Hands what the engine said to its calls, `on_event(call, event, started)` first, with the time at which
  /// the prompt was begun. On the I/O thread.
  template <class OnEvent>
  void deliver(const OnEvent& on_event) {
    {
      const std::lock_guard lock(mail_mutex_);
      std::swap(mail_, delivering_);
    }
    mail_taken_.notify_one();
    for (Mail& mail : delivering_) {
      on_event(*mail.to, mail.event, mail.started);
      mail.to->deliver(std::move(mail.event));
    }
    delivering_.clear();
  }

  [[nodiscard]] EngineState state() const {
    EngineState state{.stats = engine_.stats()};
    const std::lock_guard lock(mail_mutex_);
    state.failed_steps = failed_steps_;
    state.fatal = fatal_;
    return state;
  }

  /// Tokens that each step took in.
  [[nodiscard]] Histogram step_tokens() const {
    const std::lock_guard lock(mail_mutex_);
    return step_tokens_;
  }

  /// Time since the engine's last sign of life: a step that ended, or a look around while idle.
  [[nodiscard]] Clock::duration silence() const { return Clock::now() - engine_.heartbeat(); }

  /// Ends the thread after the step under way. Requests that are open get no more events.
  void stop() {
    {
      const std::lock_guard lock(idle_mutex_);
      is_stopping_ = true;
    }
    idle_.notify_one();
    { const std::lock_guard lock(mail_mutex_); }  // the thread waits, or will see that it stops
    mail_taken_.notify_one();
    if (thread_.joinable()) thread_.join();
  }

 private:
  struct Mail {
    std::shared_ptr<RunningCall> to;
    AnswerEvent event;
    Clock::time_point started;
  };

  /// Events on their way to the I/O thread; the engine waits when it does not keep up.
  static constexpr std::size_t kMaxMail = std::size_t{1} << 16;
  static constexpr std::chrono::milliseconds kSignPeriod{250};

  void nudge() {
    {
      const std::lock_guard lock(idle_mutex_);
      has_work_ = true;
    }
    idle_.notify_one();
  }

  void run() {
    while (!is_stopping_ && fatal_.empty()) {
      bool is_busy = false;
      try {
        is_busy = engine_.step();
        note_step();
      } catch (const Error& e) {
        fail(e.what(), e.code() == ErrorCode::kCuda);
      } catch (const std::exception& e) {
        fail(e.what(), false);
      }
      send_mail();
      if (!is_busy) rest();
    }
  }

  void note_step() {
    const std::int64_t n = engine_.stats().computed_tokens;
    if (n == n_computed_) return;
    const std::lock_guard lock(mail_mutex_);
    step_tokens_.observe(static_cast<double>(n - std::exchange(n_computed_, n)));
  }

  /// All requests have ended with an error. A CUDA error stays: nothing works on the device afterwards.
  void fail(const std::string& what, bool is_fatal) {
    log(LogLevel::kError, "a step of the engine failed: " + what);
    const std::lock_guard lock(mail_mutex_);
    ++failed_steps_;
    if (is_fatal) fatal_ = what;
  }

  void rest() {
    std::unique_lock lock(idle_mutex_);
    idle_.wait_for(lock, kSignPeriod, [this] { return has_work_ || is_stopping_; });
    has_work_ = false;
  }

  /// On the engine's thread, in a step.
  void take(const std::shared_ptr<RunningCall>& to, int answer, const engine::TokenEvent& event) {
    AnswerEvent copy{
        .answer = answer, .token = event.token, .finish = event.finish, .logprobs = {}};
    if (event.logprobs != nullptr) copy.logprobs = *event.logprobs;
    const bool has_progress = event.progress != nullptr;
    if (has_progress) copy.n_reused = event.progress->n_reused;
    outgoing_.push_back(
        {to, std::move(copy), has_progress ? event.progress->started : engine::kNotStarted});
  }

  void send_mail() {
    if (outgoing_.empty()) return;
    std::unique_lock lock(mail_mutex_);
    mail_taken_.wait(lock, [this] { return mail_.size() < kMaxMail || is_stopping_; });
    const bool was_empty = mail_.empty();
    std::move(outgoing_.begin(), outgoing_.end(), std::back_inserter(mail_));
    outgoing_.clear();
    lock.unlock();
    if (was_empty) wake_();
  }

  engine::Engine& engine_;
  std::function<void()> wake_;
  std::vector<Mail> outgoing_;   // of the step under way
  std::int64_t n_computed_ = 0;  // tokens, by all steps

  mutable std::mutex mail_mutex_;
  std::condition_variable mail_taken_;
  std::vector<Mail> mail_;
  std::int64_t failed_steps_ = 0;
  std::string fatal_;
  Histogram step_tokens_{kStepBounds};
  std::vector<Mail> delivering_;  // the I/O thread's

  std::mutex idle_mutex_;
  std::condition_variable idle_;
  bool has_work_ = false;
  std::atomic<bool> is_stopping_{false};

  std::thread thread_;  // last: it uses everything above
};

}  // namespace lmd::serve
