/// \file  Which tokens a grammar allows next.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/text/grammar.hpp>
#include <lmd/text/tokenizer.hpp>

#include <memory>

namespace lmd::text {

/// The bytes of a vocabulary's tokens, as a trie. Immutable; one serves all grammars of a model.
class TokenTrie {
 public:
  explicit TokenTrie(const Tokenizer& tokenizer);
};

/// The tokens that a grammar allows in each of its states, kept as they are found. Thread safe.
class TokenMasks {
 public:
  TokenMasks(std::shared_ptr<const Grammar> grammar, std::shared_ptr<const TokenTrie> trie);
};

}  // namespace lmd::text
