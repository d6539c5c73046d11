/// \file  What a state of a grammar allows of a vocabulary, found once and kept.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/text/grammar.hpp>
#include <lmd/text/grammar_matcher.hpp>
#include <lmd/text/piece_table.hpp>
#include <lmd/text/token_trie.hpp>

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <unordered_map>
#include <utility>
#include <vector>

namespace lmd::text::detail {

/// Parts of masks. A part says of a state, without its callers, which tokens from some nodes of the trie on stay within its
/// rule, and where in the trie the rule ends inside a token; from there another part goes on with a state of the caller.
///
/// Not thread safe; TokenMasks is.
class MaskParts {
 public:
  /// Lists of trie nodes that walks begin at; further ones are those of parts.
  static constexpr std::uint32_t kRoot = 0;
  static constexpr std::uint32_t kFirstToken = 1;  // the root without spaces, and behind a space
  static constexpr std::uint32_t kNoPart = UINT32_MAX;

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
  MaskParts(std::shared_ptr<const Grammar> grammar,
            std::shared_ptr<const TokenTrie> trie,
            std::size_t max_bytes,
            std::int64_t max_steps)
      : grammar_(std::move(grammar)),
        trie_(std::move(trie)),
        chart_(*grammar_, GrammarChart::kNoLimit),
        max_bytes_(max_bytes),
        max_steps_(max_steps) {
    parts_.resize(kFirstLists);
    parts_[kRoot].ends = {0};
    parts_[kFirstToken].ends = {0};
    if (trie_->space_node() != 0) parts_[kFirstToken].ends.push_back(trie_->space_node());
    for (const Part& part : parts_)
      n_bytes_ += part.n_bytes();
    for (std::uint32_t rule = 0; rule < grammar_->n_rules(); ++rule) {
      bool has_calls = false;
      for (std::uint32_t state = grammar_->rule(rule).start; state < grammar_->end_of(rule);
           ++state)
        has_calls = has_calls || !grammar_->calls(state).empty();
      has_calls_.push_back(has_calls);
    }
  }

  [[nodiscard]] const Part& part(std::uint32_t id) const { return parts_[id]; }
  [[nodiscard]] std::size_t n_bytes() const { return n_bytes_; }
  [[nodiscard]] std::int64_t steps_left() const { return steps_left_; }

  /// At most so many steps in the trie, and no more than `max_steps`, until this is called again.
  void allow_steps(std::int64_t steps) { steps_left_ = std::min(steps, max_steps_); }

  /// The part of `item`, in `rule`, for tokens from the nodes of `list` on: kRoot, kFirstToken or the ends of a part.
  /// kNoPart when the steps left do not suffice or there is no room for it. A part for which not even `max_steps` suffice is
  /// kept with what they found, so that they are spent once.
  [[nodiscard]] std::uint32_t part_of(std::uint32_t list,
                                      const GrammarChart::Item& item,
                                      std::uint32_t rule) {
    const Grammar::Rule& r = grammar_->rule(rule);
    Key key{list, item.state, 0, 0};
    if (r.max_count > 1 && Grammar::is_repeated(r, item.state)) {
      // Every completion takes a byte, so counts farther away than a token reaches are alike.
      const auto reach = static_cast<std::uint32_t>(trie_->max_token_bytes()) + 1;
      key.missing = std::min(r.min_count - std::min(r.min_count, item.count), reach);
      key.left = std::min(r.max_count - item.count, reach);
    }
    if (const auto at = ids_.find(key); at != ids_.end()) return at->second;
    Part part;
    const bool has_all_steps = steps_left_ == max_steps_;
    const bool is_counted = key.left > 0 && key.missing == 0 && !has_calls_[rule];
    const bool is_whole = is_counted ? take_counted(key, rule, part) : walk(list, item, rule, part);
    if (!is_whole && !has_all_steps) return kNoPart;
    const std::size_t bytes = part.n_bytes();
    if (n_bytes_ + bytes > max_bytes_) {
      refuse(key);
      return kNoPart;
    }
    n_bytes_ += bytes;
    parts_.push_back(std::move(part));
    const auto id = static_cast<std::uint32_t>(parts_.size() - 1);
    ids_.emplace(key, id);
    return id;
  }

  /// Calls `found` for every trie node below those of `list` that can be read behind `start`, with the row there.
  /// False when the steps are spent.
  template <class Found>
  [[nodiscard]] bool walk_below(GrammarChart& chart,
                                const GrammarChart::Row& start,
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
        const GrammarChart::Row& above = rows_[nodes[i].depth - 1];
        chart.cut(above);
        const GrammarChart::Row row =
            is_dropped ? GrammarChart::Row{} : chart.step(above, nodes[i].byte);
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

  static void set(std::span<std::uint32_t> words, int token) {
    words[static_cast<std::size_t>(token) / 32] |= 1u << (static_cast<unsigned>(token) % 32);
  }

 private:
  static constexpr std::uint32_t kFirstLists = 2;
  static constexpr int kMaxRefused = 4096;  // 200 KB of keys

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
      return mix_bits(mix_bits(where) ^ (std::uint64_t{key.missing} << 32 | key.left));
    }
  };
  /// Parts of a counted rule for any number of completions that are left: what each token and each end needs.
  struct CountedPart {
    struct Need {
      std::uint32_t count;  // completions before it
      std::uint32_t what;   // token, trie node
    };
    std::vector<std::uint32_t> words;  // a bit for each token that needs any number
    std::vector<Need> tokens;          // those that need some, the most first
    std::vector<Need> ends;
    int room_needed = 0;

