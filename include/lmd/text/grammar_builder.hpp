/// \file  Grammars put together from expressions.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/text/grammar.hpp>
#include <lmd/text/grammar_automaton.hpp>
#include <lmd/text/grammar_budget.hpp>
#include <lmd/text/grammar_layout.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <tuple>
#include <utility>
#include <vector>

namespace lmd::text::detail {

/// What front ends write grammars with: texts, choices, repetitions, rules that call each other. Everything counts
/// against the budget.
class GrammarBuilder {
 public:
  /// A part of a grammar; belongs to one builder.
  struct Expr {
    std::uint32_t id = 0;
  };
  struct Rule {
    std::uint32_t id = 0;
  };
  /// An edge of a graph that is read through an expression.
  struct GraphEdge {
    std::uint32_t from;
    Expr expr;
    std::uint32_t to;
  };
  static constexpr int kUnbounded = -1;

  /// While one lives, repetitions are all written out, so that automata can be made of them.
  class WriteOut {
   public:
    explicit WriteOut(GrammarBuilder& builder)
        : writes_out_(&builder.writes_out_), was_(*writes_out_) {
      *writes_out_ = true;
    }
    WriteOut(const WriteOut&) = delete;
    WriteOut& operator=(const WriteOut&) = delete;
    ~WriteOut() { *writes_out_ = was_; }

   private:
    bool* writes_out_;
    bool was_;
  };

  explicit GrammarBuilder(GrammarMeter& meter) : meter_(&meter) {
    rules_.emplace_back();  // the root
    (void)add(Kind::kSequence);
  }

  [[nodiscard]] GrammarMeter& meter() { return *meter_; }

  [[nodiscard]] Expr empty() const { return {0}; }
  /// Matches no text, not even the empty one.
  [[nodiscard]] Expr nothing() { return add(Kind::kChoice); }
  [[nodiscard]] Expr text(std::string_view bytes) {
    meter_->spend(bytes.size());
    const Expr out = add(Kind::kText);
    node(out).text = bytes;
    return out;
  }
  [[nodiscard]] Expr byte_range(std::uint8_t first, std::uint8_t last) {
    const Expr out = add(Kind::kRange);
    node(out).first = first;
    node(out).last = last;
    return out;
  }
  [[nodiscard]] Expr sequence(std::vector<Expr> parts) {
    return add(Kind::kSequence, std::move(parts));
  }
  [[nodiscard]] Expr choice(std::vector<Expr> parts) {
    return add(Kind::kChoice, std::move(parts));
  }
  [[nodiscard]] Expr optional(Expr part) { return choice({empty(), part}); }
  [[nodiscard]] Expr token(int id) {
    const Expr out = add(Kind::kToken);
    node(out).value = static_cast<std::uint32_t>(id);
    return out;
  }
  /// The texts of an automaton without calls.
  [[nodiscard]] Expr automaton(std::shared_ptr<const Dfa> dfa) {
    const Expr out = add(Kind::kAutomaton);
    node(out).dfa = std::move(dfa);
    return out;
  }
  /// Every way from state 0 to the last of `n_states`.
  [[nodiscard]] Expr graph(std::uint32_t n_states, std::vector<GraphEdge> edges) {
    const Expr out = add(Kind::kGraph);
    meter_->spend(n_states + edges.size());
    node(out).value = n_states;
    node(out).edges = std::move(edges);
    return out;
  }

  /// `part` from `min` to `max` times, kUnbounded: any number of times. Short ones are written out; else the count
  /// becomes a reader's business, so that large ones cost no more than small ones.
  /// \pre 0 <= min <= max
  [[nodiscard]] Expr repeat(Expr part, int min, int max) {
    if (max == kUnbounded) {
      const Expr star = add(Kind::kStar, {part});
      return min == 0 ? star : sequence({repeat(part, min, min), star});
    }
    if (max == 0) return empty();
    if (!is_written_out(part, max)) return counted(part, min, max, {});
    Expr tail = empty();
    for (int i = min; i < max; ++i)
      tail = optional(sequence({part, tail}));
    std::vector<Expr> parts(static_cast<std::size_t>(min), part);
    parts.push_back(tail);
    return sequence(std::move(parts));
  }

