/// \file  POST /v1/chat/interactive: conversations that the server remembers.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/serve/api_context.hpp>
#include <lmd/serve/chat_prompt.hpp>
#include <lmd/serve/chat_request.hpp>
#include <lmd/serve/interactive_call.hpp>

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

namespace lmd::serve {

namespace detail {

struct InteractiveRequest {
  std::vector<text::Message> messages;  ///< none: nothing is said
  bool is_kept = false;                 ///< the session goes on
  bool is_cancel = false;
  AnswerOptions answer = {};
};

/// \throws ApiFailure for the first field that is wrong.
[[nodiscard]] inline InteractiveRequest read_interactive_request(const Fields& fields,
                                                                 const ServedModel& model) {
  InteractiveRequest request;
  request.answer = read_answer_options(fields, kInteractive, model);
  request.is_kept = fields.boolean_or("interactive_mode", false);
  request.is_cancel = fields.boolean_or("cancel", false);
  request.answer.max_new_tokens =
      to_int(fields.integer(limit_of("request_output_len", kInteractive)));
  fields.refuse_unless_empty("image_url", ": the model takes text alone");
  fields.refuse_unless_empty("adapter_name", ": there are no adapters");
  if (fields.at("prompt").is_array()) {
    const json::OrderedJson& messages = fields.array("prompt", kMaxMessages);
    for (std::size_t i = 0; i < messages.size(); ++i) {
      Location location = fields.location("prompt");
      location.push_back(std::to_string(i));
      request.messages.push_back(
          read_message({messages[i], std::move(location), fields.compat()}, model));
    }
  } else if (const std::string& text = fields.required_string("prompt"); !text.empty()) {
    text::Message message;
    message.role = "user";
    message.content = text;
    request.messages.push_back(std::move(message));
  }
  return request;
}

/// What a turn adds to a session: behind an answer, its end comes first.
[[nodiscard]] inline std::string turn_text(text::ChatTemplate tmpl,
                                           std::vector<text::Message> messages,
                                           bool is_first) {
  if (is_first) return render_chat(tmpl, std::move(messages), {});
  tmpl.meta_instruction.reset();
  const std::string end_of_answer = tmpl.eoa + tmpl.separator;
  return end_of_answer + render_chat(tmpl, std::move(messages), {});
}

[[nodiscard]] inline HttpReply turn_without_answer(std::size_t n_history, const char* finish) {
  HttpReply reply;
  append_turn(reply.body, {}, {}, n_history, finish);
  return reply;
}

}  // namespace detail

/// \throws ApiFailure
[[nodiscard]] inline ApiResult chat_interactive(ApiContext& context, const ApiRequest& request) {
  const ServedModel& model = context.model;
  const json::OrderedJson body = read_body(request);
  detail::InteractiveRequest turn =
      detail::read_interactive_request({body, {"body"}, model.compat}, model);
  const SessionKey session{request.client, turn.answer.session_id};
  if (turn.is_cancel) return detail::turn_without_answer(context.sessions.cancel(session), nullptr);
  const int longest = turn.answer.max_new_tokens.value_or(1);
  if (turn.messages.empty() && longest == 0 && !turn.is_kept)
    return detail::turn_without_answer(context.sessions.end(session), "stop");
  if (turn.messages.empty()) throw refused("The prompt must not be empty.");
  if (longest == 0) throw refused("An answer needs a request_output_len of 1 or more.");

  CallPlan plan = make_plan(context, request.client, turn.answer, "");
  std::vector<int> ids;
  if (plan.lease != nullptr) ids = plan.lease->session().ids;
  const bool is_first = ids.empty();
  if (plan.lease != nullptr) plan.lease->keep(!is_first);  // without an answer all stays as it was
  const std::string text =
      detail::turn_text(model.chat_template, std::move(turn.messages), is_first);
  SessionTurn said{ids.size(), encode_prompt(model, text, is_first), turn.is_kept};
  ids.insert(ids.end(), said.added.begin(), said.added.end());
  const bool has_room = add_prompt(model, turn.answer, ids, plan);
  plan.n_prompt_tokens = static_cast<int>(said.added.size());
  if (!has_room) said.added.clear();
  return answered(std::make_unique<InteractiveCall>(std::move(plan), std::move(said)), has_room);
}

}  // namespace lmd::serve
