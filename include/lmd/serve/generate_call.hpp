/// \file  An answer of /generate, whole or streamed.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/serve/answer_json.hpp>

#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace lmd::serve {

/// A stream is made of the same object; its text, ids and log probabilities are what came since the last one.
class GenerateCall final : public AnswerCall {
 public:
  GenerateCall(CallPlan call_plan, bool shows_logprobs)
      : AnswerCall(std::move(call_plan)), shows_logprobs_(shows_logprobs) {}

 private:
  void append_delta(int, const AnswerDelta& delta, std::string& out) override {
    const bool is_last = delta.finish != engine::FinishReason::kNone;
    if (!is_last && !delta.token) return;
    out += "data: ";
    append_object(delta.text, {delta.token ? &*delta.token : nullptr, delta.token ? 1u : 0u},
                  is_last ? finish_word(delta.finish) : nullptr, out);
    out += "\n\n";
  }

  void append_end(std::string& out) override { out += kStreamDone; }

  [[nodiscard]] std::string body() override {
    const WholeAnswer& whole = wholes().front();
    std::string out;
    append_object(whole.text, whole.tokens, finish_word(whole.finish), out);
    return out;
  }

  void append_object(std::string_view text,
                     std::span<const AnswerToken> tokens,
                     const char* finish,
                     std::string& out) const {
    std::vector<int> ids;
    for (const AnswerToken& token : tokens)
      ids.push_back(token.id);
    out += R"({"text":)";
    append_json_string(out, text);
    out += R"(,"output_ids":)";
    append_json_integers(out, ids);
    out += R"(,"meta_info":{"prompt_tokens":)";
    append_json_integer(out, usage().prompt);
    out += R"(,"completion_tokens":)";
    append_json_integer(out, usage().answer);
    out += R"(,"finish_reason":)";
    out += finish == nullptr ? "null" : R"({"type":)" + json_string(finish) + '}';
    out += R"(,"output_token_logprobs":)";
    if (shows_logprobs_) {
      append_id_logprobs(out, tokens);
    } else {
      out += "null";
    }
    out += "}}";
  }

  bool shows_logprobs_;
};

}  // namespace lmd::serve