  /// The same, and then `tail`, a text that is not empty: in one rule, so that a reader knows where it stands.
  [[nodiscard]] Expr repeat_until(Expr part, int min, int max, std::string_view tail) {
    const bool is_counted = max != kUnbounded && !is_written_out(part, max);
    return is_counted ? counted(part, min, max, tail)
                      : sequence({repeat(part, min, max), text(tail)});
  }

  /// A rule without a body yet. `is_nested`: an object or an array, which answer_depth counts.
  [[nodiscard]] Rule rule(bool is_nested) {
    rules_.push_back({.is_nested = is_nested});
    meter_->hold(sizeof(Grammar::Rule));
    return {static_cast<std::uint32_t>(rules_.size() - 1)};
  }
  void define(Rule rule, Expr body) { rules_[rule.id].body = body; }
  [[nodiscard]] Expr call(Rule rule) {
    const Expr out = add(Kind::kCall);
    node(out).value = rule.id;
    return out;
  }
  /// A rule of its own for `body`, called.
  [[nodiscard]] Expr call_of(Expr body, bool is_nested = false) {
    const Rule r = rule(is_nested);
    define(r, body);
    return call(r);
  }

  /// The automaton of an expression without calls and tokens.
  [[nodiscard]] Dfa dfa_of(Expr expr) {
    const Nfa nfa = nfa_of(expr);
    n_nfa_edges_ -= nfa.edges.size();  // it is gone when this returns
    return SubsetConstruction(nfa, std::vector<bool>(rules_.size(), false), *meter_).run();
  }

  /// The grammar of `root`.
  /// \throws Error(kConfig) when the budget is exceeded, a rule begins with itself, or no text satisfies it.
  [[nodiscard]] std::shared_ptr<const Grammar> finish(Expr root) {
    rules_[0].body = root;
    std::vector<Nfa> nfas;
    for (std::size_t i = 0; i < rules_.size(); ++i)
      nfas.push_back(nfa_of(rules_[i].body));
    const std::vector<bool> is_nullable = nullable_rules(nfas);
    std::vector<RuleAutomaton> automata;
    for (std::size_t i = 0; i < rules_.size(); ++i) {
      automata.push_back(automaton_of(i, nfas[i], is_nullable));
      nfas[i] = {};
    }
    return std::make_shared<const Grammar>(GrammarLayout(std::move(automata), *meter_).run());
  }

 private:
  enum class Kind : std::uint8_t {
    kText,
    kRange,
    kSequence,
    kChoice,
    kStar,
    kCall,
    kToken,
    kAutomaton,
    kGraph
  };
  struct Node {
    Kind kind = Kind::kSequence;
    std::uint8_t first = 0, last = 0;
    std::uint32_t value = 0;  // rule, token, states of a graph
    std::vector<Expr> parts;
    std::string text;
    std::vector<GraphEdge> edges;
    std::shared_ptr<const Dfa> dfa;
    std::size_t size = 1;  // states that it takes, about
  };
  struct RuleBody {
    Expr body = {};
    std::uint32_t min_count = 1;
    std::uint32_t max_count = 1;
    bool is_nested = false;
    std::string tail = {};  // behind the repetitions
  };
  static constexpr int kMaxWrittenOut = 32;
  static constexpr std::size_t kMaxWrittenSize = 128;
  static constexpr std::size_t kMaxNfaEdges = std::size_t{1} << 20;  // 20 MiB of them

  Expr add(Kind kind, std::vector<Expr> parts = {}) {
    meter_->spend(1 + parts.size());
    Node out;
    out.kind = kind;
    out.parts = std::move(parts);
    nodes_.push_back(std::move(out));
    const Expr expr{static_cast<std::uint32_t>(nodes_.size() - 1)};
    for (const Expr part : node(expr).parts)
      node(expr).size += size(part);
    return expr;
  }
  [[nodiscard]] Node& node(Expr expr) { return nodes_[expr.id]; }
  [[nodiscard]] std::size_t size(Expr expr) const {
    const Node& n = nodes_[expr.id];
    return n.size + n.text.size() + 4 * n.edges.size() + (n.dfa ? n.dfa->states.size() : 0);
  }

