/// \file  Reuse of sealed pages between sequences that begin with the same tokens.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/cache/block_pool.hpp>
#include <lmd/cache/page_table.hpp>

#include <algorithm>
#include <bit>
#include <list>
#include <random>
#include <span>
#include <unordered_map>
#include <vector>

namespace lmd::cache {

/// A tree of pages: a node is one page of 64 tokens after its parent's. Children are found by a
/// hash of their tokens, keyed with a secret of this process, and then compared token by token, so
/// an equal hash never shares a page. Sequences with different RoPE bases have different roots:
/// their keys differ. Least recently used leaves are forgotten first.
class PrefixTree {
 public:
  static constexpr int kRoot = -1;

  explicit PrefixTree(BlockPool& pool) : pool_(&pool) {
    std::random_device device;
    secret_ = static_cast<std::uint64_t>(device()) << 32 | device();
  }

  struct Match {
    std::vector<int> pages;  ///< one reference of each is the caller's
    int node = kRoot;        ///< where `insert` goes on
  };

  /// The longest run of remembered pages that `tokens` begins with, at most `max_pages`.
  [[nodiscard]] Match match(std::span<const int> tokens, double rope_base, int max_pages) {
    Match m;
    for (int page = 0; page < max_pages; ++page) {
      const int child = find(m.node, page_of(tokens, page), rope_base);
      if (child < 0) break;
      m.node = child;
      m.pages.push_back(nodes_[child].page);
    }
    for (const int page : m.pages)
      pool_->retain(page);
    touch_path(m.node);
    return m;
  }

  /// Remembers page `index` of a sequence, which holds 64 `tokens` after those of `parent`, and
  /// returns its node. Where an equal page is remembered already, the sequence's table takes that
  /// one instead and lets go of its own: a sequence thus holds the pages of its whole path, and no
  /// node that it may insert under can be forgotten.
  int insert(
      int parent, std::span<const int> tokens, double rope_base, PageTable& table, int index) {
    const int known = find(parent, tokens, rope_base);
    if (known >= 0) {
      pool_->retain(nodes_[known].page);
      pool_->release(table.replace(index, nodes_[known].page));
      touch_path(known);
      return known;
    }
    const int page = table[index];
    int node = 0;
    if (unused_.empty()) {
      node = static_cast<int>(nodes_.size());
      nodes_.emplace_back();
    } else {
      node = unused_.back();
      unused_.pop_back();
    }
    recency_.push_front(node);
    nodes_[node] = {parent,
                    page,
                    0,
                    key_of(parent, tokens, rope_base),
                    rope_base,
                    {tokens.begin(), tokens.end()},
                    recency_.begin()};
    by_key_.emplace(nodes_[node].key, node);
    if (parent != kRoot) ++nodes_[parent].children;
    pool_->remember(page);
    touch_path(node);
    return node;
  }

  /// Forgets the least recently used page that no sequence holds; false when there is none.
  bool evict_one() {
    for (auto at = recency_.rbegin(); at != recency_.rend(); ++at) {
      const int node = *at;
      if (nodes_[node].children > 0 || pool_->references(nodes_[node].page) > 1) continue;
      remove(node);
      return true;
    }
    return false;
  }

  [[nodiscard]] int size() const { return static_cast<int>(recency_.size()); }

 private:
  struct Node {
    int parent = kRoot;
    int page = 0;
    int children = 0;
    std::uint64_t key = 0;
    double rope_base = 0.0;
    std::vector<int> tokens;
    std::list<int>::iterator recency;
  };

  [[nodiscard]] static std::span<const int> page_of(std::span<const int> tokens, int page) {
    return tokens.subspan(static_cast<std::size_t>(page) * kPageTokens, kPageTokens);
  }

  [[nodiscard]] std::uint64_t key_of(int parent,
                                     std::span<const int> tokens,
                                     double rope_base) const {
    std::uint64_t h = secret_ ^ std::bit_cast<std::uint64_t>(rope_base);
    const auto mix = [&h](std::uint64_t x) {  // the finaliser of SplitMix64
      h = (h ^ x) + 0x9e3779b97f4a7c15u;
      h = (h ^ (h >> 30)) * 0xbf58476d1ce4e5b9u;
      h = (h ^ (h >> 27)) * 0x94d049bb133111ebu;
      h ^= h >> 31;
    };
    mix(static_cast<std::uint32_t>(parent));
    for (const int token : tokens)
      mix(static_cast<std::uint32_t>(token));
    return h;
  }

  [[nodiscard]] int find(int parent, std::span<const int> tokens, double rope_base) const {
    const auto [begin, end] = by_key_.equal_range(key_of(parent, tokens, rope_base));
    for (auto at = begin; at != end; ++at) {
      const Node& node = nodes_[at->second];
      if (node.parent == parent && node.rope_base == rope_base &&
          std::ranges::equal(node.tokens, tokens)) {
        return at->second;
      }
    }
    return -1;
  }

  /// Parents end up more recent than their children, so that leaves come first in the end.
  void touch_path(int node) {
    for (; node != kRoot; node = nodes_[node].parent) {
      recency_.splice(recency_.begin(), recency_, nodes_[node].recency);
    }
  }

  void remove(int node) {
    Node& n = nodes_[node];
    const auto [begin, end] = by_key_.equal_range(n.key);
    by_key_.erase(std::find_if(begin, end, [&](const auto& e) { return e.second == node; }));
    recency_.erase(n.recency);
    if (n.parent != kRoot) --nodes_[n.parent].children;
    pool_->forget(n.page);
    n.tokens.clear();
    unused_.push_back(node);
  }

  BlockPool* pool_;
  std::uint64_t secret_ = 0;
  std::vector<Node> nodes_;
  std::vector<int> unused_;
  std::list<int> recency_;  // most recent first
  std::unordered_multimap<std::uint64_t, int> by_key_;
};

}  // namespace lmd::cache
