/// \file  Which tokens a grammar allows next.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/text/grammar.hpp>
#include <lmd/text/grammar_matcher.hpp>
#include <lmd/text/mask_parts.hpp>
#include <lmd/text/token_trie.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <span>
#include <string_view>
#include <utility>
#include <vector>

namespace lmd::text {

/// The tokens that a grammar allows, put together of parts that are kept as they are found: most masks are a copy.
///
/// Thread safe: a lock is held while a mask is made.
class TokenMasks {
 public:
  /// Parts beyond `max_bytes` are not kept. A mask that needs more than `max_steps` steps in the trie
  /// has fewer tokens than could be allowed; with the default that takes a grammar made for it.
  TokenMasks(std::shared_ptr<const Grammar> grammar,
             std::shared_ptr<const TokenTrie> trie,
             std::size_t max_bytes = std::size_t{8} << 20,
             std::int64_t max_steps = 4'000'000)
      : grammar_(std::move(grammar)),
        trie_(std::move(trie)),
        parts_(grammar_, trie_, max_bytes, max_steps),
        max_steps_(max_steps) {}
  TokenMasks(const TokenMasks&) = delete;
  TokenMasks& operator=(const TokenMasks&) = delete;

  [[nodiscard]] const std::shared_ptr<const Grammar>& grammar() const { return grammar_; }
  [[nodiscard]] const std::shared_ptr<const TokenTrie>& trie() const { return trie_; }
  /// Steps in the trie that the last mask did not need; below 0 where it needed more than there were.
  [[nodiscard]] std::int64_t steps_left() const {
    const std::lock_guard lock(mutex_);
    return parts_.steps_left();
  }

  /// Of the grammar and the parts kept so far.
  [[nodiscard]] std::size_t n_bytes() const {
    const std::lock_guard lock(mutex_);
    return grammar_->n_bytes() + parts_.n_bytes();
  }

  /// Finds the parts that most masks begin with, so that the first answers do not wait for them. Takes about 20 ns a step,
  /// and ends when the steps are spent or there is no room for more.
  void prepare(std::int64_t max_steps = 20'000'000) {
    for (std::uint32_t r = 0; r < grammar_->n_rules(); ++r) {
      const Grammar::Rule& rule = grammar_->rule(r);
      const std::uint32_t usual_count = std::min(rule.min_count, rule.max_count - 1);
      for (std::uint32_t state = rule.start; state < grammar_->end_of(r); ++state) {
        for (const std::uint32_t count : {0u, usual_count}) {
          const std::lock_guard lock(mutex_);
          const std::int64_t allowed = std::min(max_steps, max_steps_);
          parts_.allow_steps(allowed);
          if (parts_.part_of(Parts::kRoot, {state, count, 0}, r) == Parts::kNoPart) return;
          max_steps -= allowed - parts_.steps_left();
        }
      }
    }
  }

  /// Sets the bits of all tokens that `matcher` can advance by, and clears the others.
  ///
  /// \param words     [>= ceil(n_tokens / 32)]; token t is bit t % 32 of word t / 32
  /// \param is_first  nothing was drawn yet: where the tokenizer drops the first space of a text, one may stand
  ///                  before it
  void fill(const GrammarMatcher& matcher, std::span<std::uint32_t> words, bool is_first = false) {
    const std::lock_guard lock(mutex_);
    std::fill(words.begin(), words.end(), 0u);
    parts_.allow_steps(max_steps_);
    const detail::GrammarChart::Row& row = matcher.row();
    const std::uint32_t list =
        is_first && trie_->drops_first_space() ? Parts::kFirstToken : Parts::kRoot;
    visited_.clear();
    bool is_whole = true;
    for (std::uint32_t i = row.begin; i < row.kernel_end && is_whole; ++i)
      is_whole = add(matcher.chart(), list, matcher.chart().item(i), words);
    if (!is_whole) add_by_walk(matcher, list, words);
    for (std::uint32_t i = row.begin; i < row.end; ++i) {
      for (const Grammar::TokenEdge& edge : grammar_->token_edges(matcher.chart().item(i).state))
        Parts::set(words, edge.token);
    }
  }

  /// The definition of `fill`: every token is tried on a copy of the matcher.
  void fill_by_definition(const GrammarMatcher& matcher,
                          std::span<std::uint32_t> words,
                          bool is_first = false) const {
    std::fill(words.begin(), words.end(), 0u);
    for (int token = 0; token < trie_->n_tokens(); ++token) {
      GrammarMatcher copy = matcher;
      if (copy.advance_token(token)) Parts::set(words, token);
      std::string_view bytes = trie_->bytes(token);
      if (bytes.empty() || bytes.size() > TokenTrie::kMaxTokenBytes) continue;
      copy = matcher;
      if (is_first && trie_->drops_first_space() && bytes.front() == ' ') bytes.remove_prefix(1);
      if (copy.advance(bytes)) Parts::set(words, token);
    }
  }

 private:
  using Parts = detail::MaskParts;
  static constexpr std::size_t kMaxVisits = 1024;  // parts put together in one mask

  struct Visit {
    std::uint32_t part;
    detail::GrammarChart::Item item;
    bool operator==(const Visit&) const = default;
  };

  /// Adds the tokens from the nodes of `list` on that `item` and its callers allow. False: a part of them is not
  /// known, because of the depth of nested rules or of a budget.
  [[nodiscard]] bool add(const detail::GrammarChart& chart,
                         std::uint32_t list,
                         const detail::GrammarChart::Item& item,
                         std::span<std::uint32_t> words) {
    const detail::GrammarChart::Node& node = chart.node(item.node);
    const std::uint32_t id = parts_.part_of(list, item, node.rule);
    if (id == Parts::kNoPart) return false;
    const Parts::Part& part = parts_.part(id);
    if (chart.max_depth() - node.depth < part.room_needed) return false;
    for (const int token : part.tokens)
      Parts::set(words, token);
    for (std::size_t i = 0; i < part.words.size(); ++i)
      words[i] |= part.words[i];
    if (part.ends.empty()) return true;
    for (std::int32_t c = node.first_caller; c >= 0; c = chart.caller(c).next) {
      const Visit visit{id, chart.caller(c).item};
      if (std::find(visited_.begin(), visited_.end(), visit) != visited_.end()) continue;
      if (visited_.size() == kMaxVisits) return false;
      visited_.push_back(visit);
      if (!add(chart, id, visit.item, words)) return false;
    }
    return true;
  }

  /// All at once, with callers and limits: what parts cannot say.
  void add_by_walk(const GrammarMatcher& matcher,
                   std::uint32_t list,
                   std::span<std::uint32_t> words) {
    detail::GrammarChart chart = matcher.chart();
    (void)parts_.walk_below(chart, matcher.row(), list, [&](std::uint32_t node, const auto&) {
      for (const int token : trie_->tokens_at(node))
        Parts::set(words, token);
    });
  }

  std::shared_ptr<const Grammar> grammar_;
  std::shared_ptr<const TokenTrie> trie_;
  mutable std::mutex mutex_;
  detail::MaskParts parts_;
  std::vector<Visit> visited_;  // of the mask that is being made
  std::int64_t max_steps_;
};

}  // namespace lmd::text
