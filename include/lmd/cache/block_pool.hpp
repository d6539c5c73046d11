/// \file  Sealed pages as numbered blocks with reference counts. No memory, only the bookkeeping.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/core/error.hpp>

#include <cstdint>
#include <string>
#include <vector>

namespace lmd::cache {

/// Pages 0 .. size - 1. A page is free (no references), in use, or *idle*: kept only because the
/// prefix tree remembers it, and available as soon as the tree forgets it.
class BlockPool {
 public:
  /// \throws Error(kConfig) unless 0 <= size <= 2^31 - 1.
  explicit BlockPool(std::int64_t size) {
    LMD_REQUIRE(size >= 0 && size <= INT32_MAX, ErrorCode::kConfig,
                "a pool of " + std::to_string(size) + " pages");
    references_.assign(static_cast<std::size_t>(size), 0);
    is_cached_.assign(static_cast<std::size_t>(size), false);
    free_.reserve(static_cast<std::size_t>(size));
    for (std::int64_t page = size - 1; page >= 0; --page)
      free_.push_back(static_cast<int>(page));
  }

  [[nodiscard]] int size() const { return static_cast<int>(references_.size()); }
  [[nodiscard]] int n_free() const { return static_cast<int>(free_.size()); }
  [[nodiscard]] int n_idle() const { return n_idle_; }
  [[nodiscard]] int references(int page) const { return references_[page]; }

  /// A page with one reference, or -1 when none is free.
  [[nodiscard]] int allocate() {
    if (free_.empty()) return -1;
    const int page = free_.back();
    free_.pop_back();
    references_[page] = 1;
    return page;
  }

  void retain(int page) {
    if (is_idle(page)) --n_idle_;
    ++references_[page];
  }

  /// Frees the page with its last reference.
  void release(int page) {
    LMD_REQUIRE(references_[page] > 0, ErrorCode::kInternal,
                "page " + std::to_string(page) + " released more often than retained");
    if (--references_[page] == 0) free_.push_back(page);
    if (is_idle(page)) ++n_idle_;
  }

  /// The prefix tree takes a reference of its own.
  void remember(int page) {
    ++references_[page];
    is_cached_[page] = true;
  }

  /// The prefix tree gives its reference back.
  void forget(int page) {
    if (is_idle(page)) --n_idle_;
    is_cached_[page] = false;
    release(page);
  }

 private:
  [[nodiscard]] bool is_idle(int page) const { return is_cached_[page] && references_[page] == 1; }

  std::vector<int> references_;
  std::vector<bool> is_cached_;
  std::vector<int> free_;
  int n_idle_ = 0;
};

}  // namespace lmd::cache
