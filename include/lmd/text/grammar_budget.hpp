/// \file  What compiling a grammar may cost.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>

namespace lmd::text {

/// Bounds on the grammars of strangers. What exceeds one is refused with Error(kConfig); nothing is cut short.
struct GrammarBudget {
  std::size_t text_bytes = std::size_t{1} << 18;  ///< of a schema, a pattern or a list of choices
  int schema_depth = 32;            ///< subschemas inside subschemas; references start again
  int schema_nodes = 2000;          ///< subschemas, and values of `enum`
  int pattern_depth = 64;           ///< groups inside groups
  int repeat = 4096;                ///< the largest count of {m,n}, maxLength, maxItems ...
  int alternatives = 64;            ///< of anyOf and oneOf, after all combinations are made
  int answer_depth = 32;            ///< objects and arrays inside each other in an answer
  std::int64_t steps = 20'000'000;  ///< edges looked at while automata are made
  std::size_t bytes = std::size_t{8} << 20;  ///< of a compiled grammar
};

}  // namespace lmd::text
