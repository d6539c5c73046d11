/// \file  Compiled grammars that were used last.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/text/token_mask.hpp>

#include <cstddef>
#include <functional>
#include <memory>
#include <string_view>

namespace lmd::text {

/// Compiled grammars of one vocabulary with their masks, the least recently used thrown out first. Thread safe.
class GrammarCache {
 public:
  using Compile = std::function<std::shared_ptr<const Grammar>()>;

  explicit GrammarCache(std::shared_ptr<const TokenTrie> trie,
                        std::size_t max_bytes = std::size_t{64} << 20);

  /// The grammar kept under `key`, else what `compile` makes. The key is the kind of grammar and its whole text.
  /// \throws what `compile` throws; nothing is kept then.
  [[nodiscard]] std::shared_ptr<TokenMasks> get(std::string_view key, const Compile& compile);
};

}  // namespace lmd::text
