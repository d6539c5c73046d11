/// \file  What other threads ask of the engine, until its own thread looks; and when it is too much.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/core/error.hpp>
#include <lmd/engine/sequence.hpp>

#include <cstdint>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

namespace lmd::engine {

/// How much of what was submitted has not come to its end.
struct Load {
  int requests = 0;         ///< all of them
  int waiting = 0;          ///< of these, those that have not started
  std::int64_t tokens = 0;  ///< of the prompts of those that wait
};

/// May be used by any number of threads.
class Inbox {
 public:
  /// Requests at most that have not ended, and tokens at most of the prompts of those that wait.
  Inbox(int max_requests, std::int64_t max_tokens)
      : max_requests_(max_requests), max_tokens_(max_tokens) {}

  /// A prompt longer than all tokens is taken where none waits. \throws Error(kBusy) where there is too much.
  void submit(SequencePtr s) {
    const std::lock_guard lock(mutex_);
    LMD_REQUIRE(load_.requests < max_requests_, ErrorCode::kBusy,
                std::to_string(load_.requests) + " requests run or wait, no more are taken");
    LMD_REQUIRE(load_.waiting == 0 || load_.tokens + s->n_prompt <= max_tokens_, ErrorCode::kBusy,
                "prompts of " + std::to_string(load_.tokens) + " tokens wait, another " +
                    std::to_string(s->n_prompt) + " would be more than " +
                    std::to_string(max_tokens_));
    submitted_.push_back(std::move(s));
    ++load_.requests;
    ++load_.waiting;
    load_.tokens += submitted_.back()->n_prompt;
  }

  void cancel(RequestId id) {
    const std::lock_guard lock(mutex_);
    cancelled_.push_back(id);
  }

  /// Everything that came since, in its order; the engine's thread only.
  struct Letters {
    std::vector<SequencePtr> submitted;
    std::vector<RequestId> cancelled;
  };
  [[nodiscard]] Letters take() {
    const std::lock_guard lock(mutex_);
    return {std::exchange(submitted_, {}), std::exchange(cancelled_, {})};
  }

  /// Of what was taken, this is left.
  void set_taken(Load load) {
    const std::lock_guard lock(mutex_);
    for (const SequencePtr& s : submitted_) {
      ++load.requests;
      ++load.waiting;
      load.tokens += s->n_prompt;
    }
    load_ = load;
  }

  [[nodiscard]] Load load() const {
    const std::lock_guard lock(mutex_);
    return load_;
  }

 private:
  int max_requests_;
  std::int64_t max_tokens_;
  mutable std::mutex mutex_;
  Load load_;
  std::vector<SequencePtr> submitted_;
  std::vector<RequestId> cancelled_;
};

}  // namespace lmd::engine
