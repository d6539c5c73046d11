/// \file  A compiled grammar: rules over bytes and tokens that call each other.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <utility>
#include <vector>

namespace lmd::text {

/// A pushdown automaton over bytes. A rule is a deterministic automaton whose edges are bytes, whole tokens,
/// or calls of rules; what follows a call is where the call's edge leads. A rule that is counted runs its automaton
/// `min_count` to `max_count` times: the number is part of a reader's state, not of the automaton.
///
/// The states of a rule follow each other, its start first, its tail last, rule by rule. Immutable; any number of threads and matchers share one. Made by GrammarBuilder, which sees to it that
/// every state can reach the end of its rule, that no rule calls itself before a byte is read, and that none but the root
/// matches the empty text.
class Grammar {
 public:
  struct ByteEdge {
    std::uint32_t target;
    std::uint8_t first, last;  ///< bytes, both included; edges of a state are disjoint and ascend
  };
  struct Call {
    std::uint32_t rule;
    std::uint32_t target;
  };
  struct TokenEdge {
    std::int32_t token;
    std::uint32_t target;
  };
  struct State {
    std::uint32_t byte_edges = 0;   ///< the first one; the next state's first one ends them
    std::uint32_t calls = 0;        ///< likewise
    std::uint32_t token_edges = 0;  ///< likewise
    std::uint16_t height =
        0;  ///< nested rules that must still be entered inside each other, at least
    bool is_final = false;
  };
  struct Rule {
    std::uint32_t start = 0;
    /// Behind the repetitions of a counted rule, in the same rule; kNoState: nothing.
    std::uint32_t tail = UINT32_MAX;
    std::uint32_t min_count = 1;
    std::uint32_t max_count = 1;
    bool is_nested = false;  ///< one bracket deeper than its caller
  };

  static constexpr std::uint32_t kNoState = UINT32_MAX;

  /// Whether a state of a rule belongs to what is repeated; final states of that end one repetition.
  [[nodiscard]] static bool is_repeated(const Rule& rule, std::uint32_t state) {
    return state < rule.tail;
  }

  /// The last state is a sentinel that ends the lists of the one before.
  Grammar(std::vector<Rule> rules,
          std::vector<State> states,
          std::vector<ByteEdge> byte_edges,
          std::vector<Call> calls,
          std::vector<TokenEdge> token_edges,
          int answer_depth)
      : rules_(std::move(rules)),
        states_(std::move(states)),
        byte_edges_(std::move(byte_edges)),
        calls_(std::move(calls)),
        token_edges_(std::move(token_edges)),
        answer_depth_(answer_depth) {}

  [[nodiscard]] const Rule& rule(std::uint32_t i) const { return rules_[i]; }
  [[nodiscard]] const State& state(std::uint32_t i) const { return states_[i]; }
  [[nodiscard]] static constexpr std::uint32_t root() { return 0; }  ///< the rule of whole answers
  [[nodiscard]] std::size_t n_rules() const { return rules_.size(); }
  [[nodiscard]] std::size_t n_states() const { return states_.size() - 1; }
  /// One past the last state of a rule.
  [[nodiscard]] std::uint32_t end_of(std::uint32_t rule) const {
    return rule + 1 == rules_.size() ? static_cast<std::uint32_t>(n_states())
                                     : rules_[rule + 1].start;
  }

  [[nodiscard]] std::span<const ByteEdge> byte_edges(std::uint32_t state) const {
    return between(byte_edges_, states_[state].byte_edges, states_[state + 1].byte_edges);
  }
  [[nodiscard]] std::span<const Call> calls(std::uint32_t state) const {
    return between(calls_, states_[state].calls, states_[state + 1].calls);
  }
  [[nodiscard]] std::span<const TokenEdge> token_edges(std::uint32_t state) const {
    return between(token_edges_, states_[state].token_edges, states_[state + 1].token_edges);
  }

  /// Where a byte leads inside a rule, kNoState where it may not stand.
  [[nodiscard]] std::uint32_t next(std::uint32_t state, std::uint8_t byte) const {
    const std::uint32_t end = states_[state + 1].byte_edges;
    for (std::uint32_t i = states_[state].byte_edges; i < end; ++i) {
      if (byte > byte_edges_[i].last) continue;
      return byte >= byte_edges_[i].first ? byte_edges_[i].target : kNoState;
    }
    return kNoState;
  }

  /// Nested rules that an answer may have inside each other.
  [[nodiscard]] int answer_depth() const { return answer_depth_; }

  [[nodiscard]] std::size_t n_bytes() const {
    return sizeof(*this) + rules_.capacity() * sizeof(Rule) + states_.capacity() * sizeof(State) +
           byte_edges_.capacity() * sizeof(ByteEdge) + calls_.capacity() * sizeof(Call) +
           token_edges_.capacity() * sizeof(TokenEdge);
  }

 private:
  template <class T>
  static std::span<const T> between(const std::vector<T>& all,
                                    std::uint32_t begin,
                                    std::uint32_t end) {
    return std::span<const T>(all).subspan(begin, end - begin);
  }

  std::vector<Rule> rules_;
  std::vector<State> states_;
  std::vector<ByteEdge> byte_edges_;
  std::vector<Call> calls_;
  std::vector<TokenEdge> token_edges_;
  int answer_depth_;
};

}  // namespace lmd::text
