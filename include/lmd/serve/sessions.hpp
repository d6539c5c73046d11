/// \file  Conversations that the server remembers, and session ids that are in use.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/serve/limits.hpp>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <compare>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <utility>
#include <vector>

namespace lmd::serve {

/// Ids are the client's own: those of others are out of reach.
struct SessionKey {
  std::uint64_t client = 0;  ///< ApiRequest::client
  std::int64_t id = 0;       ///< session_id

  friend auto operator<=>(const SessionKey&, const SessionKey&) = default;
};

/// What was said under an id, as tokens. Used by whoever holds its lease, but for the flags.
struct Session {
  std::vector<int> ids;  ///< prompts and answers in order
  std::atomic<bool> is_cancelled = false;
  bool is_busy = false;    ///< guarded by Sessions
  bool is_ending = false;  ///< it goes with its lease, whatever that says; guarded by Sessions
  std::chrono::steady_clock::time_point last_use;
};

/// Bounded in number: of the client that has the most, the session that was used longest ago makes room. May be called
/// from any thread.
class Sessions {
 public:
  using Clock = std::chrono::steady_clock;

  /// The right to use a session, given back when it is destroyed.
  class Lease {
   public:
    Lease(Sessions& owner, const SessionKey& key, std::shared_ptr<Session> session)
        : owner_(&owner), key_(key), session_(std::move(session)) {}
    Lease(const Lease&) = delete;
    Lease& operator=(const Lease&) = delete;
    ~Lease() { owner_->release(key_, *session_, is_kept_); }

    [[nodiscard]] Session& session() { return *session_; }
    /// Whether the session outlives the lease. It does not, unless somebody says so.
    void keep(bool is_kept = true) { is_kept_ = is_kept; }

   private:
    Sessions* owner_;
    SessionKey key_;
    std::shared_ptr<Session> session_;
    bool is_kept_ = false;
  };

  explicit Sessions(std::size_t max_sessions = kMaxSessions,
                    std::chrono::seconds max_idle = std::chrono::seconds(kSessionIdleSeconds))
      : max_sessions_(max_sessions), max_idle_(max_idle) {}

  enum class Refusal { kNone, kOccupied, kFull };

  /// The session of that key, a fresh one where there is none; null and why where it cannot be had.
  [[nodiscard]] std::pair<std::unique_ptr<Lease>, Refusal> occupy(const SessionKey& key,
                                                                  Clock::time_point now) {
    const std::lock_guard lock(mutex_);
    forget_idle(now);
    auto at = sessions_.find(key);
    if (at != sessions_.end() && at->second->is_busy) return {nullptr, Refusal::kOccupied};
    if (at == sessions_.end()) {
      if (sessions_.size() >= max_sessions_ && !make_room()) return {nullptr, Refusal::kFull};
      at = sessions_.emplace(key, std::make_shared<Session>()).first;
    }
    Session& session = *at->second;
    session.is_busy = true;
    session.is_cancelled = false;
    session.last_use = now;
    return {std::make_unique<Lease>(*this, key, at->second), Refusal::kNone};
  }

  /// Stops the answer of that session, if one is being given. Returns the tokens that it remembers, 0 where it
  /// is in use.
  std::size_t cancel(const SessionKey& key) { return stop(key, false); }

  /// The same, and forgets the session.
  std::size_t end(const SessionKey& key) { return stop(key, true); }

  [[nodiscard]] std::size_t size() const {
    const std::lock_guard lock(mutex_);
    return sessions_.size();
  }

 private:
  void release(const SessionKey& key, Session& session, bool is_kept) {
    const std::lock_guard lock(mutex_);
    session.is_busy = false;
    session.last_use = Clock::now();
    if (!is_kept || session.is_ending) sessions_.erase(key);
  }

  std::size_t stop(const SessionKey& key, bool is_end) {
    const std::lock_guard lock(mutex_);
    const auto at = sessions_.find(key);
    if (at == sessions_.end()) return 0;
    Session& session = *at->second;
    session.is_cancelled = true;
    session.is_ending |= is_end;
    const std::size_t n = session.is_busy ? 0 : session.ids.size();
    if (is_end && !session.is_busy) sessions_.erase(at);
    return n;
  }

  void forget_idle(Clock::time_point now) {
    std::erase_if(sessions_, [&](const auto& entry) {
      return !entry.second->is_busy && now - entry.second->last_use > max_idle_;
    });
  }

  /// One client cannot push out what others say: those with more sessions lose theirs first. False when all are in
  /// use.
  bool make_room() {
    using Iterator = std::map<SessionKey, std::shared_ptr<Session>>::iterator;
    Iterator victim = sessions_.end();
    std::ptrdiff_t most = 0;
    for (Iterator begin = sessions_.begin();
         begin != sessions_.end();) {  // a client's stand together
      Iterator end = begin;
      Iterator oldest = sessions_.end();
      std::ptrdiff_t n = 0;
      for (; end != sessions_.end() && end->first.client == begin->first.client; ++end, ++n)
        if (is_older(end, oldest)) oldest = end;
      const bool is_better = n > most || (n == most && is_older(oldest, victim));
      if (oldest != sessions_.end() && is_better) {
        victim = oldest;
        most = n;
      }
      begin = end;
    }
    if (victim == sessions_.end()) return false;
    sessions_.erase(victim);
    return true;
  }

  /// Whether `at` may go, and rather than `other`.
  template <class Iterator>
  [[nodiscard]] bool is_older(Iterator at, Iterator other) const {
    if (at == sessions_.end() || at->second->is_busy) return false;
    return other == sessions_.end() || at->second->last_use < other->second->last_use;
  }

  std::size_t max_sessions_;
  Clock::duration max_idle_;
  mutable std::mutex mutex_;
  std::map<SessionKey, std::shared_ptr<Session>> sessions_;
};

}  // namespace lmd::serve
