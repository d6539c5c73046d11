/// \file  What a caller asks of the engine, and what comes back token by token.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/core/error.hpp>
#include <lmd/engine/token_constraint.hpp>
#include <lmd/kernels/sample/sampler.hpp>

#include <chrono>
#include <cstdint>
#include <functional>
#include <iterator>
#include <memory>
#include <string>
#include <vector>

namespace lmd::engine {

using RequestId = std::uint64_t;
using Clock = std::chrono::steady_clock;
inline constexpr Clock::time_point kNoDeadline = Clock::time_point::max();
inline constexpr Clock::time_point kNotStarted = Clock::time_point::max();

/// Why a request ends with kError, where its constraint is not the reason.
inline constexpr const char* kNotANumber =
    "the model's output is not a number; on a GPU, --dtype bfloat16 takes larger activations than "
    "float16";

enum class FinishReason {
  kNone,       ///< goes on
  kStop,       ///< a stop token; it is the event's token and not part of the answer
  kLength,     ///< max_new_tokens or the session's length
  kCancelled,  ///< by the caller; the event has no token
  kError,      ///< no token could be drawn: the logits were not numbers, or the constraint allowed
               ///< nothing; the event has no token
  kDeadline,   ///< the request's deadline, or its time to start, has passed; the event has no token
};

[[nodiscard]] inline const char* to_string(FinishReason reason) {
  constexpr const char* kNames[] = {"", "stop", "length", "cancelled", "error", "deadline"};
  return kNames[static_cast<int>(reason)];
}

struct Request {
  std::vector<int> prompt;  ///< token ids, at least one
  kernels::SamplingParams sampling;
  int max_new_tokens = 512;
  int min_new_tokens = 0;     ///< stop tokens are not drawn before
  std::vector<int> stop_ids;  ///< any of them ends the answer
  int n_logprobs = -1;        ///< -1: none; else the chosen token's and the n best
  /// What may be drawn, of this request alone; null: everything. One that throws, or allows nothing, ends
  /// its request with kError. Stop tokens that it allows come before min_new_tokens where nothing else may.
  std::shared_ptr<TokenConstraint> constraint = nullptr;
  std::uint64_t client = 0;                  ///< who asks: clients that wait take turns
  Clock::time_point deadline = kNoDeadline;  ///< ends with kDeadline at the next step behind it
  Clock::time_point start_by = kNoDeadline;  ///< the same, if it has not started by then
};

/// \throws Error(kConfig) for an empty prompt, an id outside the vocabulary or a value outside its range;
///         Error(kCapacity) for a prompt that fills a session of `session_len` tokens.
inline void validate(const Request& r, int vocab_size, int session_len) {
  LMD_REQUIRE(!r.prompt.empty(), ErrorCode::kConfig, "the prompt is empty");
  LMD_REQUIRE(std::ssize(r.prompt) < session_len, ErrorCode::kCapacity,
              "the prompt has " + std::to_string(r.prompt.size()) +
                  " tokens, it must be shorter than the session length of " +
                  std::to_string(session_len));
  for (const int id : r.prompt) {
    LMD_REQUIRE(id >= 0 && id < vocab_size, ErrorCode::kConfig,
                "token id " + std::to_string(id) + " is outside the vocabulary of " +
                    std::to_string(vocab_size));
  }
  LMD_REQUIRE(r.max_new_tokens >= 1, ErrorCode::kConfig,
              "max_new_tokens " + std::to_string(r.max_new_tokens) + ": must be at least 1");
  kernels::validate(r.sampling);
}

/// How a request has fared so far.
struct RequestProgress {
  Clock::time_point submitted = {};
  Clock::time_point started = kNotStarted;  ///< no longer waiting: its prompt is being read
  int n_prompt = 0;                         ///< tokens
  int n_reused = 0;                         ///< of these, taken from the prefix tree
  int n_preempted = 0;                      ///< times that it gave its memory to older ones
};

struct TokenEvent {
  RequestId id = 0;
  int token = -1;  ///< -1: none
  FinishReason finish = FinishReason::kNone;
  const kernels::TokenLogprobs* logprobs = nullptr;  ///< when asked for; lives during the call
  const RequestProgress* progress = nullptr;         ///< lives during the call
};

/// Called on the engine's thread, in the order of the tokens. It must not throw, nor call the engine
/// except for `cancel`.
using TokenSink = std::function<void(const TokenEvent&)>;

}  // namespace lmd::engine
