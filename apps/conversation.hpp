/// \file  Making a conversation fit into the session: the oldest turns go first.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <string>
#include <vector>

namespace lmd::apps {

/// Drops the oldest question and its answer until `fits(messages)`; a system message at the front
/// and the last message stay. Returns how many turns went; the caller checks whether it fits now.
///
/// Shapes:  messages as [system] (user, assistant)* user; `role` is compared with "system", "user".
template <class Message, class Fits>
[[nodiscard]] int drop_oldest_turns(std::vector<Message>& messages, Fits&& fits) {
  int n_dropped = 0;
  while (!fits(messages)) {
    const bool has_system = !messages.empty() && messages.front().role == "system";
    const auto first = messages.begin() + (has_system ? 1 : 0);
    if (messages.end() - first < 2) break;
    const auto next =
        std::find_if(first + 1, messages.end(), [](const Message& m) { return m.role == "user"; });
    if (next == messages.end()) break;
    messages.erase(first, next);
    ++n_dropped;
  }
  return n_dropped;
}

/// How a note about dropped turns begins; what the conversation had outgrown follows.
[[nodiscard]] inline std::string dropped_text(int n_dropped) {
  return "the oldest " + std::to_string(n_dropped) +
         " turns were dropped: the conversation had outgrown ";
}

/// Tokens of the session to keep free for an answer: what it may have, but at most a quarter of the
/// session, or a short one would forget everything at each turn.
[[nodiscard]] inline int answer_reserve(int session_len, int max_new_tokens) {
  return std::max(1, std::min(max_new_tokens, session_len / 4));
}

}  // namespace lmd::apps
