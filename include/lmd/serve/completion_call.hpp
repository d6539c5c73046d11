/// \file  An answer of /v1/completions, whole or streamed.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/serve/answer_json.hpp>

#include <algorithm>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace lmd::serve {

struct CompletionShape {
  bool shows_logprobs = false;
  bool shows_ids = false;
  bool shows_id_logprobs = false;
  std::vector<std::string> echoes = {};  ///< what each answer's text begins with; empty: nothing
};

/// Answers are numbered by prompts, and within one by n.
class CompletionCall final : public AnswerCall {
 public:
  CompletionCall(CallPlan call_plan, CompletionShape shape)
      : AnswerCall(std::move(call_plan)),
        shape_(std::move(shape)),
        offsets_(static_cast<std::size_t>(n_answers()), 0) {
    head_ = R"({"id":)" + json_string(plan().id) + R"(,"object":"text_completion","created":)" +
            std::to_string(plan().created) + R"(,"model":)" + json_string(plan().model) +
            R"(,"choices":[)";
  }

 private:
  /// What stands in front of an answer, once.
  [[nodiscard]] std::string take_echo(int answer) {
    if (shape_.echoes.empty()) return {};
    return std::exchange(shape_.echoes[static_cast<std::size_t>(answer)], {});
  }

  void append_delta(int answer, const AnswerDelta& delta, std::string& out) override {
    const std::string text = take_echo(answer) + delta.text;
    const bool shows_token =
        delta.token && (shape_.shows_logprobs || shape_.shows_ids || shape_.shows_id_logprobs);
    if (!text.empty() || shows_token) {
      const std::size_t n = delta.token ? 1 : 0;
      append_chunk(answer, text, {n > 0 ? &*delta.token : nullptr, n}, nullptr, out);
    }
    offsets_[static_cast<std::size_t>(answer)] += n_characters(text);
    if (delta.finish != engine::FinishReason::kNone)
      append_chunk(answer, {}, {}, finish_word(delta.finish), out);
  }

  void append_chunk(int answer,
                    std::string_view text,
                    std::span<const AnswerToken> tokens,
                    const char* finish,
                    std::string& out) const {
    out += "data: ";
    out += head_;
    append_choice(answer, text, tokens, finish, out);
    out += plan().include_usage ? "],\"usage\":null}\n\n" : "]}\n\n";
  }

  void append_choice(int answer,
                     std::string_view text,
                     std::span<const AnswerToken> tokens,
                     const char* finish,
                     std::string& out) const {
    out += R"({"index":)";
    append_json_integer(out, answer);
    out += R"(,"text":)";
    append_json_string(out, text);
    out += R"(,"logprobs":)";
    if (shape_.shows_logprobs && !tokens.empty()) {
      append_legacy_logprobs(tokens, offsets_[static_cast<std::size_t>(answer)], out);
    } else {
      out += "null";
    }
    if (shape_.shows_ids && !tokens.empty()) {
      std::vector<int> ids;
      for (const AnswerToken& token : tokens)
        ids.push_back(token.id);
      out += R"(,"output_ids":)";
      append_json_integers(out, ids);
    }
    if (shape_.shows_id_logprobs && !tokens.empty()) {
      out += R"(,"output_token_logprobs":)";
      append_id_logprobs(out, tokens);
    }
    out += R"(,"finish_reason":)";
    out += finish == nullptr ? "null" : json_string(finish);
    out += '}';
  }

  /// Lists beside each other: names, log probabilities, the best of each place, where in the text.
  void append_legacy_logprobs(std::span<const AnswerToken> tokens,
                              std::size_t offset,
                              std::string& out) const {
    const text::Tokenizer& tokenizer = *plan().rules.tokenizer;
    std::string names, values, tops, offsets, bytes;
    for (std::size_t i = 0; i < tokens.size(); ++i) {
      const AnswerToken& token = tokens[i];
      const char* comma = i > 0 ? "," : "";
      names += comma + json_string(token_name(tokenizer, token.id));
      values += comma;
      append_json_logprob(values, token.logprobs->chosen);
      tops += comma;
      append_tops(tokenizer, token, tops);
      offsets += comma + std::to_string(offset + n_characters(bytes));
      tokenizer.append_piece(token.id, plan().rules.skip_special_tokens, bytes);
    }
    out += R"({"tokens":[)" + names + R"(],"token_logprobs":[)" + values + R"(],"top_logprobs":[)" +
           tops + R"(],"text_offset":[)" + offsets + "]}";
  }

  static void append_tops(const text::Tokenizer& tokenizer,
                          const AnswerToken& token,
                          std::string& out) {
    out += '{';
    bool is_first = true;
    for (const auto& [id, logprob] : token.logprobs->top) {
      if (!std::exchange(is_first, false)) out += ',';
      append_json_string(out, token_name(tokenizer, id));
      out += ':';
      append_json_logprob(out, logprob);
    }
    out += '}';
  }

  [[nodiscard]] static std::size_t n_characters(std::string_view text) {
    return static_cast<std::size_t>(
        std::ranges::count_if(text, [](char c) { return (c & 0xC0) != 0x80; }));
  }

  void append_end(std::string& out) override {
    if (plan().include_usage) append_usage_chunk(out, head_, usage(), plan().compat);
    out += kStreamDone;
  }

  [[nodiscard]] std::string body() override {
    std::string out = head_;
    for (int i = 0; i < n_answers(); ++i) {
      if (i > 0) out += ',';
      const WholeAnswer& whole = wholes()[static_cast<std::size_t>(i)];
      append_choice(i, take_echo(i) + whole.text, whole.tokens, finish_word(whole.finish), out);
    }
    out += R"(],"usage":)";
    append_usage(out, usage(), plan().compat);
    return out + '}';
  }

  CompletionShape shape_;
  std::string head_;                  // up to the choices
  std::vector<std::size_t> offsets_;  // [answers]  characters sent so far
};

}  // namespace lmd::serve
