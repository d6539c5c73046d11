/// \file  Reading a text by a grammar, byte by byte.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/text/grammar.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string_view>
#include <utility>
#include <vector>

namespace lmd::text {
namespace detail {

/// All readings of a text side by side, as Earley's recogniser keeps them: a rule that several readings call at
/// the same place is read once, and goes on in each of them when it ends. So the work per byte is bounded by the
/// grammar, whatever was read, and nothing is ever read twice.
///
/// Source:  Earley, "An efficient context-free parsing algorithm", CACM 13 (1970)
class GrammarChart {
 public:
  /// A state in a rule that began at some place.
  struct Item {
    std::uint32_t state;
    std::uint32_t count;  ///< times that a counted rule has been completed
    std::uint32_t node;
    bool operator==(const Item&) const = default;
  };
  /// A rule from where it was called.
  struct Node {
    std::uint32_t rule;
    std::int32_t depth;         ///< nested rules around it, itself included
    std::int32_t first_caller;  ///< -1: none, the outermost
  };
  /// Where a node's end leads.
  struct Caller {
    Item item;
    std::int32_t next;  ///< of the same node
  };
  /// The items at one place of the text. Those up to `kernel_end` read the byte before it, the others follow
  /// from these.
  struct Row {
    std::uint32_t begin = 0, kernel_end = 0, end = 0;
    std::uint32_t nodes_end = 0, callers_end = 0;
    bool completes = false;  ///< the outermost rule may end here
    [[nodiscard]] bool empty() const { return begin == end; }
  };

  /// More readings than this are not followed: first those that read a byte, then with what follows from them.
  static constexpr std::uint32_t kMaxKernel = 64;
  static constexpr std::uint32_t kMaxItems = 256;
  static constexpr int kNoLimit = INT32_MAX / 2;

  /// \param max_depth  of nested rules, counted from the outermost one
  GrammarChart(const Grammar& grammar, int max_depth) : grammar_(&grammar), max_depth_(max_depth) {}

  /// Forgets everything and begins at `state` of `rule`, `count` times completed.
  Row start(std::uint32_t rule, std::uint32_t state, std::uint32_t count) {
    items_.clear();
    nodes_.clear();
    callers_.clear();
    room_needed_ = 0;
    nodes_.push_back({rule, 0, -1});
    Row row;
    add(row, {state, count, 0}, kMaxKernel);
    row.kernel_end = 1;
    close(row);
    return row;
  }

  /// Forgets everything behind `row`.
  void cut(const Row& row) {
    items_.resize(row.end);
    nodes_.resize(row.nodes_end);
    callers_.resize(row.callers_end);
  }

  /// The row behind `row` and a byte; empty when none can stand there. \pre nothing is behind `row`
  Row step(const Row& from, std::uint8_t byte) {
    Row row;
    row.begin = row.end = static_cast<std::uint32_t>(items_.size());
    for (std::uint32_t i = from.begin; i < from.end; ++i) {
      const Item item = items_[i];
      const std::uint32_t target = grammar_->next(item.state, byte);
      if (target == Grammar::kNoState || !has_room(target, nodes_[item.node].depth)) continue;
      add(row, {target, item.count, item.node}, kMaxKernel);
    }
    row.kernel_end = row.end;
    close(row);
    return row;
  }

  /// The same for a whole token that the grammar names.
  Row step_token(const Row& from, int token) {
    Row row;
    row.begin = row.end = static_cast<std::uint32_t>(items_.size());
    for (std::uint32_t i = from.begin; i < from.end; ++i) {
      const Item item = items_[i];
      for (const Grammar::TokenEdge& edge : grammar_->token_edges(item.state)) {
        if (edge.token == token && has_room(edge.target, nodes_[item.node].depth))
          add(row, {edge.target, item.count, item.node}, kMaxKernel);
      }
    }
    row.kernel_end = row.end;
    close(row);
    return row;
  }

