/// \file  Which sealed pages a sequence reads, by position.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/cache/block_pool.hpp>
#include <lmd/cache/tile.hpp>

#include <utility>
#include <vector>

namespace lmd::cache {

/// Page i holds tokens 64 i .. 64 i + 63. Every page in the table carries one reference of it.
class PageTable {
 public:
  [[nodiscard]] int size() const { return static_cast<int>(ids_.size()); }
  [[nodiscard]] const std::int32_t* data() const { return ids_.data(); }
  [[nodiscard]] std::int32_t operator[](int page) const { return ids_[page]; }

  /// Takes over the caller's reference.
  void push_back(int page) { ids_.push_back(page); }

  /// Takes over the caller's reference of `id` and gives the one of the page before to the caller.
  int replace(int page, int id) { return std::exchange(ids_[page], id); }

  /// Releases every page.
  void clear(BlockPool& pool) {
    for (const std::int32_t page : ids_)
      pool.release(page);
    ids_.clear();
  }

 private:
  std::vector<std::int32_t> ids_;
};

/// Pages that are sealed once the cache holds `tokens` tokens.
[[nodiscard]] constexpr int sealed_pages(int tokens) {
  return tokens / kPageTokens;
}

/// Pages that a prompt of `tokens` tokens may take from others: its last token must be computed,
/// and reads its own page at 16 bit.
[[nodiscard]] constexpr int reusable_pages(int tokens) {
  return (tokens - 1) / kPageTokens;
}

}  // namespace lmd::cache
