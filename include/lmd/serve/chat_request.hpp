/// \file  The body of /v1/chat/completions: messages, tools, response formats.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/serve/answer_options.hpp>
#include <lmd/serve/content.hpp>
#include <lmd/text/chat_template.hpp>

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

namespace lmd::serve {

/// What an answer is held to.
struct ResponseFormat {
  enum class Kind { kText, kJsonObject, kJsonSchema, kRegex };
  Kind kind = Kind::kText;
  std::string source = {};  ///< the schema, or the regex
};

struct ChatRequest {
  std::vector<text::Message> messages;
  bool is_raw = false;           ///< the messages' contents are the prompt, without a template
  std::vector<int> input_ids;    ///< the prompt, when there are no messages
  text::ToolOptions tools = {};  ///< as text::render takes them
  bool is_call_forced = false;   ///< tool_choice is required, or names a function
  bool allows_many_calls = true;
  bool shows_logprobs = false;
  ResponseFormat format = {};
  AnswerOptions answer = {};

  /// Whether the model is told of tools and may call them.
  [[nodiscard]] bool shows_tools() const {
    return !tools.tools.empty() && tools.choice != "none" && !is_raw && input_ids.empty();
  }
};

namespace detail {

/// \throws ApiFailure when `role` is none of them. `developer` is what newer clients call the system.
[[nodiscard]] inline std::string read_role(const Fields& message) {
  const std::string& role = message.required_string("role");
  if (role == "developer") return "system";
  for (const char* known : {"system", "user", "assistant", "environment", "tool"})
    if (role == known) return role;
  throw malformed(message.location("role"), "literal_error",
                  "expected system, user, assistant, tool or environment");
}

[[nodiscard]] inline text::ToolCall read_tool_call(const Fields& call) {
  const Fields function = call.object("function");
  text::ToolCall result;
  result.name = function.required_string("name");
  const json::OrderedJson* arguments = function.find("arguments");
  if (arguments == nullptr) return result;
  const Location location = function.location("arguments");
  result.arguments = arguments->is_string() ? arguments->get<std::string>() : arguments->dump();
  if (trimmed(result.arguments).empty()) result.arguments.clear();
  if (result.arguments.empty()) return result;
  try {
    if (json::parse_bounded(result.arguments).is_object()) return result;
  } catch (const Error&) {
    // The same answer as for JSON of another kind.
  }
  throw malformed(location, "json_invalid", "expected the JSON text of an object");
}

[[nodiscard]] inline text::Message read_message(const Fields& fields, const ServedModel& model) {
  text::Message message;
  message.role = read_role(fields);
  message.name = fields.string_or("name", "");
  message.content = read_content(fields, "content", model);
  if (message.role == "tool") message.name = "plugin";
  if (message.role != "assistant" || !fields.has("tool_calls")) return message;
  const json::OrderedJson& calls = fields.array("tool_calls", kMaxTools);
  for (std::size_t i = 0; i < calls.size(); ++i) {
    Location location = fields.location("tool_calls");
    location.push_back(std::to_string(i));
    message.tool_calls.push_back(read_tool_call({calls[i], std::move(location), fields.compat()}));
  }
  return message;
}

/// LMDeploy 0.5.3 took a string for a prompt without a template. A prompt of ids needs no messages.
inline void read_messages(const Fields& fields, const ServedModel& model, ChatRequest& request) {
  if (!fields.has("messages") && fields.has("input_ids")) return;
  const json::OrderedJson& value = fields.at("messages");
  if (value.is_string() && fields.compat() == ApiCompat::k05) {
    request.is_raw = true;
    text::Message message;
    message.content = value.get<std::string>();
    request.messages.push_back(std::move(message));
    return;
  }
  const json::OrderedJson& messages = fields.array("messages", kMaxMessages);
  for (std::size_t i = 0; i < messages.size(); ++i) {
    Location location = fields.location("messages");
    location.push_back(std::to_string(i));
    request.messages.push_back(
        read_message({messages[i], std::move(location), fields.compat()}, model));
  }
  if (fields.compat() == ApiCompat::k05) request.is_raw = !fields.boolean_or("do_preprocess", true);
}

[[nodiscard]] inline text::Tool read_tool(const Fields& tool) {
  // LMDeploy took bare functions, too: those have a name beside.
  const bool is_wrapped = tool.has("function") || !tool.has("name");
  if (is_wrapped && tool.string_or("type", "function") != "function")
    throw malformed(tool.location("type"), "literal_error", "expected function");
  const Fields function = is_wrapped ? tool.object("function") : tool;
  text::Tool result;
  result.name = function.required_string("name");
  const bool is_name = !result.name.empty() && result.name.size() <= kMaxToolName &&
                       std::ranges::all_of(result.name, [](char c) {
                         const auto byte = static_cast<unsigned char>(c);
                         return byte > 0x20 && byte != 0x7F && c != '"' && c != '\\';
                       });
  if (!is_name) {
    throw malformed(function.location("name"), "string_pattern_mismatch",
                    "expected 1 to " + std::to_string(kMaxToolName) +
                        " bytes without white space, quotes or backslashes");
  }
  if (const std::string* text = function.string("description")) result.description = *text;
  if (!function.has("parameters")) return result;
  result.parameters = function.object("parameters").value().dump();
  if (result.parameters->size() > kMaxSchemaBytes) {
    throw malformed(function.location("parameters"), "too_long",
                    "expected at most " + std::to_string(kMaxSchemaBytes) + " bytes");
  }
  return result;
}

/// none, auto, required, or the name of a function.
inline void read_tool_choice(const Fields& fields, ChatRequest& request) {
  const json::OrderedJson* value = fields.find("tool_choice");
  if (value == nullptr) return;
  const bool has_tools = !request.tools.tools.empty();
  if (value->is_string()) {
    const auto& word = value->get_ref<const std::string&>();
    if (word != "none" && word != "auto" && word != "required") {
      throw malformed(fields.location("tool_choice"), "literal_error",
                      "expected none, auto, required or an object that names a function");
    }
    request.tools.choice = word;
    request.is_call_forced = word == "required";
  } else {
    const Fields function = fields.object("tool_choice").object("function");
    const std::string& name = function.required_string("name");
    const bool is_known = std::ranges::any_of(
        request.tools.tools, [&](const text::Tool& tool) { return tool.name == name; });
    if (has_tools && !is_known) throw refused("The tool_choice names a function that tools lacks.");
    request.tools.choice = name;
    request.is_call_forced = true;
  }
  if (request.is_call_forced && !has_tools)
    throw refused("The tool_choice needs tools to choose from.");
}

inline void read_tools(const Fields& fields, ChatRequest& request) {
  if (fields.has("tools")) {
    const json::OrderedJson& tools = fields.array("tools", kMaxTools);
    for (std::size_t i = 0; i < tools.size(); ++i) {
      Location location = fields.location("tools");
      location.push_back(std::to_string(i));
      text::Tool tool = read_tool({tools[i], location, fields.compat()});
      const auto is_same = [&](const text::Tool& other) { return other.name == tool.name; };
      if (std::ranges::any_of(request.tools.tools, is_same))
        throw malformed(std::move(location), "value_error", "has the name of a tool before it");
      request.tools.tools.push_back(std::move(tool));
    }
  }
  read_tool_choice(fields, request);
  request.allows_many_calls = fields.boolean_or("parallel_tool_calls", true);
}

[[nodiscard]] inline ResponseFormat read_response_format(const Fields& fields) {
  using Kind = ResponseFormat::Kind;
  if (!fields.has("response_format")) return {};
  const Fields format = fields.object("response_format");
  const std::string& type = format.required_string("type");
  if (type == "text") return {};
  if (type == "json_object") return {.kind = Kind::kJsonObject};
  if (type == "regex_schema") {
    return {.kind = Kind::kRegex, .source = format.required_string("regex_schema")};
  }
  if (type != "json_schema") {
    throw malformed(format.location("type"), "literal_error",
                    "expected text, json_object, json_schema or regex_schema");
  }
  const Fields outer = format.object("json_schema");
  (void)outer.string("name");
  (void)outer.boolean_or("strict", true);
  const json::OrderedJson& schema = outer.at("schema");
  if (!schema.is_object() && !schema.is_boolean())
    throw malformed(outer.location("schema"), "dict_type", "expected an object");
  return {.kind = Kind::kJsonSchema, .source = schema.dump()};
}

/// Models here do not reason aloud: fields that turn that off are taken, others refused by name.
inline void refuse_reasoning(const Fields& fields) {
  const std::string* effort = fields.string("reasoning_effort");
  if (effort != nullptr && *effort != "none")
    throw refused("The reasoning_effort can be none alone: the model does not reason aloud.");
  if (fields.boolean_or("enable_thinking", false))
    throw refused("The enable_thinking can be false alone: the model does not reason aloud.");
  if (!fields.has("chat_template_kwargs")) return;
  const Fields kwargs = fields.object("chat_template_kwargs");
  for (const auto& [key, value] : kwargs.value().items()) {
    const bool is_off = (key == "enable_thinking" || key == "thinking") && value == false;
    if (!is_off && !value.is_null())
      throw refused("The chat_template_kwargs can turn thinking off, nothing else.");
  }
}

inline void read_chat_logprobs(const Fields& fields, ChatRequest& request) {
  const auto n_top = fields.integer(limit_of("top_logprobs", kChat));
  request.shows_logprobs = fields.boolean_or("logprobs", false);
  if (request.shows_logprobs) {
    request.answer.n_logprobs = static_cast<int>(n_top.value_or(0));
  } else if (n_top.value_or(0) > 0) {
    throw refused("The top_logprobs needs logprobs to be true.");
  }
}

}  // namespace detail

/// \throws ApiFailure for the first field that is wrong.
[[nodiscard]] inline ChatRequest read_chat_request(const Fields& fields, const ServedModel& model) {
  ChatRequest request;
  const std::string& name = fields.required_string("model");
  if (!model.has_name(name)) throw ApiFailure(unknown_model(name));
  request.answer = read_answer_options(fields, kChat, model);
  detail::read_messages(fields, model, request);
  detail::read_tools(fields, request);
  request.format = detail::read_response_format(fields);
  detail::read_chat_logprobs(fields, request);
  detail::refuse_reasoning(fields);
  if (fields.has("input_ids")) {
    request.input_ids = fields.ids("input_ids", model.vocab_size, kMaxIds);
  }
  const bool is_held = request.format.kind != ResponseFormat::Kind::kText;
  if (is_held && request.shows_tools())
    throw refused("The response_format cannot be combined with tools that may be called.");
  if (request.is_call_forced && !request.shows_tools())
    throw refused(
        "The tool_choice needs messages: a prompt of ids or without a template shows no tools.");
  if ((is_held || request.is_call_forced) && request.answer.ignore_eos)
    throw refused("The ignore_eos cannot be combined with an answer that is held to a form.");
  if (request.messages.empty() == request.input_ids.empty())
    throw refused("Either messages or input_ids must be given.");
  return request;
}

}  // namespace lmd::serve