  [[nodiscard]] const Item& item(std::uint32_t i) const { return items_[i]; }
  [[nodiscard]] const Node& node(std::uint32_t i) const { return nodes_[i]; }
  [[nodiscard]] const Caller& caller(std::int32_t i) const {
    return callers_[static_cast<std::size_t>(i)];
  }
  [[nodiscard]] const Grammar& grammar() const { return *grammar_; }
  [[nodiscard]] int max_depth() const { return max_depth_; }
  /// A max_depth() of at least this would have changed nothing since the start.
  [[nodiscard]] int room_needed() const { return room_needed_; }
  [[nodiscard]] std::size_t n_nodes() const { return nodes_.size(); }

  /// Keeps what `row` needs alone, and returns it at its new place.
  Row keep_only(const Row& row) {
    std::vector<std::uint32_t> ids(nodes_.size(), UINT32_MAX);
    std::vector<std::uint32_t> order;
    const auto visit = [&](std::uint32_t node) {
      if (ids[node] != UINT32_MAX) return;
      ids[node] = 0;
      order.push_back(node);
    };
    visit(0);
    for (std::uint32_t i = row.begin; i < row.end; ++i)
      visit(items_[i].node);
    for (std::size_t i = 0; i < order.size(); ++i) {
      for (std::int32_t c = nodes_[order[i]].first_caller; c >= 0; c = caller(c).next)
        visit(caller(c).item.node);
    }
    std::sort(order.begin(), order.end());
    for (std::uint32_t i = 0; i < order.size(); ++i)
      ids[order[i]] = i;
    GrammarChart kept(*grammar_, max_depth_);
    for (const std::uint32_t old : order) {
      Node node = nodes_[old];
      std::int32_t last = -1;
      for (std::int32_t c = std::exchange(node.first_caller, -1); c >= 0; c = caller(c).next) {
        Caller copy = caller(c);
        copy.item.node = ids[copy.item.node];
        copy.next = -1;
        const auto at = static_cast<std::int32_t>(kept.callers_.size());
        (last < 0 ? node.first_caller : kept.callers_[static_cast<std::size_t>(last)].next) = at;
        kept.callers_.push_back(copy);
        last = at;
      }
      kept.nodes_.push_back(node);
    }
    for (std::uint32_t i = row.begin; i < row.end; ++i) {
      kept.items_.push_back(items_[i]);
      kept.items_.back().node = ids[items_[i].node];
    }
    Row out = row;
    out.begin = 0;
    out.kernel_end = row.kernel_end - row.begin;
    kept.end_row(out);
    *this = std::move(kept);
    return out;
  }

 private:
  /// Whether the way from a state to the end of its rule fits below the depth that it is at.
  [[nodiscard]] bool has_room(std::uint32_t state, std::int32_t depth) {
    const int needed = depth + grammar_->state(state).height;
    room_needed_ = std::max(room_needed_, needed);
    return needed <= max_depth_;
  }

  void end_row(Row& row) const {
    row.end = static_cast<std::uint32_t>(items_.size());
    row.nodes_end = static_cast<std::uint32_t>(nodes_.size());
    row.callers_end = static_cast<std::uint32_t>(callers_.size());
  }

  void add(Row& row, const Item& item, std::uint32_t limit = kMaxItems) {
    for (std::uint32_t i = row.begin; i < row.end; ++i) {
      if (items_[i] == item) return;
    }
    if (row.end - row.begin >= limit) return;
    items_.push_back(item);
    ++row.end;
  }

  /// Adds what follows without reading: rules that are called, and callers of rules that end.
  void close(Row& row) {
    const auto first_node = static_cast<std::uint32_t>(nodes_.size());
    for (std::uint32_t i = row.begin; i < row.end; ++i) {
      const Item item = items_[i];
      if (grammar_->state(item.state).is_final) complete(row, item);
      for (const Grammar::Call& call : grammar_->calls(item.state))
        enter(row, item, call, first_node);
    }
    end_row(row);
  }

