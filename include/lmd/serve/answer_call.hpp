/// \file  What calls of all endpoints with answers do alike; shapes are left to each.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/serve/answer_text.hpp>
#include <lmd/serve/error_reply.hpp>
#include <lmd/serve/json_number.hpp>
#include <lmd/serve/json_text.hpp>
#include <lmd/serve/sessions.hpp>

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

namespace lmd::serve {

/// What an endpoint has decided about a call.
struct CallPlan {
  std::vector<engine::Request> requests;  ///< one for each answer
  AnswerRules rules;
  bool is_stream = false;
  bool include_usage = false;  ///< a stream ends with the counts
  int n_prompt_tokens = 0;     ///< each prompt counted once, whatever n
  int answers_per_prompt = 1;  ///< n; those of a prompt stand side by side
  ApiCompat compat = ApiCompat::k018;
  std::string id;            ///< of the answer, and what ids of tool calls begin with
  std::int64_t created = 0;  ///< seconds since 1970
  std::string model;
  std::unique_ptr<Sessions::Lease> lease = {};  ///< null: no session
};

/// Tokens of a call.
struct Usage {
  int prompt = 0;
  int answer = 0;
  int cached = 0;  ///< of the prompt, found in the prefix cache
};

/// Everything that an answer was, for calls that are no stream.
struct WholeAnswer {
  std::string text = {};
  std::vector<AnswerToken> tokens = {};
  engine::FinishReason finish = engine::FinishReason::kNone;

  [[nodiscard]] std::vector<int> ids() const {
    std::vector<int> ids;
    ids.reserve(tokens.size());
    for (const AnswerToken& token : tokens)
      ids.push_back(token.id);
    return ids;
  }
};

/// Feeds the events of each answer through its text, keeps count, ends.
class AnswerCall : public ApiCall {
 public:
  explicit AnswerCall(CallPlan plan)
      : plan_(std::move(plan)),
        stops_(plan_.rules.stop),
        wholes_(plan_.requests.size()),
        n_cached_(plan_.requests.size(), 0) {
    texts_.reserve(plan_.requests.size());
    for (std::size_t i = 0; i < plan_.requests.size(); ++i)
      texts_.emplace_back(plan_.rules, stops_);
  }

  [[nodiscard]] std::vector<engine::Request> take_requests() final {
    return std::exchange(plan_.requests, {});
  }
  [[nodiscard]] bool is_stream() const final { return plan_.is_stream; }
  [[nodiscard]] std::vector<EarlyEnd> take_finished_early() final {
    return std::exchange(early_, {});
  }
  [[nodiscard]] bool has_ended() const final { return has_failed_ || n_ended_ == texts_.size(); }

  void on_event(const AnswerEvent& event, std::string& out) final {
    AnswerText& text = texts_[static_cast<std::size_t>(event.answer)];
    if (has_ended() || text.has_ended()) return;
    AnswerDelta delta = text.feed(event);
    n_cached_[static_cast<std::size_t>(event.answer)] = event.n_reused;
    if (delta.finish == engine::FinishReason::kError) return fail({}, event.answer, out);
    if (delta.finish == engine::FinishReason::kDeadline)
      return fail({.what = ErrorCase::kUnavailable}, event.answer, out);
    if (delta.finish == engine::FinishReason::kNone && must_stop()) {
      delta.finish = engine::FinishReason::kCancelled;
      text.end();
      early_.push_back({event.answer, false});
    } else if (text.has_ended_early() && event.finish == engine::FinishReason::kNone) {
      early_.push_back({event.answer, true});
    }
    n_ended_ += text.has_ended() ? 1 : 0;
    n_answer_tokens_ += delta.token ? 1 : 0;
    on_delta(event.answer, delta);
    if (plan_.is_stream) {
      append_delta(event.answer, delta, out);
      if (has_ended()) append_end(out);
    } else {
      keep(event.answer, std::move(delta));
    }
    if (has_ended()) plan_.lease.reset();  // before the client can ask again
  }

  [[nodiscard]] HttpReply reply() final {
    if (has_failed_) return error_reply(error_, plan_.compat);
    HttpReply reply;
    reply.body = body();
    return reply;
  }

 protected:
  [[nodiscard]] const CallPlan& plan() const { return plan_; }
  [[nodiscard]] Sessions::Lease* lease() const { return plan_.lease.get(); }
  [[nodiscard]] std::vector<WholeAnswer>& wholes() { return wholes_; }
  [[nodiscard]] int n_answers() const { return static_cast<int>(texts_.size()); }
  /// So far. A prompt's cached tokens are those that its first answer found.
  [[nodiscard]] Usage usage() const {
    Usage usage{.prompt = plan_.n_prompt_tokens, .answer = n_answer_tokens_};
    for (std::size_t i = 0; i < n_cached_.size();
         i += static_cast<std::size_t>(plan_.answers_per_prompt))
      usage.cached += n_cached_[i];
    return usage;
  }

  /// Sees every delta, before it is sent or kept.
  virtual void on_delta(int, const AnswerDelta&) {}
  /// The call is over without its answers: the engine failed, or did not come to it.
  virtual void on_failure() {}
  /// Whether somebody else has ended the call.
  [[nodiscard]] virtual bool must_stop() const { return false; }
  /// Appends what a stream sends of a delta, which may be nothing.
  virtual void append_delta(int answer, const AnswerDelta& delta, std::string& out) = 0;
  /// Appends what a stream sends once every answer has ended.
  virtual void append_end(std::string& out) = 0;
  /// Appends what a stream sends in place of what is missing.
  virtual void append_failure(const ApiError& error, std::string& out) {
    out += stream_error(error);
  }
  /// The answer of a call that is no stream.
  [[nodiscard]] virtual std::string body() = 0;

 private:
  /// The engine does not go on with one answer: the call ends, the other answers with it.
  void fail(ApiError error, int answer, std::string& out) {
    has_failed_ = true;
    error_ = std::move(error);
    on_failure();
    plan_.lease.reset();
    for (int i = 0; i < n_answers(); ++i)
      if (i != answer && !texts_[static_cast<std::size_t>(i)].has_ended())
        early_.push_back({i, false});
    if (plan_.is_stream) append_failure(error_, out);
  }

  void keep(int answer, AnswerDelta delta) {
    WholeAnswer& whole = wholes_[static_cast<std::size_t>(answer)];
    whole.text += delta.text;
    whole.finish = delta.finish;
    if (delta.token) whole.tokens.push_back(*std::move(delta.token));
  }

  CallPlan plan_;
  text::StopStrings stops_;
  std::vector<AnswerText> texts_;
  std::vector<WholeAnswer> wholes_;
  std::vector<EarlyEnd> early_;
  std::size_t n_ended_ = 0;
  int n_answer_tokens_ = 0;
  std::vector<int> n_cached_;  // [answers]  tokens of the prompt
  bool has_failed_ = false;
  ApiError error_;  // that it failed with
};

/// stop, length, ...: the words that clients know.
[[nodiscard]] inline const char* finish_word(engine::FinishReason finish) {
  return finish == engine::FinishReason::kCancelled ? "abort" : engine::to_string(finish);
}

/// A stream's last line.
inline constexpr const char* kStreamDone = "data: [DONE]\n\n";

}  // namespace lmd::serve
