/// \file  JSON schemas, and any JSON object, as grammars.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/text/grammar.hpp>
#include <lmd/text/grammar_budget.hpp>

#include <memory>
#include <string_view>

namespace lmd::text {

/// JSON texts that satisfy a schema.
///
/// Errors:  \throws Error(kConfig) naming the keyword that cannot be enforced, never text of the schema.
[[nodiscard]] std::shared_ptr<const Grammar> compile_json_schema(std::string_view schema_text,
                                                                 const GrammarBudget& budget = {});

/// Any JSON object, nested at most `budget.answer_depth` deep.
[[nodiscard]] std::shared_ptr<const Grammar> compile_json_object(const GrammarBudget& budget = {});

}  // namespace lmd::text
