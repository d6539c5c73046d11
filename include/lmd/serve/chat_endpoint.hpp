/// \file  POST /v1/chat/completions.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/serve/api_context.hpp>
#include <lmd/serve/chat_call.hpp>
#include <lmd/serve/chat_prompt.hpp>
#include <lmd/serve/chat_request.hpp>

#include <memory>
#include <string>
#include <utility>
#include <vector>

namespace lmd::serve {

namespace detail {

/// Contents one behind the other: a prompt without a template.
[[nodiscard]] inline std::string raw_prompt(const ChatRequest& chat) {
  std::string prompt;
  for (const text::Message& message : chat.messages)
    prompt += message.content;
  return prompt;
}

/// \throws ApiFailure(kPromptTooLong, kMalformed).
[[nodiscard]] inline std::vector<int> chat_prompt_ids(const ServedModel& model,
                                                      const ChatRequest& chat) {
  if (!chat.input_ids.empty()) return chat.input_ids;
  if (chat.is_raw) return encode_prompt(model, raw_prompt(chat), true);
  std::string prompt;
  try {
    prompt = render_chat(model.chat_template, chat.messages, chat.tools);
  } catch (const Error&) {
    throw refused("The messages have a form that the model's chat template has no place for.");
  }
  // The model is led into the call that it must make; templates with marks of their own write these.
  if (chat.is_call_forced && !has_tool_form(model.chat_template))
    prompt += call_begin(model.chat_template);
  return encode_prompt(model, prompt, true);
}

[[nodiscard]] inline ChatShape chat_shape(const ServedModel& model, const ChatRequest& chat) {
  ChatShape shape;
  shape.shows_logprobs = chat.shows_logprobs;
  shape.shows_ids = chat.answer.return_ids;
  shape.shows_id_logprobs = chat.answer.return_logprobs;
  if (!chat.shows_tools()) return shape;
  shape.tools = tool_markers(model.chat_template);
  shape.is_call_forced = chat.is_call_forced;
  shape.begins_in_call = chat.is_call_forced && !has_tool_form(model.chat_template);
  shape.keeps_first_call_only = !chat.allows_many_calls;
  for (const text::Tool& tool : chat.tools.tools)
    shape.tool_names.push_back(tool.name);
  return shape;
}

}  // namespace detail

/// \throws ApiFailure
[[nodiscard]] inline ApiResult chat_completions(ApiContext& context, const ApiRequest& request) {
  const ServedModel& model = context.model;
  const json::OrderedJson body = read_body(request);
  ChatRequest chat = read_chat_request({body, {"body"}, model.compat}, model);
  if (chat.shows_tools()) chat.answer.skip_special_tokens = false;  // marks of calls are such
  CallPlan plan = make_plan(context, request.client, chat.answer, "chatcmpl-");
  const bool has_room = add_prompt(model, chat.answer, detail::chat_prompt_ids(model, chat), plan);
  if (has_room) context.constraints.apply(model, chat, plan.requests);
  return answered(std::make_unique<ChatCall>(std::move(plan), detail::chat_shape(model, chat)),
                  has_room);
}

}  // namespace lmd::serve
