/// \file  Regular expressions as grammars.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/text/grammar.hpp>
#include <lmd/text/grammar_budget.hpp>

#include <memory>
#include <string_view>

namespace lmd::text {

/// The texts that match `pattern` as a whole.
///
/// Errors:  \throws Error(kConfig) naming what is not supported or not well formed, never the pattern.
[[nodiscard]] std::shared_ptr<const Grammar> compile_regex(std::string_view pattern,
                                                           const GrammarBudget& budget = {});

}  // namespace lmd::text
