/// \file  Function calls that a model must make, as grammars.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/text/chat_template.hpp>
#include <lmd/text/grammar.hpp>
#include <lmd/text/grammar_budget.hpp>
#include <lmd/text/tokenizer.hpp>

#include <memory>
#include <span>

namespace lmd::text {

/// What an answer that must call functions looks like.
struct ToolCallForm {
  const ChatTemplate& chat_template;
  const Tokenizer&
      tokenizer;      ///< of the same model; names of the template that are tokens stand as tokens
  int max_calls = 1;  ///< more than 1: parallel tool calls
};

/// One to `max_calls` calls of any of `tools`, whose parameters satisfy the tools' schemas, and nothing else.
///
///   templates with a plugin token:  {call_begin}{plugin}\n{"name": ..., "parameters": {...}}{call_end}
///   others:                         {"name": ..., "parameters": {...}}, calls separated by a newline
///
/// A tool without parameters takes any object. For a named function give that tool alone.
/// Errors:  \throws Error(kConfig) as compile_json_schema does, and when there are no tools.
[[nodiscard]] std::shared_ptr<const Grammar> compile_tool_calls(std::span<const Tool> tools,
                                                                const ToolCallForm& form,
                                                                const GrammarBudget& budget = {});

}  // namespace lmd::text
