/// \file  The longest of many strings that a text begins with.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstdint>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace lmd::text::detail {

/// A trie over bytes. The first byte is looked up in an array, so that a text that begins with none
/// of the strings costs one load.
class ByteTrie {
 public:
  struct Match {
    std::size_t n_bytes = 0;  ///< 0: none
    int value = -1;
  };

  ByteTrie() { first_.fill(kNone); }

  /// The value of a string added twice is the last one. Empty strings are ignored.
  void add(std::string_view text, int value) {
    if (text.empty()) return;
    std::uint32_t& root = first_[static_cast<unsigned char>(text[0])];
    if (root == kNone) root = new_node();
    std::uint32_t node = root;
    for (const char c : text.substr(1)) {
      const auto [at, is_new] = edges_.try_emplace(edge(node, c), 0);
      if (is_new) at->second = new_node();
      node = at->second;
    }
    values_[node] = value;
  }

  [[nodiscard]] bool empty() const { return values_.empty(); }

  [[nodiscard]] Match longest(std::string_view text) const {
    Match best;
    if (text.empty()) return best;
    std::uint32_t node = first_[static_cast<unsigned char>(text[0])];
    if (node == kNone) return best;
    for (std::size_t n = 1;; ++n) {
      if (values_[node] >= 0) best = {n, values_[node]};
      if (n == text.size()) return best;
      const auto at = edges_.find(edge(node, text[n]));
      if (at == edges_.end()) return best;
      node = at->second;
    }
  }

 private:
  static constexpr std::uint32_t kNone = UINT32_MAX;

  static std::uint64_t edge(std::uint32_t node, char c) {
    return std::uint64_t{node} << 8 | static_cast<unsigned char>(c);
  }
  std::uint32_t new_node() {
    values_.push_back(-1);
    return static_cast<std::uint32_t>(values_.size() - 1);
  }

  std::array<std::uint32_t, 256> first_;
  std::unordered_map<std::uint64_t, std::uint32_t> edges_;  // (node, byte) -> node
  std::vector<int> values_;                                 // [nodes]  -1: no string ends here
};

}  // namespace lmd::text::detail
