/// \file  Requests that wait to start: clients take turns, by the tokens that each was given.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/engine/sequence.hpp>

#include <algorithm>
#include <cstdint>
#include <deque>
#include <iterator>
#include <map>
#include <utility>
#include <vector>

namespace lmd::engine {

/// The next request is the oldest of the client that was given the fewest tokens, read or drawn; of equals,
/// of the one who has waited for its turn the longest. A client that comes anew counts as having been given an
/// even share of everything so far: it neither waits for others to catch up nor has saved anything, and
/// however many come, those before them get their turn.
///
///   share += tokens given to anybody / clients that wait
///
/// Source: the virtual time of fair queueing, Demers, Keshav and Shenker, 1989; with counters of tokens,
///         Sheng et al., Fairness in Serving Large Language Models, 2024.
class FairQueue {
 public:
  [[nodiscard]] bool is_empty() const { return size_ == 0; }
  [[nodiscard]] int size() const { return size_; }
  [[nodiscard]] std::int64_t n_tokens() const { return n_tokens_; }  ///< of the prompts
  /// Clients that wait, or have had more than their share.
  [[nodiscard]] std::size_t n_clients() const { return clients_.size(); }

  /// \throws std::bad_alloc; the sequence is the caller's then.
  void push(SequencePtr&& s) {
    Client& client = clients_[s->request.client];
    const bool is_first = client.waiting.empty();
    client.waiting.push_back(std::move(s));  // all or nothing
    if (is_first) {
      client.given = std::max(client.given, share_);
      ++n_waiting_clients_;
    }
    ++size_;
    n_tokens_ += client.waiting.back()->n_prompt;
  }

  /// Who comes next; null where nobody waits.
  [[nodiscard]] Sequence* next() const {
    const auto at = next_client();
    return at == clients_.end() ? nullptr : at->second.waiting.front().get();
  }

  /// Takes the one that comes next, of whom there must be one.
  SequencePtr pop() {
    Client& client = clients_.at(next_client()->first);
    SequencePtr s = std::move(client.waiting.front());
    client.waiting.pop_front();
    --size_;
    n_tokens_ -= s->n_prompt;
    client.turn = ++n_turns_;
    if (client.waiting.empty()) --n_waiting_clients_;
    forget_absent();
    return s;
  }

  /// Counts tokens that a client was given.
  void charge(std::uint64_t client, int n_tokens) {
    const auto [at, is_new] = clients_.try_emplace(client);
    if (is_new) at->second.given = share_;
    at->second.given += n_tokens;
    share_ += static_cast<double>(n_tokens) / std::max(n_waiting_clients_, 1);
  }

  /// Takes out those for which `is_wanted(sequence)` holds.
  template <class Predicate>
  [[nodiscard]] std::vector<SequencePtr> take_if(Predicate&& is_wanted) {
    std::vector<SequencePtr> taken;
    for (auto& [id, client] : clients_) {
      std::deque<SequencePtr>& waiting = client.waiting;
      if (waiting.empty()) continue;
      const auto first = std::stable_partition(
          waiting.begin(), waiting.end(), [&](const SequencePtr& s) { return !is_wanted(*s); });
      for (auto at = first; at != waiting.end(); ++at)
        n_tokens_ -= (*at)->n_prompt;
      size_ -= static_cast<int>(waiting.end() - first);
      std::move(first, waiting.end(), std::back_inserter(taken));
      waiting.erase(first, waiting.end());
      if (waiting.empty()) --n_waiting_clients_;
    }
    if (!taken.empty()) forget_absent();
    return taken;
  }

  template <class F>
  void for_each(F&& f) {
    for (auto& [id, client] : clients_) {
      for (const SequencePtr& s : client.waiting)
        f(*s);
    }
  }

 private:
  struct Client {
    double given = 0.0;     ///< tokens
    std::int64_t turn = 0;  ///< its last one
    std::deque<SequencePtr> waiting;
  };
  using Clients = std::map<std::uint64_t, Client>;

  [[nodiscard]] Clients::const_iterator next_client() const {
    auto best = clients_.end();
    for (auto at = clients_.begin(); at != clients_.end(); ++at) {
      const Client& client = at->second;
      if (client.waiting.empty()) continue;
      if (best == clients_.end() ||
          std::pair(client.given, client.turn) < std::pair(best->second.given, best->second.turn))
        best = at;
    }
    return best;
  }

  /// Those who would come back to what they were given need not be remembered.
  void forget_absent() {
    std::erase_if(clients_, [this](const auto& entry) {
      return entry.second.waiting.empty() && entry.second.given <= share_;
    });
  }

  Clients clients_;
  double share_ = 0.0;  // tokens that a client would have been given that has always waited
  std::int64_t n_turns_ = 0;
  int n_waiting_clients_ = 0;
  int size_ = 0;
  std::int64_t n_tokens_ = 0;
};

}  // namespace lmd::engine
