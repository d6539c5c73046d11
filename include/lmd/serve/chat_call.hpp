/// \file  An answer of /v1/chat/completions, whole or streamed.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/serve/answer_json.hpp>
#include <lmd/serve/tool_stream.hpp>

#include <algorithm>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace lmd::serve {

/// What of an answer is shown beside its text.
struct ChatShape {
  bool shows_logprobs = false;
  bool shows_ids = false;                           ///< output_ids
  bool shows_id_logprobs = false;                   ///< output_token_logprobs
  std::optional<ToolMarkers> tools = std::nullopt;  ///< none: no calls are looked for
  bool is_call_forced = false;                      ///< the answer is held to be calls
  bool begins_in_call = false;                      ///< the prompt ends with the first call's begin
  bool keeps_first_call_only = false;
  std::vector<std::string> tool_names = {};  ///< in the order of the request
};

class ChatCall final : public AnswerCall {
 public:
  ChatCall(CallPlan call_plan, ChatShape shape)
      : AnswerCall(std::move(call_plan)), shape_(std::move(shape)) {
    head_ = R"({"id":)" + json_string(plan().id) + R"(,"object":"chat.completion)" +
            (is_stream() ? ".chunk" : "") + R"(","created":)" + std::to_string(plan().created) +
            R"(,"model":)" + json_string(plan().model) + R"(,"choices":[)";
    if (!shape_.tools) return;
    for (int i = 0; i < n_answers(); ++i) {
      tools_.emplace_back(*shape_.tools,
                          ToolStream::Options{.begins_inside = shape_.begins_in_call,
                                              .keeps_first_only = shape_.keeps_first_call_only,
                                              .is_forced = shape_.is_call_forced,
                                              .is_eager = is_stream()});
    }
  }

 private:
  /// Content and calls of a delta.
  [[nodiscard]] ToolDelta taken_apart(int answer, const std::string& text, bool is_last) {
    if (tools_.empty()) return {.content = text};
    ToolStream& tools = tools_[static_cast<std::size_t>(answer)];
    ToolDelta delta = tools.feed(text);
    if (!is_last) return delta;
    ToolDelta rest = tools.finish();
    delta.content += rest.content;
    for (CallPart& part : rest.parts)
      delta.parts.push_back(std::move(part));
    return delta;
  }

  [[nodiscard]] const char* finish_of(int answer, engine::FinishReason finish) const {
    if (tools_.empty() || finish != engine::FinishReason::kStop) return finish_word(finish);
    const ToolStream& tools = tools_[static_cast<std::size_t>(answer)];
    return tools.has_calls() && !tools.is_cut_off() ? "tool_calls" : finish_word(finish);
  }

  void append_delta(int answer, const AnswerDelta& delta, std::string& out) override {
    const bool is_last = delta.finish != engine::FinishReason::kNone;
    const ToolDelta parts = taken_apart(answer, delta.text, is_last);
    const bool shows_token = delta.token && shows_tokens();
    if (!parts.content.empty() || shows_token) {
      begin_chunk(answer, out);
      out += R"("content":)";
      append_json_string(out, parts.content);
      out += '}';
      if (delta.token) append_tokens({&*delta.token, 1}, out);
      end_chunk(nullptr, out);
    }
    for (const CallPart& part : parts.parts) {
      begin_chunk(answer, out);
      out += R"("tool_calls":[)";
      append_call(answer, part, out);
      out += "]}";
      end_chunk(nullptr, out);
    }
    if (!is_last) return;
    begin_chunk(answer, out);
    out += R"("content":""})";
    end_chunk(finish_of(answer, delta.finish), out);
  }

  void begin_chunk(int answer, std::string& out) const {
    out += "data: ";
    out += head_;
    out += R"({"index":)";
    append_json_integer(out, answer);
    out += R"(,"delta":{"role":"assistant",)";
  }

  void end_chunk(const char* finish, std::string& out) const {
    out += R"(,"finish_reason":)";
    if (finish == nullptr) {
      out += "null";
    } else {
      append_json_string(out, finish);
    }
    out += plan().include_usage ? "}],\"usage\":null}\n\n" : "}]}\n\n";
  }

  void append_end(std::string& out) override {
    if (plan().include_usage) append_usage_chunk(out, head_, usage(), plan().compat);
    out += kStreamDone;
  }

  [[nodiscard]] bool shows_tokens() const {
    return shape_.shows_logprobs || shape_.shows_ids || shape_.shows_id_logprobs;
  }

  /// Members of a choice, each with a comma in front.
  void append_tokens(std::span<const AnswerToken> tokens, std::string& out) const {
    if (shape_.shows_logprobs) {
      out += R"(,"logprobs":{"content":[)";
      for (std::size_t i = 0; i < tokens.size(); ++i) {
        if (i > 0) out += ',';
        append_chat_logprobs(out, *plan().rules.tokenizer, tokens[i]);
      }
      out += "]}";
    }
    if (shape_.shows_ids) {
      std::vector<int> ids;
      for (const AnswerToken& token : tokens)
        ids.push_back(token.id);
      out += R"(,"output_ids":)";
      append_json_integers(out, ids);
    }
    if (shape_.shows_id_logprobs) {
      out += R"(,"output_token_logprobs":)";
      append_id_logprobs(out, tokens);
    }
  }

  /// The first part of a call has its id and name, every part of a stream its index.
  void append_call(int answer, const CallPart& part, std::string& out) const {
    out += '{';
    if (is_stream()) {
      out += R"("index":)";
      append_json_integer(out, part.index);
      out += ',';
    }
    if (!part.name.empty())
      out += R"("id":)" + json_string(call_id(answer, part)) + R"(,"type":"function",)";
    out += R"("function":{)";
    if (!part.name.empty()) out += R"("name":)" + json_string(part.name) + ',';
    out += R"("arguments":)";
    append_json_string(out, part.arguments);
    out += "}}";
  }

  /// LMDeploy 0.5.3 took the place of the function among the tools.
  [[nodiscard]] std::string call_id(int answer, const CallPart& part) const {
    if (plan().compat == ApiCompat::k05) {
      const auto& names = shape_.tool_names;
      const auto at = std::ranges::find(names, part.name);
      return std::to_string(at == names.end() ? part.index : at - names.begin());
    }
    return "chatcmpl-tool-" + plan().id.substr(plan().id.find('-') + 1) + '-' +
           std::to_string(answer) + '-' + std::to_string(part.index);
  }

  [[nodiscard]] std::string body() override {
    std::string out = head_;
    for (int i = 0; i < n_answers(); ++i) {
      if (i > 0) out += ',';
      append_choice(i, out);
    }
    out += R"(],"usage":)";
    append_usage(out, usage(), plan().compat);
    return out + '}';
  }

  void append_choice(int answer, std::string& out) {
    const WholeAnswer& whole = wholes()[static_cast<std::size_t>(answer)];
    const ToolDelta parts = taken_apart(answer, whole.text, true);
    out += R"({"index":)";
    append_json_integer(out, answer);
    out += R"(,"message":{"role":"assistant","content":)";
    if (parts.content.empty() && !parts.parts.empty()) {
      out += "null";
    } else {
      append_json_string(out, parts.content);
    }
    if (plan().compat == ApiCompat::k018) out += R"(,"reasoning_content":null)";
    out += R"(,"tool_calls":)";
    if (parts.parts.empty()) out += "null";
    for (std::size_t i = 0; i < parts.parts.size(); ++i) {
      out += i == 0 ? '[' : ',';
      append_call(answer, parts.parts[i], out);
    }
    out += parts.parts.empty() ? "}" : "]}";
    if (!shape_.shows_logprobs) out += R"(,"logprobs":null)";
    append_tokens(whole.tokens, out);
    out += R"(,"finish_reason":)";
    append_json_string(out, finish_of(answer, whole.finish));
    out += '}';
  }

  ChatShape shape_;
  std::string head_;               // up to the choices
  std::vector<ToolStream> tools_;  // one for each answer; empty: no calls are looked for
};

}  // namespace lmd::serve
