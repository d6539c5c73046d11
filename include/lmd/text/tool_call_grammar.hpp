/// \file  Function calls that a model must make, as grammars.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/core/error.hpp>
#include <lmd/text/chat_template.hpp>
#include <lmd/text/grammar.hpp>
#include <lmd/text/grammar_budget.hpp>
#include <lmd/text/grammar_builder.hpp>
#include <lmd/text/json_grammar.hpp>
#include <lmd/text/json_schema_grammar.hpp>
#include <lmd/text/tokenizer.hpp>

#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace lmd::text {

/// What an answer that must call functions looks like.
struct ToolCallForm {
  const ChatTemplate& chat_template;
  const Tokenizer&
      tokenizer;      ///< of the same model; names of the template that are tokens stand as tokens
  int max_calls = 1;  ///< more than 1: parallel tool calls
  std::string begin = "<tool_call>\n";  ///< of a call, where the template has no plugin token ...
  std::string end = "\n</tool_call>";   ///< ... and behind it
};

namespace detail {

/// A name of the template: the token of that name, else its text.
[[nodiscard]] inline GrammarBuilder::Expr mark(GrammarBuilder& builder,
                                               const Tokenizer& tokenizer,
                                               const std::string& name) {
  const auto id = tokenizer.id_of(name);
  return id && tokenizer.is_special(*id) ? builder.token(*id) : builder.text(name);
}

/// `{"name": NAME, "parameters": {...}}`
[[nodiscard]] inline GrammarBuilder::Expr tool_call_object(JsonGrammar& json, const Tool& tool) {
  GrammarBuilder& builder = json.builder();
  GrammarBuilder::Expr parameters = {};
  if (tool.parameters) {
    const json::OrderedJson schema = parse_schema(*tool.parameters, builder.meter());
    parameters = JsonSchemaCompiler(json, schema).compile_object();
  } else {
    parameters = json.object();
  }
  return builder.sequence({builder.text("{\"name\""), json.colon(), json.literal(tool.name),
                           json.comma(), builder.text("\"parameters\""), json.colon(), parameters,
                           builder.text("}")});
}

}  // namespace detail

/// One to `max_calls` calls of any of `tools`, whose parameters satisfy the tools' schemas, and nothing else.
///
///   templates with a plugin token:  {call_begin}{plugin}\n{"name": ..., "parameters": {...}}{call_end}
///   others:                         {"name": ..., "parameters": {...}}{end}\n{begin}{"name": ..., ...}{end}
///
/// The prompt of others ends with the first {begin}. Their answer may end behind the first call's JSON, and must where
/// max_calls is 1: a model that closes the call as it was shown need not go on with another.
/// A tool without parameters takes any object. For a named function give that tool alone.
/// Errors:  \throws Error(kConfig) as compile_json_schema does, and when there are no tools or a name is no UTF-8.
[[nodiscard]] inline std::shared_ptr<const Grammar> compile_tool_calls(
    std::span<const Tool> tools, const ToolCallForm& form, const GrammarBudget& budget = {}) {
  LMD_REQUIRE(!tools.empty(), ErrorCode::kConfig, "grammar: there are no tools to call");
  LMD_REQUIRE(form.max_calls >= 1 && form.max_calls <= budget.repeat, ErrorCode::kConfig,
              "grammar: " + std::to_string(form.max_calls) + " tool calls, expected 1 to " +
                  std::to_string(budget.repeat));
  detail::GrammarMeter meter(budget);
  detail::GrammarBuilder builder(meter);
  detail::JsonGrammar json(builder);
  std::vector<detail::GrammarBuilder::Expr> objects;
  for (const Tool& tool : tools) {
    LMD_REQUIRE(detail::is_utf8(tool.name), ErrorCode::kConfig,
                "grammar: a tool's name is no UTF-8");
    objects.push_back(detail::tool_call_object(json, tool));
  }
  const auto object = builder.choice(std::move(objects));
  const ChatTemplate& tmpl = form.chat_template;
  const int n_more = form.max_calls - 1;
  if (tmpl.plugin.empty()) {
    if (n_more == 0) return builder.finish(object);
    const auto end = builder.text(form.end);
    const auto next = builder.sequence({builder.text('\n' + form.begin), object, end});
    const auto rest = builder.sequence({end, builder.repeat(next, 0, n_more)});
    return builder.finish(builder.sequence({object, builder.repeat(rest, 0, 1)}));
  }
  const auto call =
      builder.sequence({detail::mark(builder, form.tokenizer, tmpl.call_begin),
                        detail::mark(builder, form.tokenizer, tmpl.plugin), builder.text("\n"),
                        object, detail::mark(builder, form.tokenizer, tmpl.call_end)});
  return builder.finish(builder.sequence({call, builder.repeat(call, 0, n_more)}));
}

}  // namespace lmd::text