    [[nodiscard]] std::size_t n_bytes() const {
      return sizeof(CountedPart) + 4 * words.capacity() +
             sizeof(Need) * (tokens.capacity() + ends.capacity());
    }
  };
  /// Notes that there is no room for a part, and never will be.
  void refuse(const Key& key) {
    if (n_refused_ == kMaxRefused) return;
    ++n_refused_;
    n_bytes_ += sizeof(Key) + 4 * sizeof(void*);
    ids_.emplace(key, kNoPart);
  }

  /// Walks the trie below the nodes of `list` from one state, without callers. False when the steps are spent.
  [[nodiscard]] bool walk(std::uint32_t list,
                          const GrammarChart::Item& item,
                          std::uint32_t rule,
                          Part& part) {
    const GrammarChart::Row start = chart_.start(rule, item.state, item.count);
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
    if (tokens.size() < n_words()) {
      part.tokens.assign(tokens.begin(), tokens.end());
    } else {
      part.words.resize(n_words());
      for (const int token : tokens)
        set(part.words, token);
    }
    return is_whole;
  }

  /// The part of a counted rule: what one walk found that was made for all counts, without what needs more
  /// completions than are left.
  [[nodiscard]] bool take_counted(const Key& key, std::uint32_t rule, Part& part) {
    const std::uint64_t where = std::uint64_t{key.list} << 32 | key.state;
    if (const auto at = counted_.find(where); at != counted_.end()) {
      take(at->second, key.left, part);
      return true;
    }
    const bool has_all_steps = steps_left_ == max_steps_;
    CountedPart made;
    const bool is_whole = walk_counted(key, rule, made);
    take(made, key.left, part);
    const std::size_t bytes = made.n_bytes();
    if ((is_whole || has_all_steps) && n_bytes_ + bytes <= max_bytes_) {
      n_bytes_ += bytes;
      counted_.emplace(where, std::move(made));
    }
    return is_whole;
  }

  /// What `counted` says of `left` completions.
  void take(const CountedPart& counted, std::uint32_t left, Part& part) const {
    part.room_needed = counted.room_needed;
    part.words = counted.words;
    for (const auto& [count, token] : counted.tokens) {
      if (count < left) break;
      part.words[token / 32] &= ~(1u << (token % 32));
    }
    for (const auto& [count, node] : counted.ends) {
      if (count < left) part.ends.push_back(node);
    }
    list_few(part);
  }

  /// Few tokens are kept as a list.
  void list_few(Part& part) const {
    std::size_t n = 0;
    for (const std::uint32_t word : part.words)
      n += static_cast<std::size_t>(std::popcount(word));
    if (n >= part.words.size()) return;
    part.tokens.reserve(n);
    for (std::size_t i = 0; i < part.words.size(); ++i) {
      for (std::uint32_t word = part.words[i]; word != 0; word &= word - 1)
        part.tokens.push_back(static_cast<int>(32 * i) + std::countr_zero(word));
    }
    part.words = {};
  }

  /// Completions only add up, so a row is there with few of them left if its item with the fewest is.
  [[nodiscard]] bool walk_counted(const Key& key, std::uint32_t rule, CountedPart& part) {
    const Grammar::Rule& r = grammar_->rule(rule);
    const std::uint32_t base = r.min_count;
    const GrammarChart::Row start = chart_.start(rule, key.state, base);
    part.words.resize(n_words());
    // A tail behind n completions was there with the last of them.
    const auto fewest = [&](const auto& row, bool must_end) {
      std::uint32_t count = UINT32_MAX;
      for (std::uint32_t i = row.begin; i < row.end; ++i) {
        const auto& item = chart_.item(i);
        const bool is_tail = !Grammar::is_repeated(r, item.state);
        const bool can_end =
            grammar_->state(item.state).is_final && (is_tail || r.tail == Grammar::kNoState);
        if (!must_end || can_end) count = std::min(count, item.count - base - (is_tail ? 1 : 0));
      }
      return count;
    };
    if (start.completes) {
      for (const std::uint32_t node : parts_[key.list].ends) {
        if (trie_->has_children(node)) part.ends.push_back({0, node});
      }
    }
    const bool is_whole =
        walk_below(chart_, start, key.list, [&](std::uint32_t node, const auto& row) {
          const std::uint32_t count = fewest(row, false);
          for (const int token : trie_->tokens_at(node)) {
            set(part.words, token);
            if (count > 0) part.tokens.push_back({count, static_cast<std::uint32_t>(token)});
          }
          if (row.completes && trie_->has_children(node))
            part.ends.push_back({fewest(row, true), node});
        });
    std::stable_sort(part.tokens.begin(), part.tokens.end(),
                     [](const auto& a, const auto& b) { return a.count > b.count; });
    part.tokens.shrink_to_fit();
    part.ends.shrink_to_fit();
    part.room_needed = chart_.room_needed();
    return is_whole;
  }

  [[nodiscard]] std::size_t n_words() const {
    return (static_cast<std::size_t>(trie_->n_tokens()) + 31) / 32;
  }

  std::shared_ptr<const Grammar> grammar_;
  std::shared_ptr<const TokenTrie> trie_;
  GrammarChart chart_;                   // of walks
  std::vector<GrammarChart::Row> rows_;  // [bytes of a token]  of a walk
  std::vector<Part> parts_;
  std::unordered_map<Key, std::uint32_t, KeyHash> ids_;     // of parts
  std::unordered_map<std::uint64_t, CountedPart> counted_;  // by list and state
  std::vector<bool> has_calls_;                             // [rules]
  std::size_t max_bytes_;
  std::int64_t max_steps_;
  std::int64_t steps_left_ = 0;
  int n_refused_ = 0;
  std::size_t n_bytes_ = 0;
};

}  // namespace lmd::text::detail
