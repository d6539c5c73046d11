/// \file  From the automata of all rules to a Grammar: what can never end is left out.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/core/error.hpp>
#include <lmd/text/grammar.hpp>
#include <lmd/text/grammar_automaton.hpp>
#include <lmd/text/grammar_budget.hpp>

#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

namespace lmd::text::detail {

/// A rule whose automaton is made. None but rule 0, the root, matches the empty text.
struct RuleAutomaton {
  Dfa dfa;                                 // of what is repeated, then of the tail
  std::uint32_t tail = Grammar::kNoState;  // its first state; it has no calls
  std::uint32_t min_count = 1;             // 0 with a tail only
  std::uint32_t max_count = 1;
  bool is_nested = false;
};

class GrammarLayout {
 public:
  GrammarLayout(std::vector<RuleAutomaton> rules, GrammarMeter& meter)
      : rules_(std::move(rules)), meter_(&meter) {
    offsets_.push_back(0);
    for (const RuleAutomaton& rule : rules_)
      offsets_.push_back(offsets_.back() + static_cast<std::uint32_t>(rule.dfa.states.size()));
  }

  /// \throws Error(kConfig) when a rule begins with itself, or no text satisfies the root.
  [[nodiscard]] Grammar run() {
    refuse_left_recursion();
    find_heights();
    LMD_REQUIRE(heights_[0] <= max_height(), ErrorCode::kConfig,
                "grammar: no text of at most " + std::to_string(max_height()) +
                    " objects and arrays inside each other satisfies it");
    return lay_out();
  }

 private:
  static constexpr int kNever = INT32_MAX;

  /// An edge that makes the height of `from` depend on that of its target.
  struct Dependency {
    std::uint32_t from;
    std::uint32_t target;
    std::uint32_t rule;  // that is called in between, kNoRule: none
  };
  static constexpr std::uint32_t kNoRule = UINT32_MAX;

  [[nodiscard]] int max_height() const { return meter_->budget().answer_depth; }

  /// Depth first over the calls of start states.
  void refuse_left_recursion() const {
    enum : std::uint8_t { kNew, kOpen, kDone };
    std::vector<std::uint8_t> marks(rules_.size(), kNew);
    struct Visit {
      std::uint32_t rule;
      std::size_t next;
    };
    std::vector<Visit> path;
    for (std::uint32_t root = 0; root < rules_.size(); ++root) {
      if (marks[root] == kNew) path.push_back({root, 0});
      while (!path.empty()) {
        auto& [rule, next] = path.back();
        marks[rule] = kOpen;
        const auto& calls = rules_[rule].dfa.states[0].calls;
        if (next == calls.size()) {
          marks[rule] = kDone;
          path.pop_back();
          continue;
        }
        const std::uint32_t callee = calls[next++].rule;
        LMD_REQUIRE(marks[callee] != kOpen, ErrorCode::kConfig,
                    "grammar: a reference leads to itself and nothing else");
        if (marks[callee] == kNew) path.push_back({callee, 0});
      }
    }
  }

  /// What each state depends on, turned round: for each state the edges that wait for it.
  [[nodiscard]] std::vector<std::vector<Dependency>> dependencies() {
    std::vector<std::vector<Dependency>> waiting(offsets_.back());
    for (std::uint32_t r = 0; r < rules_.size(); ++r) {
      const auto& states = rules_[r].dfa.states;
      for (std::uint32_t s = 0; s < states.size(); ++s) {
        const std::uint32_t from = offsets_[r] + s;
        meter_->spend(states[s].bytes.size() + states[s].calls.size() + 1);
        for (const auto& edge : states[s].bytes)
          waiting[offsets_[r] + edge.target].push_back({from, offsets_[r] + edge.target, kNoRule});
        for (const auto& edge : states[s].tokens)
          waiting[offsets_[r] + edge.target].push_back({from, offsets_[r] + edge.target, kNoRule});
        for (const auto& call : states[s].calls) {
          const Dependency dependency{from, offsets_[r] + call.target, call.rule};
          waiting[dependency.target].push_back(dependency);
          waiting[offsets_[call.rule]].push_back(dependency);
        }
        const bool goes_on =
            states[s].is_final && s < rules_[r].tail && rules_[r].tail != Grammar::kNoState;
        if (goes_on) {
          const std::uint32_t tail = offsets_[r] + rules_[r].tail;
          waiting[tail].push_back({from, tail, kNoRule});
        }
      }
    }
    return waiting;
  }

