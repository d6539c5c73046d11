/// \file  What servers answer: pieces of answers, whole ones and errors, in the shapes of lmd, LMDeploy,
///        vLLM, llama.cpp and OpenAI.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/json/json.hpp>
#include <lmd/serve/client_error.hpp>

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace lmd::apps {

/// `text` as one line of an error message: controls become blanks, at most `max_bytes` whole
/// characters.
[[nodiscard]] inline std::string one_line(std::string_view text, std::size_t max_bytes = 300) {
  const bool is_cut = text.size() > max_bytes;
  if (is_cut) {
    while (max_bytes > 0 && (static_cast<unsigned char>(text[max_bytes]) & 0xC0) == 0x80)
      --max_bytes;
    text = text.substr(0, max_bytes);
  }
  std::string line;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const auto c = static_cast<unsigned char>(text[i]);
    const auto next = i + 1 < text.size() ? static_cast<unsigned char>(text[i + 1]) : 0u;
    const bool is_wide_control = c == 0xC2 && next >= 0x80 && next <= 0x9F;
    if (is_wide_control) ++i;
    if (c >= 0x20 && c != 0x7F && !is_wide_control) {
      line += text[i];
    } else if (!line.empty() && line.back() != ' ') {
      line += ' ';
    }
  }
  while (line.ends_with(' '))
    line.pop_back();
  return is_cut ? line + "..." : line;
}

namespace detail {

/// The member, or null where `value` is no object or lacks it.
[[nodiscard]] inline const json::Json& member(const json::Json& value, const char* key) {
  static const json::Json kNull;
  if (!value.is_object()) return kNull;
  const auto at = value.find(key);
  return at == value.end() ? kNull : *at;
}

[[nodiscard]] inline std::string text_or_empty(const json::Json& value) {
  return value.is_string() ? value.get<std::string>() : std::string();
}

[[nodiscard]] inline std::int64_t count_or_zero(const json::Json& value) {
  if (!value.is_number_integer()) return 0;
  const auto n = value.get<std::int64_t>();
  return n < 0 ? 0 : n;
}

/// What an error says for people; empty where `body` is none.
[[nodiscard]] inline std::string error_words(const json::Json& body) {
  const json::Json& error = member(body, "error");
  if (error.is_string()) return error.get<std::string>();
  if (error.is_object()) {
    const std::string words = text_or_empty(member(error, "message"));
    return words.empty() ? json::shown(error) : words;
  }
  const json::Json& detail = member(body, "detail");
  if (detail.is_string()) return detail.get<std::string>();
  if (detail.is_object()) return error_words(detail);
  if (detail.is_array() && !detail.empty()) {
    std::string place;
    for (const json::Json& step : member(detail.front(), "loc"))
      place +=
          (place.empty() ? "" : ".") + (step.is_string() ? step.get<std::string>() : step.dump());
    return place + (place.empty() ? "" : ": ") + text_or_empty(member(detail.front(), "msg"));
  }
  if (member(body, "object") == "error") return text_or_empty(member(body, "message"));
  return {};
}

}  // namespace detail

/// What an error's body says: its message, else its beginning as it came; empty of an empty body.
[[nodiscard]] inline std::string error_message(std::string_view body) {
  if (json::depth_of(body) > json::kMaxDepth) return {};
  const json::Json parsed = json::Json::parse(body, nullptr, false);
  if (parsed.is_discarded()) return one_line(body, 120);
  const std::string words = detail::error_words(parsed);
  return one_line(words.empty() ? detail::text_or_empty(detail::member(parsed, "message")) : words);
}

struct TokenUsage {
  std::int64_t prompt = 0;
  std::int64_t completion = 0;
  std::int64_t cached = 0;  ///< of the prompt's, from the prefix cache
};

/// A part of an answer, or a whole one.
struct AnswerChunk {
  std::string text;
  bool has_tokens = false;  ///< it stands for a token or more: text, thoughts, a tool call
  std::string finish;       ///< "stop", "length", ...; empty: it goes on
  std::optional<TokenUsage> usage;
};

/// Reads a chunk of a chat's or a completion's stream, or such an answer as a whole. Of several choices the first.
///
/// Errors:  \throws ClientError(kStatus) when it is an error; ClientError(kProtocol) when it is
///          neither, naming `where`.
[[nodiscard]] inline AnswerChunk parse_answer_chunk(std::string_view text,
                                                    const std::string& where) {
  using detail::member;
  using serve::ClientError;
  using serve::ClientFailure;
  const bool is_deep = json::depth_of(text) > json::kMaxDepth;
  const json::Json body = is_deep ? json::Json() : json::Json::parse(text, nullptr, false);
  if (const std::string words = detail::error_words(body); !words.empty())
    throw ClientError(ClientFailure::kStatus, where + ": the server says: " + one_line(words));
  const json::Json& choices = member(body, "choices");
  const json::Json& usage = member(body, "usage");
  if (!choices.is_array() && !usage.is_object())
    throw ClientError(ClientFailure::kProtocol, where + ": the answer is none of a chat's");
  AnswerChunk chunk;
  if (choices.is_array() && !choices.empty()) {
    const json::Json& choice = choices.front();
    const json::Json& delta = member(choice, "delta");
    const json::Json& message = delta.is_object() ? delta : member(choice, "message");
    chunk.text = detail::text_or_empty(message.is_object() ? member(message, "content")
                                                           : member(choice, "text"));
    chunk.finish = detail::text_or_empty(member(choice, "finish_reason"));
    const json::Json& calls = member(message, "tool_calls");
    chunk.has_tokens = !chunk.text.empty() || (calls.is_array() && !calls.empty());
    for (const char* thoughts : {"reasoning_content", "reasoning"})
      chunk.has_tokens |= !detail::text_or_empty(member(message, thoughts)).empty();
  }
  if (usage.is_object()) {
    chunk.usage = TokenUsage{
        detail::count_or_zero(member(usage, "prompt_tokens")),
        detail::count_or_zero(member(usage, "completion_tokens")),
        detail::count_or_zero(member(member(usage, "prompt_tokens_details"), "cached_tokens"))};
  }
  return chunk;
}

/// One line of the stream of LMDeploy's /v1/chat/interactive.
struct InteractiveLine {
  std::string text;
  std::int64_t tokens = 0;  ///< of the answer so far
  std::int64_t input_tokens = 0;
  std::int64_t history_tokens = 0;  ///< of the session before this turn
  std::string finish;
};

/// Errors:  those of parse_answer_chunk.
[[nodiscard]] inline InteractiveLine parse_interactive_line(std::string_view text,
                                                            const std::string& where) {
  using detail::member;
  const bool is_deep = json::depth_of(text) > json::kMaxDepth;
  const json::Json body = is_deep ? json::Json() : json::Json::parse(text, nullptr, false);
  if (const std::string words = detail::error_words(body); !words.empty()) {
    throw serve::ClientError(serve::ClientFailure::kStatus,
                             where + ": the server says: " + one_line(words));
  }
  if (!member(body, "text").is_string()) {
    throw serve::ClientError(serve::ClientFailure::kProtocol,
                             where + ": the answer is none of a chat's");
  }
  return {member(body, "text").get<std::string>(), detail::count_or_zero(member(body, "tokens")),
          detail::count_or_zero(member(body, "input_tokens")),
          detail::count_or_zero(member(body, "history_tokens")),
          detail::text_or_empty(member(body, "finish_reason"))};
}

}  // namespace lmd::apps