  void complete(Row& row, const Item& item) {
    const Node node = nodes_[item.node];
    const Grammar::Rule& rule = grammar_->rule(node.rule);
    const std::uint32_t count = item.count + 1;
    if (Grammar::is_repeated(rule, item.state)) {
      if (count < rule.max_count) add(row, {rule.start, count, item.node});
      if (count < rule.min_count) return;
      if (rule.tail != Grammar::kNoState) return add(row, {rule.tail, count, item.node});
    }
    if (item.node == 0) row.completes = true;
    for (std::int32_t c = node.first_caller; c >= 0; c = caller(c).next)
      add(row, caller(c).item);
  }

  /// Calls a rule. A node of it that was made at this place is used again: since no rule matches the empty text,
  /// it cannot have ended yet.
  void enter(Row& row, const Item& from, const Grammar::Call& call, std::uint32_t first_node) {
    const Grammar::Rule& rule = grammar_->rule(call.rule);
    const std::int32_t depth = nodes_[from.node].depth + (rule.is_nested ? 1 : 0);
    if (!has_room(rule.start, depth) || !has_room(call.target, nodes_[from.node].depth)) return;
    std::uint32_t id = first_node;
    while (id < nodes_.size() && (nodes_[id].rule != call.rule || nodes_[id].depth != depth))
      ++id;
    if (id == nodes_.size()) {
      if (row.end - row.begin == kMaxItems) return;
      nodes_.push_back({call.rule, depth, -1});
      add(row, {rule.start, 0, id});
      if (rule.min_count == 0) add(row, {rule.tail, 0, id});
    }
    const Item back{call.target, from.count, from.node};
    for (std::int32_t c = nodes_[id].first_caller; c >= 0; c = caller(c).next) {
      if (caller(c).item == back) return;
    }
    callers_.push_back({back, nodes_[id].first_caller});
    nodes_[id].first_caller = static_cast<std::int32_t>(callers_.size() - 1);
  }

  const Grammar* grammar_;
  int max_depth_;
  int room_needed_ = 0;
  std::vector<Item> items_;
  std::vector<Node> nodes_;  // [0] is the outermost rule
  std::vector<Caller> callers_;
};

}  // namespace detail

/// How far an answer has come by its grammar. A value: copies go their own ways.
class GrammarMatcher {
 public:
  explicit GrammarMatcher(std::shared_ptr<const Grammar> grammar)
      : grammar_(std::move(grammar)), chart_(*grammar_, grammar_->answer_depth()) {
    const std::uint32_t start = grammar_->rule(Grammar::root()).start;
    row_ = chart_.start(Grammar::root(), start, 0);
  }

  /// Reads bytes. False, and nothing read, when they cannot stand here.
  bool advance(std::string_view bytes) {
    const detail::GrammarChart::Row before = row_;
    for (const char c : bytes) {
      row_ = chart_.step(row_, static_cast<std::uint8_t>(c));
      if (row_.empty()) return undo(before);
    }
    compact();
    return true;
  }

  /// Reads a token that the grammar names by its id. False, and nothing read, when it cannot stand here.
  bool advance_token(int token) {
    const detail::GrammarChart::Row before = row_;
    row_ = chart_.step_token(row_, token);
    if (row_.empty()) return undo(before);
    compact();
    return true;
  }

  /// Whether what was read is a whole text of the grammar.
  [[nodiscard]] bool can_end() const { return row_.completes; }

  [[nodiscard]] const std::shared_ptr<const Grammar>& grammar() const { return grammar_; }
  [[nodiscard]] const detail::GrammarChart& chart() const { return chart_; }
  [[nodiscard]] const detail::GrammarChart::Row& row() const { return row_; }

 private:
  static constexpr std::size_t kMaxNodes = 4096;

  bool undo(const detail::GrammarChart::Row& to) {
    chart_.cut(to);
    row_ = to;
    return false;
  }

  /// Keeps memory bounded however long the answer gets.
  void compact() {
    if (row_.begin > kMaxNodes || chart_.n_nodes() > n_nodes_kept_ + kMaxNodes) {
      row_ = chart_.keep_only(row_);
      n_nodes_kept_ = chart_.n_nodes();
    }
  }

  std::shared_ptr<const Grammar> grammar_;
  detail::GrammarChart chart_;
  detail::GrammarChart::Row row_;
  std::size_t n_nodes_kept_ = 0;
};

}  // namespace lmd::text
