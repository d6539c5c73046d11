/// \file  Automata of one rule: nondeterministic ones, deterministic ones, and what is made of two.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/text/grammar.hpp>
#include <lmd/text/grammar_budget.hpp>
#include <lmd/text/piece_table.hpp>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <map>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

namespace lmd::text::detail {

/// States and edges as a front end writes them down.
struct Nfa {
  enum class Symbol : std::uint8_t { kNothing, kBytes, kCall, kToken };
  struct Edge {
    Symbol symbol = Symbol::kNothing;
    std::uint8_t first = 0, last = 0;  // of kBytes
    std::uint32_t value = 0;           // rule of kCall, token of kToken
    std::uint32_t target = 0;
    std::int32_t next = -1;  // edge of the same state
  };
  static constexpr std::uint32_t kStart = 0;
  static constexpr std::uint32_t kAccept = 1;

  std::uint32_t add_state() {
    heads.push_back(-1);
    return static_cast<std::uint32_t>(heads.size() - 1);
  }
  void add(std::uint32_t from, Edge edge) {
    edge.next = heads[from];
    heads[from] = static_cast<std::int32_t>(edges.size());
    edges.push_back(edge);
  }

  /// Calls `f` for each edge of a state.
  template <class F>
  void for_each(std::uint32_t state, const F& f) const {
    for (std::int32_t i = heads[state]; i >= 0; i = edges[static_cast<std::size_t>(i)].next)
      f(edges[static_cast<std::size_t>(i)]);
  }

  std::vector<std::int32_t> heads = {-1, -1};  // [states]  first edge, -1: none
  std::vector<Edge> edges;
};

/// At most one edge per byte, rule and token. State 0 is the start.
struct Dfa {
  struct State {
    std::vector<Grammar::ByteEdge> bytes;  // disjoint, ascending
    std::vector<Grammar::Call> calls;
    std::vector<Grammar::TokenEdge> tokens;
    bool is_final = false;
  };
  std::vector<State> states;

  [[nodiscard]] std::uint32_t next(std::uint32_t state, std::uint8_t byte) const {
    for (const Grammar::ByteEdge& edge : states[state].bytes) {
      if (byte >= edge.first && byte <= edge.last) return edge.target;
    }
    return Grammar::kNoState;
  }

  /// Whether it takes all of `text`. \pre no calls, no tokens
  [[nodiscard]] bool matches(std::string_view text) const {
    std::uint32_t state = 0;
    for (const char c : text) {
      state = next(state, static_cast<std::uint8_t>(c));
      if (state == Grammar::kNoState) return false;
    }
    return states[state].is_final;
  }

  /// The same without the empty text.
  void drop_empty_text() {
    if (!states[0].is_final) return;
    states.push_back(states[0]);  // for edges that come back to the start
    const auto twin = static_cast<std::uint32_t>(states.size() - 1);
    for (State& state : states) {
      for (auto& edge : state.bytes)
        edge.target = edge.target == 0 ? twin : edge.target;
      for (auto& edge : state.calls)
        edge.target = edge.target == 0 ? twin : edge.target;
      for (auto& edge : state.tokens)
        edge.target = edge.target == 0 ? twin : edge.target;
    }
    states[0].is_final = false;
  }
};

/// Subset construction. Calls of a rule count as one symbol, so alternatives that begin with the same call
/// or the same bytes become one path. A call of a rule that matches the empty text may also be passed by.
///
/// Source:  Rabin and Scott, "Finite automata and their decision problems", IBM Journal 3 (1959)
class SubsetConstruction {
 public:
  using Set = std::vector<std::uint32_t>;  // states of the Nfa, ascending

  SubsetConstruction(const Nfa& nfa, const std::vector<bool>& is_nullable, GrammarMeter& meter)
      : nfa_(&nfa),
        is_nullable_(&is_nullable),
        meter_(&meter),
        seen_(nfa.heads.size(), false),
        reads_(nfa.heads.size(), false) {
    reads_[Nfa::kAccept] = true;
    for (std::uint32_t state = 0; state < reads_.size(); ++state) {
      nfa.for_each(state, [&](const Nfa::Edge& edge) {
        if (edge.symbol != Nfa::Symbol::kNothing) reads_[state] = true;
      });
    }
  }

  [[nodiscard]] Dfa run() {
    (void)state_of({Nfa::kStart});
    for (std::uint32_t i = 0; i < dfa_.states.size(); ++i)
      expand(i);
    return std::move(dfa_);
  }

 private:
  struct SetHash {
    std::size_t operator()(const Set& set) const {
      std::uint64_t h = set.size();
      for (const std::uint32_t state : set)
        h = mix_bits(h ^ state);
      return h;
    }
  };

  /// The states that `set` reaches without reading anything and that read something, or are the end.
  [[nodiscard]] Set closure(Set set) {
    for (const std::uint32_t state : set)
      seen_[state] = true;
    for (std::size_t i = 0; i < set.size(); ++i) {
      nfa_->for_each(set[i], [&](const Nfa::Edge& edge) {
        meter_->spend(1);
        const bool is_free = edge.symbol == Nfa::Symbol::kNothing ||
                             (edge.symbol == Nfa::Symbol::kCall && (*is_nullable_)[edge.value]);
        if (!is_free || seen_[edge.target]) return;
        seen_[edge.target] = true;
        set.push_back(edge.target);
      });
    }
    for (const std::uint32_t state : set)
      seen_[state] = false;
    std::erase_if(set, [&](std::uint32_t state) { return !reads_[state]; });
    std::sort(set.begin(), set.end());
    return set;
  }

