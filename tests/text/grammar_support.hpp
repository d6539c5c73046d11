/// \file  What the tests of grammars share: whole texts, masks, tokens by their text.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/text/grammar_matcher.hpp>
#include <lmd/text/token_mask.hpp>
#include <lmd/text/tokenizer.hpp>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <random>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <doctest/doctest.h>

namespace grammar_support {

using Grammar = std::shared_ptr<const lmd::text::Grammar>;

/// Whether `text` is a whole text of the grammar.
inline bool takes(const Grammar& grammar, std::string_view text) {
  lmd::text::GrammarMatcher matcher(grammar);
  return matcher.advance(text) && matcher.can_end();
}

/// A vocabulary of the given pieces; those in pointed brackets are special tokens.
class PieceTokenizer final : public lmd::text::Tokenizer {
 public:
  explicit PieceTokenizer(std::vector<std::string> pieces, bool drops_space = false)
      : Tokenizer(special_of(pieces), static_cast<int>(pieces.size()), "pieces"),
        pieces_(std::move(pieces)),
        drops_space_(drops_space) {}

  [[nodiscard]] bool drops_first_space() const override { return drops_space_; }

 private:
  static lmd::text::TokenizerTraits special_of(const std::vector<std::string>& pieces) {
    lmd::text::TokenizerTraits traits;
    for (std::size_t id = 0; id < pieces.size(); ++id) {
      if (pieces[id].starts_with("<|"))
        traits.added.push_back({.id = static_cast<int>(id), .content = pieces[id]});
    }
    return traits;
  }
  void encode_plain(std::string_view, std::vector<int>&) const override {}
  void append_vocabulary_piece(int id, std::string& bytes) const override {
    bytes += pieces_[static_cast<std::size_t>(id)];
  }
  [[nodiscard]] std::string vocabulary_piece(int id) const override {
    return pieces_[static_cast<std::size_t>(id)];
  }

  std::vector<std::string> pieces_;
  bool drops_space_;
};

inline bool is_set(const std::vector<std::uint32_t>& words, int token) {
  return (words[static_cast<std::size_t>(token) / 32] >> (token % 32) & 1u) != 0;
}

inline std::vector<int> tokens_of(const std::vector<std::uint32_t>& words, int n_tokens) {
  std::vector<int> tokens;
  for (int token = 0; token < n_tokens; ++token) {
    if (is_set(words, token)) tokens.push_back(token);
  }
  return tokens;
}

inline std::vector<std::uint32_t> words_for(const lmd::text::TokenTrie& trie) {
  return std::vector<std::uint32_t>((static_cast<std::size_t>(trie.n_tokens()) + 31) / 32);
}

/// Compares masks with their definition along a random walk of at most `n_steps` tokens; returns how many were compared.
inline int compare_masks(lmd::text::TokenMasks& masks, std::uint32_t seed, int n_steps, int every) {
  std::mt19937 random(seed);
  lmd::text::GrammarMatcher matcher(masks.grammar());
  std::vector<std::uint32_t> found = words_for(*masks.trie());
  std::vector<std::uint32_t> expected = found;
  int n_compared = 0;
  for (int step = 0; step < n_steps; ++step) {
    masks.fill(matcher, found, step == 0);
    if (step % every == 0) {
      masks.fill_by_definition(matcher, expected, step == 0);
      CAPTURE(seed);
      CAPTURE(step);
      REQUIRE(found == expected);
      ++n_compared;
    }
    const std::vector<int> allowed = tokens_of(found, masks.trie()->n_tokens());
    if (allowed.empty()) break;  // at the end, or the vocabulary lacks a character
    std::string_view bytes = masks.trie()->bytes(allowed[random() % allowed.size()]);
    if (step == 0 && masks.trie()->drops_first_space() && bytes.starts_with(' '))
      bytes.remove_prefix(1);
    REQUIRE(matcher.advance(bytes));
  }
  return n_compared;
}

}  // namespace grammar_support
