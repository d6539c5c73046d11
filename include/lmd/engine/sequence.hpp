/// \file  A request while it runs.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/cache/prefix_tree.hpp>
#include <lmd/engine/request.hpp>

#include <utility>

namespace lmd::engine {

struct Sequence {
  RequestId id = 0;
  Request request;
  TokenSink sink;
  std::vector<int> tokens;  ///< prompt, then answer
  int n_prompt = 0;
  int n_cached = 0;    ///< tokens whose keys and values are in the cache
  int n_reused = 0;    ///< of these, taken from the prefix tree
  int n_step = 0;      ///< tokens of the oldest step that is under way, or being prepared
  int draw = -1;       ///< which of its draws is this sequence's; -1: none
  int next_draw = -1;  ///< the same of the step behind it, which brings one token; -1: not in it
  int slot = -1;       ///< open page; -1 while waiting
  double rope_base = 0.0;  ///< fixed by the prompt's length
  cache::PageTable pages;
  int tree_node = cache::PrefixTree::kRoot;  ///< of the last page in `pages`
  bool is_cancelled = false;
  bool has_ended = false;  ///< and been told; a step that is under way still has it

  [[nodiscard]] int n_generated() const { return static_cast<int>(tokens.size()) - n_prompt; }
  /// Tokens that must go through the decoder before the next one can be drawn.
  [[nodiscard]] int n_pending() const { return static_cast<int>(tokens.size()) - n_cached; }
  /// Sealed pages at most, over its whole life: the last token drawn is never read.
  [[nodiscard]] int worst_case_pages() const {
    return cache::sealed_pages(n_prompt + request.max_new_tokens - 1);
  }
};

}  // namespace lmd::engine
