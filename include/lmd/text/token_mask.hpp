/// \file  Which tokens a grammar allows next.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/text/grammar.hpp>
#include <lmd/text/grammar_matcher.hpp>
#include <lmd/text/piece_table.hpp>
#include <lmd/text/token_trie.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <span>
#include <unordered_map>
#include <utility>
#include <vector>

namespace lmd::text {

/// The tokens that a grammar allows, kept as they are found.
///
/// A mask is put together of parts. A part says of a state, without its callers, which tokens stay within its rule,
/// and where in the trie the rule ends inside a token; from there another part goes on with a state of the
/// caller. Parts depend on states alone, so most masks are a copy.
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
        chart_(*grammar_, detail::GrammarChart::kNoLimit),
        max_bytes_(max_bytes),
        max_steps_(max_steps) {
    parts_.resize(kFirstLists);
    parts_[kRoot].ends = {0};
    parts_[kFirstToken].ends = {0};
    if (trie_->space_node() != 0) parts_[kFirstToken].ends.push_back(trie_->space_node());
    for (const Part& part : parts_)
      n_bytes_ += part.n_bytes();
  }
  TokenMasks(const TokenMasks&) = delete;
  TokenMasks& operator=(const TokenMasks&) = delete;

  [[nodiscard]] const std::shared_ptr<const Grammar>& grammar() const { return grammar_; }
  [[nodiscard]] const std::shared_ptr<const TokenTrie>& trie() const { return trie_; }

  /// Of the grammar and the parts kept so far.
  [[nodiscard]] std::size_t n_bytes() const {
    const std::lock_guard lock(mutex_);
    return grammar_->n_bytes() + n_bytes_;
  }