  [[nodiscard]] bool is_written_out(Expr part, int max) const {
    const bool is_short =
        max <= kMaxWrittenOut && size(part) * static_cast<std::size_t>(max) <= kMaxWrittenSize;
    return is_short || writes_out_;
  }

  [[nodiscard]] Expr counted(Expr part, int min, int max, std::string_view tail) {
    const auto [at, is_new] = counted_.try_emplace({part.id, min, max, std::string(tail)});
    if (!is_new) return call(at->second);
    const Rule r = rule(false);
    define(r, part);
    rules_[r.id].min_count = static_cast<std::uint32_t>(min);
    rules_[r.id].max_count = static_cast<std::uint32_t>(max);
    rules_[r.id].tail = tail;
    at->second = r;
    return call(r);
  }

  [[nodiscard]] RuleAutomaton automaton_of(std::size_t i,
                                           const Nfa& nfa,
                                           const std::vector<bool>& is_nullable) {
    const RuleBody& rule = rules_[i];
    RuleAutomaton out;
    out.dfa = SubsetConstruction(nfa, is_nullable, *meter_).run();
    out.min_count = rule.min_count;
    out.max_count = rule.max_count;
    out.is_nested = rule.is_nested;
    if (i == 0) return out;
    if (!rule.tail.empty() && out.dfa.states[0].is_final) out.min_count = 0;
    if (is_nullable[i]) out.min_count = 1;  // callers pass it by instead
    out.dfa.drop_empty_text();
    if (rule.tail.empty()) return out;
    out.tail = static_cast<std::uint32_t>(out.dfa.states.size());
    for (const char c : rule.tail) {
      const auto byte = static_cast<std::uint8_t>(c);
      const auto next = static_cast<std::uint32_t>(out.dfa.states.size() + 1);
      out.dfa.states.emplace_back().bytes.push_back({next, byte, byte});
      meter_->hold(sizeof(Grammar::State) + sizeof(Grammar::ByteEdge));
    }
    out.dfa.states.emplace_back().is_final = true;
    return out;
  }

  [[nodiscard]] Nfa nfa_of(Expr expr) {
    Nfa nfa;
    write(nfa, expr, Nfa::kStart, Nfa::kAccept);
    n_nfa_edges_ += nfa.edges.size();
    return nfa;
  }

  void link(Nfa& nfa, std::uint32_t from, Nfa::Edge edge) {
    meter_->spend(1);
    LMD_REQUIRE(n_nfa_edges_ + nfa.edges.size() < kMaxNfaEdges, ErrorCode::kConfig,
                "grammar: takes more than " + std::to_string(kMaxNfaEdges) + " edges");
    nfa.add(from, edge);
  }
  void link(Nfa& nfa, std::uint32_t from, std::uint32_t to) {
    link(nfa, from, {.symbol = Nfa::Symbol::kNothing, .target = to});
  }

  /// Adds the ways through `expr` from one state to another.
  void write(Nfa& nfa, Expr expr, std::uint32_t from, std::uint32_t to) {
    const Node& n = nodes_[expr.id];
    switch (n.kind) {
      case Kind::kText:
        return write_text(nfa, n.text, from, to);
      case Kind::kRange:
        return link(
            nfa, from,
            {.symbol = Nfa::Symbol::kBytes, .first = n.first, .last = n.last, .target = to});
      case Kind::kCall:
        return link(nfa, from, {.symbol = Nfa::Symbol::kCall, .value = n.value, .target = to});
      case Kind::kToken:
        return link(nfa, from, {.symbol = Nfa::Symbol::kToken, .value = n.value, .target = to});
      case Kind::kChoice:
        for (const Expr part : n.parts)
          write(nfa, part, from, to);
        return;
      case Kind::kSequence: {
        for (std::size_t i = 0; i + 1 < n.parts.size(); ++i) {
          const std::uint32_t middle = nfa.add_state();
          write(nfa, n.parts[i], from, middle);
          from = middle;
        }
        return n.parts.empty() ? link(nfa, from, to) : write(nfa, n.parts.back(), from, to);
      }
      case Kind::kStar: {
        const std::uint32_t middle = nfa.add_state();
        const std::uint32_t end = nfa.add_state();
        link(nfa, from, middle);
        write(nfa, n.parts[0], middle, end);
        link(nfa, end, middle);
        return link(nfa, middle, to);
      }
      case Kind::kAutomaton:
        return write_automaton(nfa, *n.dfa, from, to);
      case Kind::kGraph:
        return write_graph(nfa, n, from, to);
    }
  }

