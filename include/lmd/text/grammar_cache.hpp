/// \file  Compiled grammars that were used last.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/text/grammar.hpp>
#include <lmd/text/token_mask.hpp>

#include <cstddef>
#include <functional>
#include <list>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>

namespace lmd::text {

/// Compiled grammars of one vocabulary with their masks, the least recently used thrown out first. Thread safe; what
/// is thrown out lives on as long as an answer uses it.
class GrammarCache {
 public:
  using Compile = std::function<std::shared_ptr<const Grammar>()>;

  explicit GrammarCache(std::shared_ptr<const TokenTrie> trie,
                        std::size_t max_bytes = std::size_t{64} << 20)
      : trie_(std::move(trie)), max_bytes_(max_bytes) {}

  /// The grammar kept under `key`, else what `compile` makes, prepared. The key is the kind of grammar and its whole text.
  /// \throws what `compile` throws; nothing is kept then.
  [[nodiscard]] std::shared_ptr<TokenMasks> get(std::string_view key, const Compile& compile) {
    if (auto found = find(key)) return found;
    // Both without the lock: they take their time, which is the caller's and not that of who draws tokens.
    auto made = std::make_shared<TokenMasks>(compile(), trie_);
    made->prepare();
    const std::lock_guard lock(mutex_);
    if (const auto at = by_key_.find(key); at != by_key_.end()) return at->second->masks;
    entries_.push_front({std::string(key), made});
    by_key_.emplace(entries_.front().key, entries_.begin());
    shrink();
    return made;
  }

  [[nodiscard]] std::size_t size() const {
    const std::lock_guard lock(mutex_);
    return entries_.size();
  }
  [[nodiscard]] std::size_t n_bytes() const {
    const std::lock_guard lock(mutex_);
    return counted();
  }

 private:
  struct Entry {
    std::string key;
    std::shared_ptr<TokenMasks> masks;
  };

  [[nodiscard]] std::shared_ptr<TokenMasks> find(std::string_view key) {
    const std::lock_guard lock(mutex_);
    const auto at = by_key_.find(key);
    if (at == by_key_.end()) return nullptr;
    entries_.splice(entries_.begin(), entries_, at->second);
    return at->second->masks;
  }

  /// Masks grow while they are used, so this is added up anew.
  [[nodiscard]] std::size_t counted() const {
    std::size_t n = 0;
    for (const Entry& entry : entries_)
      n += 2 * sizeof(Entry) + entry.key.size() + entry.masks->n_bytes();
    return n;
  }

  void shrink() {
    while (entries_.size() > 1 && counted() > max_bytes_) {
      by_key_.erase(entries_.back().key);
      entries_.pop_back();
    }
  }

  std::shared_ptr<const TokenTrie> trie_;
  std::size_t max_bytes_;
  mutable std::mutex mutex_;
  std::list<Entry> entries_;  // the last used first
  std::unordered_map<std::string_view, std::list<Entry>::iterator>
      by_key_;  // views of the entries' keys
};

}  // namespace lmd::text
