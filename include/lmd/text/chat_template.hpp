/// \file  Chat messages to one prompt text, by a template that is data.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/core/error.hpp>
#include <lmd/text/python_json.hpp>

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace lmd::text {

/// A function call that the assistant made.
struct ToolCall {
  std::string name;
  std::string arguments;  ///< JSON text of an object; empty counts as {}
};

struct Message {
  std::string role;  ///< system, user, assistant, environment or tool
  std::string content;
  std::string name;  ///< plugin and interpreter change the header; others do nothing
  std::vector<ToolCall> tool_calls;  ///< of an assistant
};

/// A function that the model may call.
struct Tool {
  std::string name;
  std::optional<std::string> description;
  std::optional<std::string> parameters;  ///< JSON text: a JSON schema
};

struct ToolOptions {
  std::vector<Tool> tools;
  /// "none" leaves the tools out, "auto" and "required" show all, a name shows that function alone.
  std::string choice = "auto";
};

enum class Capability : std::uint8_t {
  kChat,
  kCompletion,  ///< contents are the prompt as they are
};

/// What stands before and after each kind of message.
///
///   {system}{meta_instruction}{eosys}      when the first message is no system message
///   {system}text{eosys}  {user}text{eoh}  {assistant}text{eoa}{separator}  {environment}text{eoenv}
///   {assistant}                            here the model goes on
///
/// No template contains BOS: it is an id, put in front by EncodeOptions::add_bos where
/// Tokenizer::adds_bos() says so.
struct ChatTemplate {
  std::string name;
  std::string system;
  std::string eosys;
  std::string user;
  std::string eoh;
  std::string assistant;
  std::string eoa;
  std::string separator;
  /// None: no system block unless the messages have one. An empty text gives an empty block.
  std::optional<std::string> meta_instruction;
  /// None: roles environment and tool are refused.
  std::optional<std::string> environment;
  std::string eoenv;
  std::string plugin;       ///< the token that marks tools; empty: tools are refused
  std::string interpreter;  ///< the token that marks code
  std::string call_begin;   ///< before a tool call, the plugin token not included
  std::string call_end;
  std::vector<std::string> stop_words;
  Capability capability = Capability::kChat;
};

namespace detail {

/// A message's beginning and end.
struct Frame {
  std::string begin;
  std::string end;
};

/// \throws Error(kConfig) when the template has no such role.
[[nodiscard]] inline Frame frame_of(const ChatTemplate& tmpl, std::string_view role) {
  if (role == "system") return {tmpl.system, tmpl.eosys};
  if (role == "user") return {tmpl.user, tmpl.eoh};
  if (role == "assistant") return {tmpl.assistant, tmpl.eoa + tmpl.separator};
  const bool is_environment = role == "environment" || role == "tool";
  LMD_REQUIRE(is_environment && tmpl.environment, ErrorCode::kConfig,
              "role \"" + std::string(role) + "\" is not known to chat template " + tmpl.name +
                  "; known: system, user, assistant" +
                  (tmpl.environment ? ", environment, tool" : ""));
  return {*tmpl.environment, tmpl.eoenv};
}

/// `<|im_start|>system\n` -> `<|im_start|>system name=<|plugin|>\n`
[[nodiscard]] inline std::string with_name(std::string begin, const std::string& token) {
  while (!begin.empty() && (begin.back() == '\n' || begin.back() == ' '))
    begin.pop_back();
  return begin + " name=" + token + "\n";
}

[[nodiscard]] inline std::string call_text(const ChatTemplate& tmpl, const ToolCall& call) {
  LMD_REQUIRE(!tmpl.plugin.empty(), ErrorCode::kConfig,
              "chat template " + tmpl.name + " has no form for tool calls");
  const std::string arguments =
      call.arguments.empty() ? "{}"
                             : python_json(call.arguments, "arguments of tool call " + call.name);
  return tmpl.call_begin + tmpl.plugin + "\n{\"name\": " + python_string(call.name) +
         ", \"parameters\": " + arguments + "}" + tmpl.call_end;
}

[[nodiscard]] inline std::string message_text(const ChatTemplate& tmpl, const Message& message) {
  if (tmpl.capability == Capability::kCompletion) return message.content;
  Frame frame = frame_of(tmpl, message.role);
  const bool is_plugin = message.name == "plugin" && !tmpl.plugin.empty();
  const bool is_interpreter = message.name == "interpreter" && !tmpl.interpreter.empty();
  if (is_plugin) frame.begin = with_name(frame.begin, tmpl.plugin);
  if (is_interpreter) frame.begin = with_name(frame.begin, tmpl.interpreter);
  std::string text = frame.begin + message.content;
  for (const ToolCall& call : message.tool_calls)
    text += call_text(tmpl, call);
  return text + frame.end;
}

/// The tools as the content of a system message, empty when none are shown.
/// \throws Error(kConfig) when `choice` names no tool.
[[nodiscard]] inline std::string tools_text(const ToolOptions& options) {
  if (options.tools.empty() || options.choice == "none") return {};
  const bool is_named = options.choice != "auto" && options.choice != "required";
  std::string text;
  for (const Tool& tool : options.tools) {
    if (is_named && tool.name != options.choice) continue;
    const std::string parameters =
        tool.parameters ? python_json(*tool.parameters, "parameters of tool " + tool.name) : "null";
    text += text.empty() ? "[" : ", ";
    text += "{\"description\": " + (tool.description ? python_string(*tool.description) : "null") +
            ", \"name\": " + python_string(tool.name) + ", \"parameters\": " + parameters + "}";
  }
  LMD_REQUIRE(!text.empty(), ErrorCode::kConfig,
              "tool_choice is \"" + options.choice +
                  "\", expected none, auto, required or the name of one of the tools");
  return text + "]";
}

}  // namespace detail

/// The prompt text of a conversation.
///
/// The default system text is used when the first message is no system message. Tools become a
/// system message named plugin behind the first system message. When the last message is the
/// assistant's, its end is left out and the model goes on with that text; else the assistant's
/// header comes last.
/// \throws Error(kConfig) for a role, a tool choice or tools that the template has no form for,
///         Error(kFormat) when arguments or parameters are no JSON.
[[nodiscard]] inline std::string render(const ChatTemplate& tmpl,
                                        std::span<const Message> messages,
                                        const ToolOptions& options = {}) {
  const bool is_chat = tmpl.capability == Capability::kChat;
  const bool begins_with_system = !messages.empty() && messages[0].role == "system";
  const std::string tools = is_chat ? detail::tools_text(options) : std::string();
  LMD_REQUIRE(tools.empty() || !tmpl.plugin.empty(), ErrorCode::kConfig,
              "chat template " + tmpl.name + " has no form for tools; internlm2 has");
  std::string text;
  if (is_chat && !messages.empty() && !begins_with_system && tmpl.meta_instruction) {
    text += tmpl.system + *tmpl.meta_instruction + tmpl.eosys;
  }
  const Message tools_message = {
      .role = "system", .content = tools, .name = "plugin", .tool_calls = {}};
  if (!tools.empty() && !begins_with_system) text += detail::message_text(tmpl, tools_message);
  for (std::size_t i = 0; i < messages.size(); ++i) {
    text += detail::message_text(tmpl, messages[i]);
    if (i == 0 && begins_with_system && !tools.empty()) {
      text += detail::message_text(tmpl, tools_message);
    }
  }
  if (!is_chat) return text;
  if (messages.empty() || messages.back().role != "assistant") return text + tmpl.assistant;
  text.resize(text.size() - tmpl.eoa.size() - tmpl.separator.size());
  return text;
}

}  // namespace lmd::text
