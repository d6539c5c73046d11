/// \file  What holds an answer to a form: grammars of response formats and of calls that must be made.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/serve/chat_prompt.hpp>
#include <lmd/serve/chat_request.hpp>
#include <lmd/serve/grammar_constraint.hpp>
#include <lmd/text/grammar_cache.hpp>
#include <lmd/text/json_schema_grammar.hpp>
#include <lmd/text/regex_grammar.hpp>
#include <lmd/text/tool_call_grammar.hpp>

#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace lmd::serve {

namespace detail {

/// Gives types the names of JSON schema where a tool has Python's, as those of LMDeploy's examples do. Values that
/// are data, not schemas, stay.
inline void rename_types(json::OrderedJson& schema) {
  constexpr std::pair<const char*, const char*> kNames[] = {{"int", "integer"}, {"float", "number"},
                                                            {"str", "string"},  {"bool", "boolean"},
                                                            {"list", "array"},  {"dict", "object"}};
  for (auto at = schema.begin(); at != schema.end(); ++at) {
    const std::string key = schema.is_object() ? at.key() : std::string();
    if (key == "enum" || key == "const" || key == "default" || key == "examples") continue;
    if (at->is_structured()) rename_types(*at);
    if (key != "type" || !at->is_string()) continue;
    for (const auto& [python, standard] : kNames)
      if (*at == python) *at = standard;
  }
}

/// The tool as grammars take it.
[[nodiscard]] inline text::Tool with_standard_types(text::Tool tool) {
  if (!tool.parameters) return tool;
  json::OrderedJson schema = json::parse_bounded(*tool.parameters);
  rename_types(schema);
  tool.parameters = json::to_text(schema);
  return tool;
}

}  // namespace detail

/// Grammars of one model, the last used kept compiled. May be used from many threads.
class Constraints {
 public:
  /// \pre `model.tokenizer` outlives the object
  explicit Constraints(const ServedModel& model)
      : cache_(std::make_shared<const text::TokenTrie>(*model.tokenizer)) {}

  /// Gives every request a constraint of its own, where the chat asks for one.
  /// \throws ApiFailure(kOutOfRange) for a format that cannot be enforced.
  void apply(const ServedModel& model,
             const ChatRequest& chat,
             std::span<engine::Request> requests) {
    try {
      const std::shared_ptr<text::TokenMasks> masks = masks_of(model, chat);
      if (masks == nullptr) return;
      for (engine::Request& request : requests) {
        request.constraint =
            std::make_shared<GrammarConstraint>(masks, request.stop_ids, model.vocab_size);
      }
    } catch (const Error& e) {
      // Grammars name keywords and limits, never text of the request.
      throw refused("The answer cannot be held to the form: " + std::string(e.what()) + '.');
    }
  }

 private:
  /// Of a function that is not named: one model's answer may hold so many.
  static constexpr int kMaxForcedCalls = 4;

  [[nodiscard]] std::shared_ptr<text::TokenMasks> masks_of(const ServedModel& model,
                                                           const ChatRequest& chat) {
    using Kind = ResponseFormat::Kind;
    if (chat.is_call_forced) return call_masks(model, chat);
    const std::string& source = chat.format.source;
    switch (chat.format.kind) {
      case Kind::kJsonObject:
        return cache_.get("object", [] { return text::compile_json_object(); });
      case Kind::kJsonSchema:
        return cache_.get("schema " + source, [&] { return text::compile_json_schema(source); });
      case Kind::kRegex:
        return cache_.get("regex " + source, [&] { return text::compile_regex(source); });
      case Kind::kText:
        break;
    }
    return nullptr;
  }

  [[nodiscard]] std::shared_ptr<text::TokenMasks> call_masks(const ServedModel& model,
                                                             const ChatRequest& chat) {
    std::vector<text::Tool> tools;
    for (const text::Tool& tool : chat.tools.tools)
      if (chat.tools.choice == "required" || chat.tools.choice == tool.name)
        tools.push_back(detail::with_standard_types(tool));
    const bool is_named = chat.tools.choice != "required";
    const text::ToolCallForm form{
        .chat_template = model.chat_template,
        .tokenizer = *model.tokenizer,
        .max_calls = is_named || !chat.allows_many_calls ? 1 : kMaxForcedCalls,
        .begin = call_begin(model.chat_template),
        .end = call_end(model.chat_template)};
    std::string key = "calls " + std::to_string(form.max_calls);
    for (const text::Tool& tool : tools)
      key += '\n' + text::detail::python_string(tool.name) + tool.parameters.value_or("");
    return cache_.get(key, [&] { return text::compile_tool_calls(tools, form); });
  }

  text::GrammarCache cache_;
};

}  // namespace lmd::serve
