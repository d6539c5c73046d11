/// \file  Chat messages and tools to a prompt, also for templates that have no form for tools.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/serve/tool_stream.hpp>
#include <lmd/text/chat_template.hpp>

#include <string>
#include <utility>
#include <vector>

namespace lmd::serve {

/// Whether the template says how tools are shown and called: InternLM2's do.
[[nodiscard]] inline bool has_tool_form(const text::ChatTemplate& tmpl) {
  return !tmpl.plugin.empty();
}

/// What stands around the calls of a template's model. Templates without a form of their own get the one that
/// many ChatML models were trained on.
[[nodiscard]] inline ToolMarkers tool_markers(const text::ChatTemplate& tmpl) {
  if (has_tool_form(tmpl)) return {tmpl.call_begin + tmpl.plugin, tmpl.call_end};
  return {"<tool_call>", "</tool_call>"};
}

/// What stands before and behind the JSON of a call, in templates without a form of their own.
[[nodiscard]] inline std::string call_begin(const text::ChatTemplate& tmpl) {
  return tool_markers(tmpl).begin + '\n';
}
[[nodiscard]] inline std::string call_end(const text::ChatTemplate& tmpl) {
  return '\n' + tool_markers(tmpl).end;
}

/// The key of a call's arguments.
[[nodiscard]] inline const char* arguments_key(const text::ChatTemplate& tmpl) {
  return has_tool_form(tmpl) ? "parameters" : "arguments";
}

namespace detail {

/// What a model without a form of its own is told of the tools.
[[nodiscard]] inline std::string described_tools(const text::ToolOptions& options) {
  return "These functions can be called, one JSON object each:\n<tools>\n" +
         text::detail::tools_text(options) +
         "\n</tools>\nTo call one, write its name and its arguments as JSON like this:\n"
         "<tool_call>\n{\"name\": \"the name\", \"arguments\": {\"key\": \"value\"}}\n</tool_call>";
}

/// Calls as a part of the content.
[[nodiscard]] inline text::Message with_calls_as_text(text::Message message,
                                                      const ToolMarkers& markers) {
  for (const text::ToolCall& call : message.tool_calls) {
    if (!message.content.empty()) message.content += '\n';
    message.content += markers.begin + "\n{\"name\": " + text::detail::python_string(call.name) +
                       ", \"arguments\": " +
                       (call.arguments.empty() ? "{}"
                                               : text::detail::python_json(
                                                     call.arguments, "arguments of a tool call")) +
                       "}\n" + markers.end;
  }
  message.tool_calls.clear();
  return message;
}

/// Results, for a template that has no such role.
[[nodiscard]] inline text::Message with_result_as_user(text::Message message) {
  message.role = "user";
  message.content = "<tool_response>\n" + message.content + "\n</tool_response>";
  return message;
}

}  // namespace detail

/// The prompt text of a conversation, as text::render makes it. A template that has no form for tools shows
/// them at the end of the first system message, which is the template's default one where there is none; calls and
/// results become text between `<tool_call>` and `<tool_response>` marks.
/// \throws Error(kConfig) when options.choice names no tool, Error(kFormat) when arguments are no JSON.
[[nodiscard]] inline std::string render_chat(const text::ChatTemplate& tmpl,
                                             std::vector<text::Message> messages,
                                             const text::ToolOptions& options) {
  if (has_tool_form(tmpl) || tmpl.capability == text::Capability::kCompletion)
    return text::render(tmpl, messages, options);
  for (text::Message& message : messages) {
    const bool is_result = message.role == "tool" || message.role == "environment";
    if (is_result && !tmpl.environment) message = detail::with_result_as_user(std::move(message));
    if (!message.tool_calls.empty())
      message = detail::with_calls_as_text(std::move(message), tool_markers(tmpl));
  }
  if (options.tools.empty() || options.choice == "none") return text::render(tmpl, messages);
  if (messages.empty() || messages.front().role != "system") {
    text::Message system;
    system.role = "system";
    system.content = tmpl.meta_instruction.value_or("");
    messages.insert(messages.begin(), std::move(system));
  }
  std::string& system = messages.front().content;
  if (!system.empty()) system += "\n\n";
  system += detail::described_tools(options);
  return text::render(tmpl, messages);
}

}  // namespace lmd::serve
