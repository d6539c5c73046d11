/// \file  POST /v1/encode, /tokenize and /detokenize: the tokenizer alone.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/serve/api_context.hpp>
#include <lmd/serve/chat_prompt.hpp>
#include <lmd/serve/chat_request.hpp>

#include <string>
#include <utility>
#include <vector>

namespace lmd::serve {

namespace detail {

/// A text as a user's message of the chat template.
[[nodiscard]] inline std::string as_chat(const ServedModel& model, const std::string& text) {
  text::Message message;
  message.role = "user";
  message.content = text;
  return text::render(model.chat_template, std::vector{std::move(message)});
}

/// A model may be named; it must be served then.
inline void check_optional_model(const Fields& fields, const ServedModel& model) {
  const std::string* name = fields.string("model");
  if (name != nullptr && !model.has_name(*name)) throw ApiFailure(unknown_model(*name));
}

}  // namespace detail

/// `{"input":"text"}` -> `{"input_ids":[...],"length":n}`; of a list, lists of both.
/// \throws ApiFailure
[[nodiscard]] inline ApiResult encode_text(ApiContext& context, const ApiRequest& request) {
  const ServedModel& model = context.model;
  const json::OrderedJson body = read_body(request);
  const Fields fields(body, {"body"}, model.compat);
  const bool is_chat = fields.boolean_or("do_preprocess", false);
  const bool adds_bos = fields.boolean_or("add_bos", true);
  std::string ids;
  std::string lengths;
  const auto add = [&](const std::string& text) {
    const std::vector<int> found =
        encode_prompt(model, is_chat ? detail::as_chat(model, text) : text, adds_bos);
    if (!ids.empty()) ids += ',', lengths += ',';
    append_json_integers(ids, found);
    append_json_integer(lengths, found.size());
  };
  HttpReply reply;
  if (fields.at("input").is_array()) {
    const json::OrderedJson& inputs = fields.array("input", kMaxPrompts);
    for (std::size_t i = 0; i < inputs.size(); ++i) {
      Location location = fields.location("input");
      location.push_back(std::to_string(i));
      if (!inputs[i].is_string()) throw malformed(location, "string_type", "expected a string");
      add(inputs[i].get_ref<const std::string&>());
    }
    reply.body = R"({"input_ids":[)" + ids + R"(],"length":[)" + lengths + "]}";
  } else {
    add(fields.required_string("input"));
    reply.body = R"({"input_ids":)" + ids + R"(,"length":)" + lengths + '}';
  }
  return reply;
}

/// `{"prompt":"text"}` or `{"messages":[...]}` -> `{"count":n,"max_model_len":m,"tokens":[...]}`.
/// \throws ApiFailure
[[nodiscard]] inline ApiResult tokenize(ApiContext& context, const ApiRequest& request) {
  const ServedModel& model = context.model;
  const json::OrderedJson body = read_body(request);
  const Fields fields(body, {"body"}, model.compat);
  detail::check_optional_model(fields, model);
  const bool adds_bos = fields.boolean_or("add_special_tokens", true);
  if (fields.has("prompt") && fields.has("messages"))
    throw refused("Either prompt or messages must be given.");
  std::vector<int> ids;
  if (fields.has("messages")) {
    ChatRequest chat;
    detail::read_messages(fields, model, chat);
    ids = encode_prompt(model, render_chat(model.chat_template, chat.messages, {}), adds_bos);
  } else {
    ids = encode_prompt(model, fields.required_string("prompt"), adds_bos);
  }
  HttpReply reply;
  reply.body = R"({"count":)" + std::to_string(ids.size()) + R"(,"max_model_len":)" +
               std::to_string(model.session_len) + R"(,"tokens":)";
  append_json_integers(reply.body, ids);
  reply.body += '}';
  return reply;
}

/// `{"tokens":[...]}` -> `{"prompt":"text"}`, special tokens by their names.
/// \throws ApiFailure
[[nodiscard]] inline ApiResult detokenize(ApiContext& context, const ApiRequest& request) {
  const ServedModel& model = context.model;
  const json::OrderedJson body = read_body(request);
  const Fields fields(body, {"body"}, model.compat);
  detail::check_optional_model(fields, model);
  const std::vector<int> ids = fields.ids("tokens", model.vocab_size, kMaxIds);
  HttpReply reply;
  reply.body = R"({"prompt":)" + json_string(model.tokenizer->decode(ids, false)) + '}';
  return reply;
}

}  // namespace lmd::serve