  /// How many nested rules every way from a state to the end of its rule enters inside each other, at
  /// least: the lowest states are settled first, then those that need only settled ones.
  ///
  /// Source:  Knuth, "A generalization of Dijkstra's algorithm", Information Processing Letters 6 (1977)
  void find_heights() {
    heights_.assign(offsets_.back(), kNever);
    const auto waiting = dependencies();
    std::vector<std::vector<std::uint32_t>> levels(static_cast<std::size_t>(max_height()) + 2);
    for (std::uint32_t r = 0; r < rules_.size(); ++r) {
      const auto& states = rules_[r].dfa.states;
      for (std::uint32_t s = 0; s < states.size(); ++s) {
        const bool ends = rules_[r].tail == Grammar::kNoState || s >= rules_[r].tail;
        if (states[s].is_final && ends) levels[0].push_back(offsets_[r] + s);
      }
    }
    for (int height = 0; height <= max_height(); ++height) {
      auto& level = levels[static_cast<std::size_t>(height)];
      for (std::size_t i = 0; i < level.size(); ++i) {
        const std::uint32_t state = level[i];
        if (heights_[state] != kNever) continue;
        heights_[state] = height;
        meter_->spend(waiting[state].size());
        for (const Dependency& edge : waiting[state]) {
          const int reached = height_through(edge);
          if (reached == kNever || heights_[edge.from] != kNever) continue;
          if (reached == height) level.push_back(edge.from);
          if (reached > height) levels[static_cast<std::size_t>(reached)].push_back(edge.from);
        }
      }
    }
  }

  [[nodiscard]] int height_through(const Dependency& edge) const {
    const int target = heights_[edge.target];
    if (edge.rule == kNoRule || target == kNever) return target;
    const int callee = heights_[offsets_[edge.rule]];
    if (callee == kNever) return kNever;
    return std::max(target, callee + (rules_[edge.rule].is_nested ? 1 : 0));
  }

  /// Numbers the states that matter, rule by rule from the root, and copies their edges.
  [[nodiscard]] Grammar lay_out() {
    std::vector<std::uint32_t> rule_ids(rules_.size(), kNoRule);
    std::vector<std::uint32_t> order = {0};
    rule_ids[0] = 0;
    for (std::size_t i = 0; i < order.size(); ++i) {
      const std::uint32_t r = order[i];
      for (std::uint32_t s = 0; s < rules_[r].dfa.states.size(); ++s) {
        if (heights_[offsets_[r] + s] == kNever) continue;
        for (const auto& call : rules_[r].dfa.states[s].calls) {
          if (!is_live(r, call) || rule_ids[call.rule] != kNoRule) continue;
          rule_ids[call.rule] = static_cast<std::uint32_t>(order.size());
          order.push_back(call.rule);
        }
      }
    }
    for (const std::uint32_t r : order)
      add_rule(r, rule_ids);
    states_.push_back(end_of_lists());
    return {std::move(out_rules_), std::move(states_), std::move(byte_edges_),
            std::move(calls_),     std::move(tokens_), max_height()};
  }

  [[nodiscard]] bool is_live(std::uint32_t r, const Grammar::Call& call) const {
    const int target = heights_[offsets_[r] + call.target];
    const int callee = heights_[offsets_[call.rule]];
    return target != kNever && callee != kNever &&
           callee + (rules_[call.rule].is_nested ? 1 : 0) <= max_height();
  }

  [[nodiscard]] Grammar::State end_of_lists() const {
    return {static_cast<std::uint32_t>(byte_edges_.size()),
            static_cast<std::uint32_t>(calls_.size()), static_cast<std::uint32_t>(tokens_.size()),
            0, false};
  }

  void add_rule(std::uint32_t r, const std::vector<std::uint32_t>& rule_ids) {
    const auto& dfa_states = rules_[r].dfa.states;
    std::vector<std::uint32_t> ids(dfa_states.size(), Grammar::kNoState);
    auto next = static_cast<std::uint32_t>(states_.size());
    const std::uint32_t start = next;
    for (std::uint32_t s = 0; s < dfa_states.size(); ++s) {
      if (heights_[offsets_[r] + s] != kNever) ids[s] = next++;
    }
    const std::uint32_t tail =
        rules_[r].tail == Grammar::kNoState ? rules_[r].tail : ids[rules_[r].tail];
    out_rules_.push_back(
        {start, tail, rules_[r].min_count, rules_[r].max_count, rules_[r].is_nested});
    for (std::uint32_t s = 0; s < dfa_states.size(); ++s) {
      if (ids[s] == Grammar::kNoState) continue;
      Grammar::State state = end_of_lists();
      state.height = static_cast<std::uint16_t>(heights_[offsets_[r] + s]);
      state.is_final = dfa_states[s].is_final;
      states_.push_back(state);
      for (const auto& edge : dfa_states[s].bytes) {
        if (ids[edge.target] == Grammar::kNoState) continue;
        byte_edges_.push_back({ids[edge.target], edge.first, edge.last});
      }
      for (const auto& call : dfa_states[s].calls) {
        if (is_live(r, call)) calls_.push_back({rule_ids[call.rule], ids[call.target]});
      }
      for (const auto& edge : dfa_states[s].tokens) {
        if (ids[edge.target] != Grammar::kNoState)
          tokens_.push_back({edge.token, ids[edge.target]});
      }
    }
  }

  std::vector<RuleAutomaton> rules_;
  GrammarMeter* meter_;
  std::vector<std::uint32_t> offsets_;  // [rules + 1]  of each rule's states among all
  std::vector<int> heights_;            // [all states]  kNever: leads nowhere
  std::vector<Grammar::Rule> out_rules_;
  std::vector<Grammar::State> states_;
  std::vector<Grammar::ByteEdge> byte_edges_;
  std::vector<Grammar::Call> calls_;
  std::vector<Grammar::TokenEdge> tokens_;
};

}  // namespace lmd::text::detail
