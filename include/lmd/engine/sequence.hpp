/// \file  A request while it waits and runs.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/cache/prefix_tree.hpp>
#include <lmd/engine/request.hpp>

#include <algorithm>
#include <memory>
#include <utility>

namespace lmd::engine {

struct Sequence {
  RequestId id = 0;
  Request request;
  TokenSink sink;
  RequestProgress progress;
  std::vector<int> tokens;  ///< prompt, then answer
  int n_prompt = 0;
  int n_cached = 0;    ///< tokens whose keys and values are in the cache
  int n_step = 0;      ///< tokens of the oldest step that is under way, or being prepared
  int draw = -1;       ///< which of its draws is this sequence's; -1: none
  int next_draw = -1;  ///< the same of the step behind it, which brings one token; -1: not in it
  int slot = -1;       ///< open page; -1 while waiting
  double rope_base = 0.0;  ///< fixed by the prompt's length
  cache::PageTable pages;
  int n_promised = 0;  ///< pages that it was let in for; it may need more in the end
  int tree_node = cache::PrefixTree::kRoot;  ///< of the last page in `pages`
  bool is_cancelled = false;
  bool has_ended = false;  ///< and been told; a step that is under way still has it

  [[nodiscard]] int n_tokens() const { return static_cast<int>(tokens.size()); }
  [[nodiscard]] int n_generated() const { return n_tokens() - n_prompt; }
  /// Tokens that must go through the decoder before the next one can be drawn.
  [[nodiscard]] int n_pending() const { return n_tokens() - n_cached; }
  /// Of the promised pages, those that it does not have yet.
  [[nodiscard]] int n_claimed() const { return std::max(n_promised - pages.size(), 0); }
  /// Sealed pages for `n_more` tokens behind the ones it has, or to its end where that comes first: the
  /// last token drawn is never read.
  [[nodiscard]] int pages_for(int n_more) const {
    return cache::sealed_pages(
        std::min(n_tokens() + n_more, n_prompt + request.max_new_tokens - 1));
  }
};

using SequencePtr = std::unique_ptr<Sequence>;

}  // namespace lmd::engine
