/// \file  An answer of /v1/chat/interactive, whole or streamed.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/serve/answer_json.hpp>

#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace lmd::serve {

/// `{"text":...,"tokens":...,"input_tokens":...,"history_tokens":...,"finish_reason":...}`
/// \param n_history  tokens of earlier turns, the answers among them
inline void append_turn(std::string& out,
                        std::string_view text,
                        const Usage& usage,
                        std::size_t n_history,
                        const char* finish) {
  out += R"({"text":)";
  append_json_string(out, text);
  out += R"(,"tokens":)";
  append_json_integer(out, usage.answer);
  out += R"(,"input_tokens":)";
  append_json_integer(out, usage.prompt);
  out += R"(,"history_tokens":)";
  append_json_integer(out, n_history);
  out += R"(,"finish_reason":)";
  out += finish == nullptr ? "null" : json_string(finish);
  out += '}';
}

/// What a turn does to its session, once there is an answer.
struct SessionTurn {
  std::size_t n_history = 0;  ///< tokens of the turns before
  std::vector<int> added;     ///< tokens of the prompt, behind them
  bool is_kept = false;       ///< the session goes on
};

/// One turn of a session, or of none. A stream is one object a line, whose text is what came since the last one;
/// the last object's text is empty. The session gets the prompt with the answer's first token: a turn that was not
/// taken, waited in vain, or broke off as the engine failed, may be said again. What was generated is a part of it also
/// when the client left.
class InteractiveCall final : public AnswerCall {
 public:
  /// \pre the session, where there is one, holds the history, and is kept if it was there before
  InteractiveCall(CallPlan call_plan, SessionTurn turn)
      : AnswerCall(std::move(call_plan)), turn_(std::move(turn)) {}

 private:
  void on_delta(int, const AnswerDelta& delta) override {
    if (lease() == nullptr) return;
    std::vector<int>& ids = lease()->session().ids;
    const bool is_answer = delta.token || delta.finish != engine::FinishReason::kCancelled;
    if (is_answer && !is_begun_) {
      is_begun_ = true;
      ids.insert(ids.end(), turn_.added.begin(), turn_.added.end());
      lease()->keep(turn_.is_kept);
    }
    if (delta.token) ids.push_back(delta.token->id);
  }

  void on_failure() override {
    if (lease() == nullptr || !is_begun_) return;
    lease()->session().ids.resize(turn_.n_history);
    lease()->keep(turn_.n_history > 0);
  }

  [[nodiscard]] bool must_stop() const override {
    return lease() != nullptr && lease()->session().is_cancelled;
  }

  void append_delta(int, const AnswerDelta& delta, std::string& out) override {
    if (!delta.text.empty()) append_line(delta.text, nullptr, out);
    if (delta.finish != engine::FinishReason::kNone)
      append_line({}, finish_word(delta.finish), out);
  }

  void append_line(std::string_view text, const char* finish, std::string& out) const {
    append_turn(out, text, usage(), turn_.n_history, finish);
    out += '\n';
  }

  void append_end(std::string&) override {}
  void append_failure(const ApiError&, std::string& out) override { append_line({}, "error", out); }

  [[nodiscard]] std::string body() override {
    const WholeAnswer& whole = wholes().front();
    std::string out;
    append_turn(out, whole.text, usage(), turn_.n_history, finish_word(whole.finish));
    return out;
  }

  SessionTurn turn_;
  bool is_begun_ = false;  // the session has the prompt
};

}  // namespace lmd::serve
