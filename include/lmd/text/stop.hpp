/// \file  Stop strings, found in streamed text wherever its pieces end.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/core/error.hpp>

#include <algorithm>
#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace lmd::text {

/// An automaton that finds any of the stop strings in one pass, whatever their number.
///
/// Source:  Aho and Corasick, "Efficient string matching", CACM 18 (1975)
class StopStrings {
 public:
  /// \throws Error(kConfig) when one of them is empty: it would match everywhere.
  explicit StopStrings(const std::vector<std::string>& strings) {
    for (std::size_t i = 0; i < strings.size(); ++i)
      add(strings[i], static_cast<int>(i));
    link();
  }

  [[nodiscard]] bool empty() const { return nodes_.size() == 1; }

 private:
  friend class StopMatcher;

  /// The longest suffix of the text that begins a stop string.
  struct Node {
    std::uint32_t depth = 0;    // its bytes
    std::uint32_t fail = 0;     // the node of its longest proper suffix that is a node
    std::int32_t string = -1;   // the longest stop string that ends here, -1: none
    std::uint32_t n_bytes = 0;  // of that string
  };

  static std::uint64_t edge(std::uint32_t node, char c) {
    return std::uint64_t{node} << 8 | static_cast<unsigned char>(c);
  }

  void add(const std::string& text, int index) {
    LMD_REQUIRE(!text.empty(), ErrorCode::kConfig,
                "stop string " + std::to_string(index) + " is empty, expected at least one byte");
    std::uint32_t node = 0;
    for (const char c : text) {
      const auto [at, is_new] =
          edges_.try_emplace(edge(node, c), static_cast<std::uint32_t>(nodes_.size()));
      if (is_new) {
        nodes_.push_back({.depth = nodes_[node].depth + 1});
        order_.push_back({node, c});
      }
      node = at->second;
    }
    if (nodes_[node].string < 0) nodes_[node].string = index;
    nodes_[node].n_bytes = nodes_[node].depth;
  }

  /// Sets the fail links in order of depth.
  void link() {
    std::vector<std::uint32_t> by_depth(order_.size());
    for (std::size_t i = 0; i < by_depth.size(); ++i)
      by_depth[i] = static_cast<std::uint32_t>(i + 1);
    std::stable_sort(by_depth.begin(), by_depth.end(), [&](std::uint32_t a, std::uint32_t b) {
      return nodes_[a].depth < nodes_[b].depth;
    });
    for (const std::uint32_t node : by_depth) {
      const auto [parent, c] = order_[node - 1];
      Node& self = nodes_[node];
      self.fail = parent == 0 ? 0 : step(nodes_[parent].fail, c);
      if (self.string >= 0) continue;
      self.string = nodes_[self.fail].string;
      self.n_bytes = nodes_[self.fail].n_bytes;
    }
  }

  /// The node after reading `c` at `node`; amortised constant time.
  [[nodiscard]] std::uint32_t step(std::uint32_t node, char c) const {
    for (;;) {
      const auto at = edges_.find(edge(node, c));
      if (at != edges_.end()) return at->second;
      if (node == 0) return 0;
      node = nodes_[node].fail;
    }
  }

  /// The edge that made a node.
  struct Origin {
    std::uint32_t parent;
    char byte;
  };
  std::vector<Node> nodes_ = std::vector<Node>(1);
  std::vector<Origin> order_;                               // [nodes - 1]  of node i + 1
  std::unordered_map<std::uint64_t, std::uint32_t> edges_;  // (node, byte) -> node
};

/// Lets text through until a stop string is complete. Holds back only what may still become one.
///
/// The string that is complete first wins; of several that end at the same byte, the longest. How
/// the text is cut into calls changes nothing.
/// \pre the strings outlive the object
class StopMatcher {
 public:
  explicit StopMatcher(const StopStrings& strings) : strings_(&strings) {}

  /// The text that is certainly before a stop string. After a match nothing more comes out.
  [[nodiscard]] std::string feed(std::string_view text) {
    std::string out;
    if (is_stopped()) return out;
    held_ += text;
    const std::size_t n_old = held_.size() - text.size();
    for (std::size_t i = n_old; i < held_.size(); ++i) {
      node_ = strings_->step(node_, held_[i]);
      const StopStrings::Node& node = strings_->nodes_[node_];
      if (node.string < 0) continue;
      matched_ = node.string;
      held_.resize(i + 1 - node.n_bytes);
      out.swap(held_);
      return out;
    }
    const std::size_t n_kept = strings_->nodes_[node_].depth;
    out.assign(held_, 0, held_.size() - n_kept);
    held_.erase(0, held_.size() - n_kept);
    return out;
  }

  /// What was held back and, at the end of the text, begins no stop string any more.
  [[nodiscard]] std::string flush() {
    std::string out;
    out.swap(held_);
    node_ = 0;
    return out;
  }

  [[nodiscard]] bool is_stopped() const { return matched_ >= 0; }
  /// Index of the stop string found, -1 before.
  [[nodiscard]] int matched() const { return matched_; }

 private:
  const StopStrings* strings_;
  std::string held_;
  std::uint32_t node_ = 0;
  int matched_ = -1;
};

}  // namespace lmd::text
