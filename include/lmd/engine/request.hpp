/// \file  What a caller asks of the engine, and what comes back token by token.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/engine/token_constraint.hpp>
#include <lmd/kernels/sample/sampler.hpp>

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

namespace lmd::engine {

using RequestId = std::uint64_t;

enum class FinishReason {
  kNone,       ///< goes on
  kStop,       ///< a stop token; it is the event's token and not part of the answer
  kLength,     ///< max_new_tokens or the session's length
  kCancelled,  ///< by the caller; the event has no token
  kError,      ///< no token could be drawn: the logits were not numbers, or the constraint allowed
               ///< nothing; the event has no token
};

[[nodiscard]] inline const char* to_string(FinishReason reason) {
  constexpr const char* kNames[] = {"", "stop", "length", "cancelled", "error"};
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
};

struct TokenEvent {
  RequestId id = 0;
  int token = -1;  ///< -1: none
  FinishReason finish = FinishReason::kNone;
  const kernels::TokenLogprobs* logprobs = nullptr;  ///< when asked for; lives during the call
};

/// Called on the engine's thread, in the order of the tokens. It must not throw, nor call the engine
/// except for `cancel`.
using TokenSink = std::function<void(const TokenEvent&)>;

}  // namespace lmd::engine
