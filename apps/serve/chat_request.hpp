/// \file  What a chat asks a server: the bodies of its requests.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/json/json.hpp>

#include <cstdint>
#include <string>
#include <vector>

#include "../answer_settings.hpp"

namespace lmd::apps {

struct Said {
  std::string role;  ///< "system", "user", "assistant"
  std::string content;
};

[[nodiscard]] inline json::Json messages_json(const std::vector<Said>& messages) {
  json::Json list = json::Json::array();
  for (const Said& message : messages)
    list.push_back({{"role", message.role}, {"content", message.content}});
  return list;
}

/// Adds the settings to a request's body. What changes nothing is left out unless a person has set it, so that
/// servers that know OpenAI's fields alone are asked for no more than is wanted: greedy answers need a
/// temperature of 0 and nothing else.
inline void add_settings(json::Json& body, const AnswerSettings& settings) {
  const AnswerSettings neutral = {.temperature = -1, .top_p = 1.0, .top_k = 0};
  const bool is_greedy = settings.temperature == 0.0;
  for (const Setting& setting : kSettings) {
    const std::string key = setting.key;
    if (key == "max_new_tokens" || (key == "seed" && settings.seed < 0)) continue;
    const bool is_neutral = setting.number != nullptr
                                ? settings.*setting.number == neutral.*setting.number
                                : settings.*setting.integer == neutral.*setting.integer;
    const bool is_moot = is_greedy && (key == "top_p" || key == "top_k" || key == "min_p");
    if ((is_neutral || is_moot) && settings.given.count(key) == 0) continue;
    if (setting.number != nullptr) {
      body[key] = settings.*setting.number;
    } else {
      body[key] = settings.*setting.integer;
    }
  }
  if (!settings.stop.empty()) body["stop"] = settings.stop;
}

/// Asks /v1/chat/completions for the next message, or, where the last one is the assistant's, for
/// its continuation. (lmd, LMDeploy and llama.cpp continue it unasked, vLLM wants to be told.)
[[nodiscard]] inline json::Json chat_body(const std::string& model,
                                          const std::vector<Said>& messages,
                                          const AnswerSettings& settings,
                                          std::int64_t max_tokens) {
  json::Json body = {{"model", model},
                     {"messages", messages_json(messages)},
                     {"stream", true},
                     {"stream_options", {{"include_usage", true}}},
                     {"max_tokens", max_tokens}};
  add_settings(body, settings);
  if (!messages.empty() && messages.back().role == "assistant") {
    body["continue_final_message"] = true;
    body["add_generation_prompt"] = false;
  }
  return body;
}

/// Asks LMDeploy's /v1/chat/interactive for an answer in the server's session, which knows what was
/// said before; `prompt` is a text or, for a session that has just begun, the messages.
[[nodiscard]] inline json::Json interactive_body(json::Json prompt,
                                                 std::int64_t session_id,
                                                 const AnswerSettings& settings,
                                                 std::int64_t max_tokens) {
  json::Json body = {{"prompt", std::move(prompt)},
                     {"session_id", session_id},
                     {"interactive_mode", true},
                     {"stream", true},
                     {"request_output_len", max_tokens}};
  add_settings(body, settings);
  if (settings.temperature == 0.0) {  // that server divides by it
    body["temperature"] = 1.0;
    body["top_k"] = 1;
  }
  return body;
}

/// Ends the answer that the session is at.
[[nodiscard]] inline json::Json interactive_cancel(std::int64_t session_id) {
  return {{"prompt", ""}, {"session_id", session_id}, {"cancel", true}};
}

/// Ends that session.
[[nodiscard]] inline json::Json interactive_end(std::int64_t session_id) {
  return {{"prompt", ""},
          {"session_id", session_id},
          {"interactive_mode", false},
          {"stream", false},
          {"request_output_len", 0}};
}

}  // namespace lmd::apps