  /// Finds the parts that most masks begin with, so that the first answers do not wait for them. Takes about 20 ns a step.
  void prepare(std::int64_t max_steps = 20'000'000) {
    for (std::uint32_t rule = 0; rule < grammar_->n_rules(); ++rule) {
      const bool is_last = rule + 1 == grammar_->n_rules();
      const auto end = is_last ? static_cast<std::uint32_t>(grammar_->n_states())
                               : grammar_->rule(rule + 1).start;
      for (std::uint32_t state = grammar_->rule(rule).start; state < end; ++state) {
        const std::lock_guard lock(mutex_);
        steps_left_ = std::min(max_steps, max_steps_);
        const std::int64_t before = steps_left_;
        if (part_of(kRoot, {state, 0, 0}, rule) == kNoPart) return;
        max_steps -= before - steps_left_;
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
    steps_left_ = max_steps_;
    const detail::GrammarChart::Row& row = matcher.row();
    const std::uint32_t list = is_first && trie_->drops_first_space() ? kFirstToken : kRoot;
    visited_.clear();
    bool is_whole = true;
    for (std::uint32_t i = row.begin; i < row.kernel_end && is_whole; ++i)
      is_whole = add(matcher.chart(), list, matcher.chart().item(i), words);
    if (!is_whole) add_by_walk(matcher, list, words);
    for (std::uint32_t i = row.begin; i < row.end; ++i) {
      for (const Grammar::TokenEdge& edge : grammar_->token_edges(matcher.chart().item(i).state))
        set(words, edge.token);
    }
  }

  /// The definition of `fill`: every token is tried on a copy of the matcher.
  void fill_by_definition(const GrammarMatcher& matcher,
                          std::span<std::uint32_t> words,
                          bool is_first = false) const {
    std::fill(words.begin(), words.end(), 0u);
    for (int token = 0; token < trie_->n_tokens(); ++token) {
      GrammarMatcher copy = matcher;
      if (copy.advance_token(token)) set(words, token);
      std::string_view bytes = trie_->bytes(token);
      if (bytes.empty() || bytes.size() > TokenTrie::kMaxTokenBytes) continue;
      copy = matcher;
      if (is_first && trie_->drops_first_space() && bytes.front() == ' ') bytes.remove_prefix(1);
      if (copy.advance(bytes)) set(words, token);
    }
  }

 private:
  /// Lists of trie nodes that walks begin at; further ones are those of parts.
  static constexpr std::uint32_t kRoot = 0;
  static constexpr std::uint32_t kFirstToken = 1;  // the root without spaces, and behind a space
  static constexpr std::uint32_t kFirstLists = 2;
  static constexpr std::size_t kMaxVisits = 1024;  // parts put together in one mask

  struct Key {
    std::uint32_t list;
    std::uint32_t state;
    std::uint32_t missing;  // completions that a counted rule lacks
    std::uint32_t left;  // and those that it may still have; both no more than a token can be long
    bool operator==(const Key&) const = default;
  };
  struct KeyHash {
    std::size_t operator()(const Key& key) const {
      const std::uint64_t where = std::uint64_t{key.list} << 32 | key.state;
      return detail::mix_bits(detail::mix_bits(where) ^
                              (std::uint64_t{key.missing} << 32 | key.left));
    }
  };
  struct Part {
    std::vector<int> tokens;           // the tokens where these are few, else
    std::vector<std::uint32_t> words;  // a bit for each
    std::vector<std::uint32_t> ends;   // trie nodes inside tokens where the rule ends
    int room_needed = 0;               // nested rules below the state that a limit must leave

    [[nodiscard]] std::size_t n_bytes() const {
      return sizeof(Part) + 2 * (sizeof(Key) + 3 * sizeof(void*)) +
             4 * (tokens.capacity() + words.capacity() + ends.capacity());
    }
  };
  struct Visit {
    std::uint32_t part;
    detail::GrammarChart::Item item;
    bool operator==(const Visit&) const = default;
  };

  static void set(std::span<std::uint32_t> words, int token) {
    words[static_cast<std::size_t>(token) / 32] |= 1u << (static_cast<unsigned>(token) % 32);
  }

  /// Adds the tokens from the nodes of `list` on that `item` and its callers allow. False: a part of them is not
  /// known, because of the depth of nested rules or of a budget.
  [[nodiscard]] bool add(const detail::GrammarChart& chart,
                         std::uint32_t list,
                         const detail::GrammarChart::Item& item,
                         std::span<std::uint32_t> words) {
    const detail::GrammarChart::Node& node = chart.node(item.node);
    const std::uint32_t id = part_of(list, item, node.rule);
    if (id == kNoPart) return false;
    const Part& part = parts_[id];
    if (chart.max_depth() - node.depth < part.room_needed) return false;
    for (const int token : part.tokens)
      set(words, token);
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

  static constexpr std::uint32_t kNoPart = UINT32_MAX;

  [[nodiscard]] std::uint32_t part_of(std::uint32_t list,
                                      const detail::GrammarChart::Item& item,
                                      std::uint32_t rule) {
    const Grammar::Rule& r = grammar_->rule(rule);
    // Every completion takes a byte, so counts farther away than a token reaches are alike.
    const auto reach = static_cast<std::uint32_t>(trie_->max_token_bytes()) + 1;
    const Key key{list, item.state,
                  std::min(r.min_count - std::min(r.min_count, item.count), reach),
                  std::min(r.max_count - item.count, reach)};
    if (const auto at = ids_.find(key); at != ids_.end()) return at->second;
    Part part;
    if (!walk(list, item, rule, part)) return kNoPart;
    const std::size_t bytes = part.n_bytes();
    if (n_bytes_ + bytes > max_bytes_) return kNoPart;
    n_bytes_ += bytes;
    parts_.push_back(std::move(part));
    const auto id = static_cast<std::uint32_t>(parts_.size() - 1);
    ids_.emplace(key, id);
    return id;
  }

  /// Walks the trie below the nodes of `list` from one state, without callers. False when the steps are spent.
  [[nodiscard]] bool walk(std::uint32_t list,
                          const detail::GrammarChart::Item& item,
                          std::uint32_t rule,
                          Part& part) {
    const detail::GrammarChart::Row start = chart_.start(rule, item.state, item.count);
    const std::vector<std::uint32_t> from = parts_[list].ends;
    std::vector<int> tokens;
    for (const std::uint32_t node : from) {
      if (start.completes && trie_->has_children(node)) part.ends.push_back(node);
    }
    const bool is_whole = walk_below(chart_, start, list, [&](std::uint32_t node, const auto& row) {
      const auto found = trie_->tokens_at(node);
      tokens.insert(tokens.end(), found.begin(), found.end());
      if (row.completes && trie_->has_children(node)) part.ends.push_back(node);
    });
    part.room_needed = chart_.room_needed();
    part.ends.shrink_to_fit();
    const std::size_t n_words = (static_cast<std::size_t>(trie_->n_tokens()) + 31) / 32;
    if (tokens.size() < n_words) {
      part.tokens.assign(tokens.begin(), tokens.end());
    } else {
      part.words.resize(n_words);
      for (const int token : tokens)
        set(part.words, token);
    }
    return is_whole;
  }

  /// Calls `found` for every trie node below those of `list` that can be read behind `start`, with the row there.
  /// False when the steps are spent.
  template <class Found>
  [[nodiscard]] bool walk_below(detail::GrammarChart& chart,
                                const detail::GrammarChart::Row& start,
                                std::uint32_t list,
                                const Found& found) {
    const std::vector<std::uint32_t> from = parts_[list].ends;
    const auto nodes = trie_->nodes();
    rows_.resize(trie_->max_token_bytes() + 2);
    for (const std::uint32_t top : from) {
      const std::uint32_t top_depth = nodes[top].depth;
      rows_[top_depth] = start;
      // Behind the space that a tokenizer drops, the space itself is a token.
      if (list == kFirstToken && top != 0) found(top, start);
      for (std::uint32_t i = top + 1; i < nodes[top].end;) {
        const bool is_dropped = list == kFirstToken && top == 0 && i == trie_->space_node();
        const detail::GrammarChart::Row& above = rows_[nodes[i].depth - 1];
        chart.cut(above);
        const detail::GrammarChart::Row row =
            is_dropped ? detail::GrammarChart::Row{} : chart.step(above, nodes[i].byte);
        const std::int64_t n_items = row.end - row.begin;
        steps_left_ -= 1 + n_items + n_items * n_items / 64;  // each is compared with those before
        if (steps_left_ < 0) return false;
        rows_[nodes[i].depth] = row;
        if (row.empty()) {
          i = nodes[i].end;
          continue;
        }
        found(i, row);
        ++i;
      }
    }
    chart.cut(start);
    return true;
  }

  /// All at once, with callers and limits: what parts cannot say.
  void add_by_walk(const GrammarMatcher& matcher,
                   std::uint32_t list,
                   std::span<std::uint32_t> words) {
    detail::GrammarChart chart = matcher.chart();
    (void)walk_below(chart, matcher.row(), list, [&](std::uint32_t node, const auto&) {
      for (const int token : trie_->tokens_at(node))
        set(words, token);
    });
  }

  std::shared_ptr<const Grammar> grammar_;
  std::shared_ptr<const TokenTrie> trie_;
  mutable std::mutex mutex_;
  detail::GrammarChart chart_;                   // of walks
  std::vector<detail::GrammarChart::Row> rows_;  // [bytes of a token]  of a walk
  std::vector<Part> parts_;
  std::unordered_map<Key, std::uint32_t, KeyHash> ids_;  // of parts
  std::vector<Visit> visited_;
  std::size_t max_bytes_;
  std::int64_t max_steps_;
  std::int64_t steps_left_ = 0;
  std::size_t n_bytes_ = 0;
};

}  // namespace lmd::text
