/// \file  What compiling a grammar may cost.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/core/error.hpp>

#include <cstddef>
#include <cstdint>
#include <string>

namespace lmd::text {

/// Bounds on the grammars of strangers. What exceeds one is refused with Error(kConfig); nothing is cut short.
struct GrammarBudget {
  std::size_t text_bytes = std::size_t{1} << 18;  ///< of a schema, a pattern or a list of choices
  int schema_depth = 32;                          ///< subschemas inside subschemas
  int schema_nodes = 2000;                        ///< subschemas, and values of `enum`
  int pattern_depth = 64;                         ///< groups inside groups
  int repeat = 4096;                ///< the largest count of {m,n}, maxLength, maxItems ...
  int alternatives = 64;            ///< of anyOf and oneOf, after all combinations are made
  int answer_depth = 32;            ///< objects and arrays inside each other in an answer
  std::int64_t steps = 10'000'000;  ///< parts and edges looked at while automata are made
  std::size_t bytes = std::size_t{8} << 20;  ///< of a compiled grammar
};

namespace detail {

/// Counts what a compilation does. \pre the budget outlives the object
class GrammarMeter {
 public:
  explicit GrammarMeter(const GrammarBudget& budget) : budget_(&budget), left_(budget.steps) {}

  [[nodiscard]] const GrammarBudget& budget() const { return *budget_; }

  /// \throws Error(kConfig) when the budget's steps are spent.
  void spend(std::size_t steps) {
    left_ -= static_cast<std::int64_t>(steps);
    LMD_REQUIRE(left_ >= 0, ErrorCode::kConfig,
                "grammar: takes more than " + std::to_string(budget_->steps) + " steps to compile");
  }

  /// Counts what the compiled grammar will hold. \throws Error(kConfig) when that is too much.
  void hold(std::size_t bytes) {
    held_ += bytes;
    LMD_REQUIRE(held_ <= budget_->bytes, ErrorCode::kConfig,
                "grammar: takes more than " + std::to_string(budget_->bytes) + " bytes");
  }

 private:
  const GrammarBudget* budget_;
  std::int64_t left_;
  std::size_t held_ = 0;
};

}  // namespace detail
}  // namespace lmd::text
