/// \file  One of a list of texts as a grammar.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/text/grammar.hpp>
#include <lmd/text/grammar_budget.hpp>

#include <memory>
#include <span>
#include <string>

namespace lmd::text {

/// One of `choices`. \throws Error(kConfig) when there is none, or the budget is exceeded.
[[nodiscard]] std::shared_ptr<const Grammar> compile_choice(std::span<const std::string> choices,
                                                            const GrammarBudget& budget = {});

}  // namespace lmd::text
