/// \file  Requests that wait to start: clients take turns, by the tokens that each was given.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/engine/sequence.hpp>

#include <algorithm>
#include <cstdint>
#include <deque>
#include <iterator>
#include <map>
#include <vector>

namespace lmd::engine {

/// The next request is the oldest of the client that was given the fewest tokens, read or drawn. A client
/// that comes anew counts as having been given what the last one let in was: it neither waits for others to
/// catch up nor has saved anything.
///
/// Source: start-time fair queueing, Goyal, Vin and Cheng, 1996; with counters of tokens, Sheng et al.,
///         Fairness in Serving Large Language Models, 2024.
class FairQueue {
 public:
  [[nodiscard]] bool is_empty() const { return size_ == 0; }
  [[nodiscard]] int size() const { return size_; }
  [[nodiscard]] std::int64_t n_tokens() const { return n_tokens_; }  ///< of the prompts

  void push(SequencePtr s) {
    Client& client = clients_[s->request.client];
    if (client.waiting.empty()) client.given = std::max(client.given, floor_);
    ++size_;
    n_tokens_ += s->n_prompt;
    client.waiting.push_back(std::move(s));
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
    floor_ = client.given;
    // Who would come back to the floor need not be remembered.
    std::erase_if(clients_, [this](const auto& entry) {
      return entry.second.waiting.empty() && entry.second.given < floor_;
    });
    return s;
  }

  /// Counts tokens that a client was given.
  void charge(std::uint64_t client, int n_tokens) {
    const auto [at, is_new] = clients_.try_emplace(client);
    if (is_new) at->second.given = floor_;
    at->second.given += n_tokens;
  }

  /// Takes out those for which `is_wanted(sequence)` holds.
  template <class Predicate>
  [[nodiscard]] std::vector<SequencePtr> take_if(Predicate&& is_wanted) {
    std::vector<SequencePtr> taken;
    for (auto& [id, client] : clients_) {
      std::deque<SequencePtr>& waiting = client.waiting;
      const auto first = std::stable_partition(
          waiting.begin(), waiting.end(), [&](const SequencePtr& s) { return !is_wanted(*s); });
      for (auto at = first; at != waiting.end(); ++at)
        n_tokens_ -= (*at)->n_prompt;
      size_ -= static_cast<int>(waiting.end() - first);
      std::move(first, waiting.end(), std::back_inserter(taken));
      waiting.erase(first, waiting.end());
    }
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
    std::int64_t given = 0;  ///< tokens
    std::deque<SequencePtr> waiting;
  };
  using Clients = std::map<std::uint64_t, Client>;

  [[nodiscard]] Clients::const_iterator next_client() const {
    auto best = clients_.end();
    for (auto at = clients_.begin(); at != clients_.end(); ++at) {
      const Client& client = at->second;
      if (client.waiting.empty()) continue;
      if (best == clients_.end() || client.given < best->second.given ||
          (client.given == best->second.given &&
           client.waiting.front()->id < best->second.waiting.front()->id))
        best = at;
    }
    return best;
  }

  Clients clients_;
  std::int64_t floor_ = 0;  // what the client of the last one let in was given before
  int size_ = 0;
  std::int64_t n_tokens_ = 0;
};

}  // namespace lmd::engine