  [[nodiscard]] std::uint32_t state_of(const Set& reached) {
    Set set = closure(reached);
    meter_->spend(set.size());
    const auto [at, is_new] =
        ids_.try_emplace(std::move(set), static_cast<std::uint32_t>(dfa_.states.size()));
    if (is_new) {
      meter_->hold(sizeof(Grammar::State));
      sets_.push_back(&at->first);
      dfa_.states.emplace_back().is_final =
          std::binary_search(at->first.begin(), at->first.end(), Nfa::kAccept);
    }
    return at->second;
  }

  static void insert(Set& set, std::uint32_t state) {
    const auto at = std::lower_bound(set.begin(), set.end(), state);
    if (at == set.end() || *at != state) set.insert(at, state);
  }

  void expand(std::uint32_t id) {
    std::map<std::uint32_t, Set> calls;
    std::map<std::uint32_t, Set> tokens;
    for (const std::uint32_t state : *sets_[id]) {
      nfa_->for_each(state, [&](const Nfa::Edge& edge) {
        meter_->spend(1);
        if (edge.symbol == Nfa::Symbol::kCall) insert(calls[edge.value], edge.target);
        if (edge.symbol == Nfa::Symbol::kToken) insert(tokens[edge.value], edge.target);
        if (edge.symbol != Nfa::Symbol::kBytes) return;
        meter_->spend(std::size_t{edge.last} - edge.first);
        for (int byte = edge.first; byte <= edge.last; ++byte)
          by_byte_[static_cast<std::size_t>(byte)].push_back(edge.target);
      });
    }
    std::vector<Grammar::ByteEdge> bytes = byte_edges();
    for (const auto& [rule, set] : calls) {
      const Grammar::Call call{rule, state_of(set)};
      dfa_.states[id].calls.push_back(call);
    }
    for (const auto& [token, set] : tokens) {
      const Grammar::TokenEdge edge{static_cast<std::int32_t>(token), state_of(set)};
      dfa_.states[id].tokens.push_back(edge);
    }
    meter_->hold(bytes.size() * sizeof(Grammar::ByteEdge) + calls.size() * sizeof(Grammar::Call) +
                 tokens.size() * sizeof(Grammar::TokenEdge));
    dfa_.states[id].bytes = std::move(bytes);
  }

  /// Empties `by_byte_` into edges; neighbours that lead to the same state are one.
  [[nodiscard]] std::vector<Grammar::ByteEdge> byte_edges() {
    std::vector<Grammar::ByteEdge> edges;
    Set last_set;
    for (std::size_t byte = 0; byte < by_byte_.size(); ++byte) {
      Set& set = by_byte_[byte];
      if (set.empty()) continue;
      const bool is_neighbour = !edges.empty() && std::size_t{edges.back().last} + 1 == byte;
      if (is_neighbour && set == last_set) {
        edges.back().last = static_cast<std::uint8_t>(byte);
        set.clear();
        continue;
      }
      last_set.swap(set);
      set.clear();
      Set unique = last_set;
      std::sort(unique.begin(), unique.end());
      unique.erase(std::unique(unique.begin(), unique.end()), unique.end());
      const auto b = static_cast<std::uint8_t>(byte);
      const std::uint32_t target = state_of(unique);
      if (is_neighbour && edges.back().target == target) {
        edges.back().last = b;
      } else {
        edges.push_back({target, b, b});
      }
    }
    return edges;
  }

  const Nfa* nfa_;
  const std::vector<bool>* is_nullable_;  // [rules]
  GrammarMeter* meter_;
  Dfa dfa_;
  std::unordered_map<Set, std::uint32_t, SetHash> ids_;
  std::vector<const Set*> sets_;  // [states of the Dfa]
  std::vector<bool> seen_;        // [states of the Nfa]  all false between calls of closure
  std::vector<bool> reads_;       // [states of the Nfa]  has edges that read, or is the end
  std::array<Set, 256> by_byte_;  // all empty between calls of expand
};

/// The texts that `left` matches and `right` does too, or with `is_without` does not.
/// \pre neither has calls or tokens
[[nodiscard]] inline Dfa combine(const Dfa& left,
                                 const Dfa& right,
                                 bool is_without,
                                 GrammarMeter& meter) {
  constexpr std::uint32_t kDead = Grammar::kNoState;
  std::map<std::pair<std::uint32_t, std::uint32_t>, std::uint32_t> ids;
  std::vector<std::pair<std::uint32_t, std::uint32_t>> pairs;
  Dfa out;
  const auto state_of = [&](std::uint32_t a, std::uint32_t b) {
    const auto [at, is_new] = ids.try_emplace({a, b}, static_cast<std::uint32_t>(pairs.size()));
    if (is_new) {
      meter.hold(sizeof(Grammar::State));
      pairs.emplace_back(a, b);
      const bool is_right = b != kDead && right.states[b].is_final;
      out.states.emplace_back().is_final = left.states[a].is_final && is_right != is_without;
    }
    return at->second;
  };
  (void)state_of(0, 0);
  for (std::size_t i = 0; i < pairs.size(); ++i) {
    const auto [a, b] = pairs[i];
    for (const Grammar::ByteEdge& edge : left.states[a].bytes) {
      for (int byte = edge.first; byte <= edge.last; ++byte) {
        meter.spend(1);
        const auto c = static_cast<std::uint8_t>(byte);
        const std::uint32_t b_next = b == kDead ? kDead : right.next(b, c);
        if (b_next == kDead && !is_without) continue;
        const std::uint32_t target = state_of(edge.target, b_next);
        std::vector<Grammar::ByteEdge>& edges = out.states[i].bytes;
        if (!edges.empty() && edges.back().target == target && edges.back().last + 1 == byte) {
          edges.back().last = c;
        } else {
          meter.hold(sizeof(Grammar::ByteEdge));
          edges.push_back({target, c, c});
        }
      }
    }
  }
  return out;
}

}  // namespace lmd::text::detail
