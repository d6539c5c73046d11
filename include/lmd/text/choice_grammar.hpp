/// \file  One of a list of texts as a grammar.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/core/error.hpp>
#include <lmd/text/grammar.hpp>
#include <lmd/text/grammar_budget.hpp>
#include <lmd/text/grammar_builder.hpp>

#include <cstddef>
#include <memory>
#include <span>
#include <string>
#include <vector>

namespace lmd::text {

/// One of `choices`. \throws Error(kConfig) when there is none, or the budget is exceeded.
[[nodiscard]] inline std::shared_ptr<const Grammar> compile_choice(
    std::span<const std::string> choices, const GrammarBudget& budget = {}) {
  LMD_REQUIRE(!choices.empty(), ErrorCode::kConfig, "grammar: there are no texts to choose from");
  std::size_t n_bytes = 0;
  for (const std::string& choice : choices)
    n_bytes += choice.size();
  LMD_REQUIRE(n_bytes <= budget.text_bytes, ErrorCode::kConfig,
              "grammar: texts to choose from have " + std::to_string(n_bytes) +
                  " bytes together, at most " + std::to_string(budget.text_bytes) + " are taken");
  detail::GrammarMeter meter(budget);
  detail::GrammarBuilder builder(meter);
  std::vector<detail::GrammarBuilder::Expr> parts;
  for (const std::string& choice : choices)
    parts.push_back(builder.text(choice));
  return builder.finish(builder.choice(std::move(parts)));
}

}  // namespace lmd::text
