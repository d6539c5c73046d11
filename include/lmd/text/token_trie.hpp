/// \file  The bytes of a vocabulary's tokens, as a trie in one pass of memory.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/text/tokenizer.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace lmd::text {

/// Which tokens begin with which bytes. Nodes lie in depth-first order, so that a walk reads memory forwards and
/// leaves out a subtree by one jump; ByteTrie, which finds one string at a time, hashes every edge. Special tokens and
/// tokens without bytes are not in it. Immutable; one serves all grammars of a model.
class TokenTrie {
 public:
  struct Node {
    std::uint32_t end;          ///< one past the last node below
    std::uint32_t first_token;  ///< in tokens(); those of the next node end the list
    std::uint16_t depth;        ///< bytes; 0 is the root
    std::uint8_t byte;          ///< the last one
  };

  /// Tokens of more bytes are left out: no text needs them.
  static constexpr std::size_t kMaxTokenBytes = 1024;

  explicit TokenTrie(const Tokenizer& tokenizer)
      : drops_first_space_(tokenizer.drops_first_space()), n_tokens_(tokenizer.vocab_size()) {
    std::vector<std::pair<std::string, int>> sorted;
    for (int id = 0; id < n_tokens_; ++id) {
      std::string bytes;
      if (!tokenizer.is_special(id)) tokenizer.append_piece(id, true, bytes);
      ends_.push_back(static_cast<std::uint32_t>(bytes_.size() + bytes.size()));
      bytes_ += bytes;
      if (!bytes.empty() && bytes.size() <= kMaxTokenBytes)
        sorted.emplace_back(std::move(bytes), id);
    }
    std::sort(sorted.begin(), sorted.end());
    build(sorted);
  }

  [[nodiscard]] std::span<const Node> nodes() const {  ///< [0] is the root; the last is a sentinel
    return nodes_;
  }
  [[nodiscard]] std::span<const int> tokens_at(std::uint32_t node) const {
    const std::uint32_t begin = nodes_[node].first_token;
    return std::span<const int>(tokens_).subspan(begin, nodes_[node + 1].first_token - begin);
  }
  [[nodiscard]] bool has_children(std::uint32_t node) const { return nodes_[node].end > node + 1; }

  /// The bytes of a token; empty for special ones and ids outside the vocabulary.
  [[nodiscard]] std::string_view bytes(int token) const {
    if (token < 0 || token >= n_tokens_) return {};
    const auto i = static_cast<std::size_t>(token);
    const std::uint32_t begin = i == 0 ? 0 : ends_[i - 1];
    return std::string_view(bytes_).substr(begin, ends_[i] - begin);
  }

  [[nodiscard]] int n_tokens() const { return n_tokens_; }  ///< special ones included
  [[nodiscard]] std::size_t max_token_bytes() const { return max_token_bytes_; }
  /// The node of a single space, 0 when no token begins with one.
  [[nodiscard]] std::uint32_t space_node() const { return space_node_; }
  /// Whether a space at the beginning of an answer is the tokenizer's, not the text's.
  [[nodiscard]] bool drops_first_space() const { return drops_first_space_; }

 private:
  void build(const std::vector<std::pair<std::string, int>>& sorted) {
    nodes_.push_back({0, 0, 0, 0});
    std::vector<std::uint32_t> path = {0};  // nodes of the last token's bytes
    std::string_view last;
    for (const auto& [bytes, id] : sorted) {
      std::size_t n_common = 0;
      while (n_common < last.size() && n_common < bytes.size() && last[n_common] == bytes[n_common])
        ++n_common;
      close(path, n_common);
      for (std::size_t i = n_common; i < bytes.size(); ++i) {
        path.push_back(static_cast<std::uint32_t>(nodes_.size()));
        nodes_.push_back({0, static_cast<std::uint32_t>(tokens_.size()),
                          static_cast<std::uint16_t>(i + 1), static_cast<std::uint8_t>(bytes[i])});
      }
      tokens_.push_back(id);
      max_token_bytes_ = std::max(max_token_bytes_, bytes.size());
      last = bytes;
    }
    close(path, 0);
    nodes_[0].end = static_cast<std::uint32_t>(nodes_.size());
    nodes_.push_back({static_cast<std::uint32_t>(nodes_.size()) + 1,
                      static_cast<std::uint32_t>(tokens_.size()), 0, 0});
    find_space();
  }

  /// Ends the nodes of `path` that are deeper than `depth`.
  void close(std::vector<std::uint32_t>& path, std::size_t depth) {
    while (path.size() > depth + 1) {
      nodes_[path.back()].end = static_cast<std::uint32_t>(nodes_.size());
      path.pop_back();
    }
  }

  void find_space() {
    for (std::uint32_t i = 1; i + 1 < nodes_.size(); i = nodes_[i].end) {
      if (nodes_[i].byte == ' ') space_node_ = i;
    }
  }

  std::vector<Node> nodes_;
  std::vector<int> tokens_;          // by node, those of equal bytes together
  std::string bytes_;                // of all tokens
  std::vector<std::uint32_t> ends_;  // [n_tokens]  one past the last byte of each
  bool drops_first_space_;
  int n_tokens_;
  std::size_t max_token_bytes_ = 0;
  std::uint32_t space_node_ = 0;
};

}  // namespace lmd::text
