/// \file  A grammar as what the engine asks before it draws a token.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/core/error.hpp>
#include <lmd/engine/token_constraint.hpp>
#include <lmd/text/grammar_matcher.hpp>
#include <lmd/text/token_mask.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace lmd::serve {

/// Holds one answer to a grammar. Stop tokens are allowed exactly where the grammar can end; other special tokens
/// only where it demands them.
class GrammarConstraint final : public engine::TokenConstraint {
 public:
  /// \param vocab_size  of the model; rows behind the tokenizer's are never allowed
  /// \throws Error(kConfig) when there is no stop id in the vocabulary: the answer could not end.
  GrammarConstraint(std::shared_ptr<text::TokenMasks> masks,
                    std::vector<int> stop_ids,
                    int vocab_size)
      : masks_(std::move(masks)),
        matcher_(masks_->grammar()),
        stop_ids_(std::move(stop_ids)),
        vocab_size_(vocab_size) {
    std::erase_if(stop_ids_, [&](int id) { return id < 0 || id >= vocab_size_; });
    LMD_REQUIRE(!stop_ids_.empty(), ErrorCode::kConfig,
                "an answer held to a grammar needs a stop token, and the request has none");
    const int n_tokens = std::max(vocab_size_, masks_->trie()->n_tokens());
    words_.resize((static_cast<std::size_t>(n_tokens) + 31) / 32);
  }

  [[nodiscard]] std::span<const std::uint32_t> allowed() override {
    const std::size_t n_words = (static_cast<std::size_t>(vocab_size_) + 31) / 32;
    const auto words = std::span<std::uint32_t>(words_);
    if (has_ended_) {
      std::fill(words.begin(), words.end(), 0u);
    } else {
      masks_->fill(matcher_, words, is_first_);
      if (vocab_size_ % 32 != 0) words[n_words - 1] &= (1u << (vocab_size_ % 32)) - 1;
    }
    const bool is_stuck =
        std::all_of(words.begin(), words.begin() + static_cast<std::ptrdiff_t>(n_words),
                    [](std::uint32_t word) { return word == 0; });
    if (has_ended_ || is_stuck || matcher_.can_end()) {
      for (const int id : stop_ids_)
        words_[static_cast<std::size_t>(id) / 32] |= 1u << (static_cast<unsigned>(id) % 32);
    }
    return words.first(n_words);
  }

  /// A token that may not stand here ends the answer: nothing but stop tokens is allowed then.
  void accept(int token) override {
    if (has_ended_) return;
    std::string_view bytes = masks_->trie()->bytes(token);
    const bool drops_space = is_first_ && masks_->trie()->drops_first_space();
    if (drops_space && bytes.starts_with(' ')) bytes.remove_prefix(1);
    const bool has_text = !masks_->trie()->bytes(token).empty();
    is_first_ = false;
    const bool is_read = matcher_.advance_token(token) || (has_text && matcher_.advance(bytes));
    has_ended_ = !is_read;
  }

  /// Whether the text so far is a whole text of the grammar.
  [[nodiscard]] bool is_complete() const { return matcher_.can_end(); }

 private:
  std::shared_ptr<text::TokenMasks> masks_;
  text::GrammarMatcher matcher_;
  std::vector<int> stop_ids_;
  int vocab_size_;
  std::vector<std::uint32_t> words_;  // [>= ceil(vocab_size / 32)]
  bool is_first_ = true;
  bool has_ended_ = false;
};

}  // namespace lmd::serve