  void write_text(Nfa& nfa, std::string_view bytes, std::uint32_t from, std::uint32_t to) {
    if (bytes.empty()) return link(nfa, from, to);
    for (std::size_t i = 0; i < bytes.size(); ++i) {
      const auto byte = static_cast<std::uint8_t>(bytes[i]);
      const std::uint32_t next = i + 1 == bytes.size() ? to : nfa.add_state();
      link(nfa, from, {.symbol = Nfa::Symbol::kBytes, .first = byte, .last = byte, .target = next});
      from = next;
    }
  }

  void write_automaton(Nfa& nfa, const Dfa& dfa, std::uint32_t from, std::uint32_t to) {
    const auto base = static_cast<std::uint32_t>(nfa.heads.size());
    for (std::size_t i = 0; i < dfa.states.size(); ++i)
      (void)nfa.add_state();
    link(nfa, from, base);
    for (std::uint32_t i = 0; i < dfa.states.size(); ++i) {
      for (const auto& edge : dfa.states[i].bytes) {
        link(nfa, base + i,
             {.symbol = Nfa::Symbol::kBytes,
              .first = edge.first,
              .last = edge.last,
              .target = base + edge.target});
      }
      if (dfa.states[i].is_final) link(nfa, base + i, to);
    }
  }

  void write_graph(Nfa& nfa, const Node& n, std::uint32_t from, std::uint32_t to) {
    const auto base = static_cast<std::uint32_t>(nfa.heads.size());
    for (std::uint32_t i = 0; i < n.value; ++i)
      (void)nfa.add_state();
    link(nfa, from, base);
    for (const GraphEdge& edge : n.edges)
      write(nfa, edge.expr, base + edge.from, base + edge.to);
    link(nfa, base + n.value - 1, to);
  }

  /// Which rules match the empty text: those whose end is reached through nothing but such rules.
  [[nodiscard]] std::vector<bool> nullable_rules(const std::vector<Nfa>& nfas) {
    std::vector<bool> is_nullable(nfas.size(), false);
    for (bool has_changed = true; std::exchange(has_changed, false);) {
      for (std::size_t i = 0; i < nfas.size(); ++i) {
        if (is_nullable[i] || !rules_[i].tail.empty() ||
            (rules_[i].min_count > 0 && !is_passed(nfas[i], is_nullable)))
          continue;
        is_nullable[i] = has_changed = true;
      }
    }
    return is_nullable;
  }

  [[nodiscard]] bool is_passed(const Nfa& nfa, const std::vector<bool>& is_nullable) {
    std::vector<std::uint32_t> reached = {Nfa::kStart};
    std::vector<bool> is_seen(nfa.heads.size(), false);
    for (std::size_t i = 0; i < reached.size() && !is_seen[Nfa::kAccept]; ++i) {
      nfa.for_each(reached[i], [&](const Nfa::Edge& edge) {
        meter_->spend(1);
        const bool is_free = edge.symbol == Nfa::Symbol::kNothing ||
                             (edge.symbol == Nfa::Symbol::kCall && is_nullable[edge.value]);
        if (!is_free || is_seen[edge.target]) return;
        is_seen[edge.target] = true;
        reached.push_back(edge.target);
      });
    }
    return is_seen[Nfa::kAccept];
  }

  GrammarMeter* meter_;
  std::vector<Node> nodes_;  // [0] is the empty text
  std::vector<RuleBody> rules_;
  std::map<std::tuple<std::uint32_t, int, int, std::string>, Rule> counted_;  // part, counts, tail
  std::size_t n_nfa_edges_ = 0;
  bool writes_out_ = false;
};

}  // namespace lmd::text::detail
