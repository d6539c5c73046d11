/// \file  Parts of answers that more than one endpoint writes: log probabilities, usage.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/serve/answer_call.hpp>
#include <lmd/text/tokenizer.hpp>

#include <span>
#include <string>
#include <utility>

namespace lmd::serve {

/// The token as the vocabulary spells it; a stand-in with its id where that is nothing.
[[nodiscard]] inline std::string token_name(const text::Tokenizer& tokenizer, int id) {
  std::string piece = tokenizer.piece(id);
  return piece.empty() ? "<" + std::to_string(id) + ">" : piece;
}

namespace detail {

/// `"token":"Ġthe","logprob":-0.1,"bytes":[32,116,104,101]`
inline void append_token_members(std::string& out,
                                 const text::Tokenizer& tokenizer,
                                 int id,
                                 float logprob) {
  const std::string name = token_name(tokenizer, id);
  std::string bytes;
  tokenizer.append_piece(id, false, bytes);
  if (bytes.empty()) bytes = name;
  out += R"("token":)";
  append_json_string(out, name);
  out += R"(,"logprob":)";
  append_json_logprob(out, logprob);
  out += R"(,"bytes":[)";
  for (std::size_t i = 0; i < bytes.size(); ++i) {
    if (i > 0) out += ',';
    append_json_integer(out, static_cast<unsigned>(static_cast<unsigned char>(bytes[i])));
  }
  out += ']';
}

}  // namespace detail

/// An entry of `logprobs.content`. \pre the token has log probabilities
inline void append_chat_logprobs(std::string& out,
                                 const text::Tokenizer& tokenizer,
                                 const AnswerToken& token) {
  out += '{';
  detail::append_token_members(out, tokenizer, token.id, token.logprobs->chosen);
  out += R"(,"top_logprobs":[)";
  bool is_first = true;
  for (const auto& [id, logprob] : token.logprobs->top) {
    out += std::exchange(is_first, false) ? "{" : ",{";
    detail::append_token_members(out, tokenizer, id, logprob);
    out += '}';
  }
  out += "]}";
}

/// `[[-0.1,262],...]`: log probability and id, as `output_token_logprobs`.
inline void append_id_logprobs(std::string& out, std::span<const AnswerToken> tokens) {
  out += '[';
  for (std::size_t i = 0; i < tokens.size(); ++i) {
    out += i > 0 ? ",[" : "[";
    append_json_logprob(out, tokens[i].logprobs ? tokens[i].logprobs->chosen : 0.0f);
    out += ',';
    append_json_integer(out, tokens[i].id);
    out += ']';
  }
  out += ']';
}

/// `{"prompt_tokens":...}`. LMDeploy 0.5.3 had no details.
inline void append_usage(std::string& out, const Usage& usage, ApiCompat compat) {
  out += R"({"prompt_tokens":)";
  append_json_integer(out, usage.prompt);
  out += R"(,"total_tokens":)";
  append_json_integer(out, usage.prompt + usage.answer);
  out += R"(,"completion_tokens":)";
  append_json_integer(out, usage.answer);
  if (compat == ApiCompat::k018) {
    out += R"(,"prompt_tokens_details":{"cached_tokens":)";
    append_json_integer(out, usage.cached);
    out += R"(},"completion_tokens_details":{"reasoning_tokens":0})";
  }
  out += '}';
}

/// The last chunk of a stream that was asked for its usage. `head` is a chunk up to its list of choices.
inline void append_usage_chunk(std::string& out,
                               const std::string& head,
                               const Usage& usage,
                               ApiCompat compat) {
  out += "data: " + head + R"(],"usage":)";
  append_usage(out, usage, compat);
  out += "}\n\n";
}

}  // namespace lmd::serve
