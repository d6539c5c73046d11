/// \file  Whom the chat at a terminal talks to: a model on this machine, or a server.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "answer_settings.hpp"

namespace lmd::apps {

struct ChatAnswer {
  std::int64_t n_tokens = 0;
  bool is_cut = false;  ///< it has all the tokens that it may have, and did not end by itself
  double first_token_s = 0.0;  ///< from the question to the first token
  double tokens_per_s = 0.0;   ///< after the first one; 0: there is none
};

/// Keeps what was said.
class ChatPartner {
 public:
  /// Gets pieces of the answer, whole characters, and no text now and then while there is none;
  /// false ends the answer.
  using Show = std::function<bool(std::string_view)>;

  explicit ChatPartner(AnswerSettings settings) : settings(std::move(settings)) {}
  ChatPartner(const ChatPartner&) = delete;
  ChatPartner& operator=(const ChatPartner&) = delete;
  virtual ~ChatPartner() = default;

  AnswerSettings settings;

  /// Forgets what was said; the system text stays.
  virtual void reset() = 0;
  /// Starts over with another system text.
  virtual void set_system(std::string text) = 0;

  /// Answers `text`. What fails leaves no trace of it, unless a part of the answer was shown.
  ///
  /// Errors:  \throws Error; what `show` throws.
  virtual ChatAnswer ask(const std::string& text, const Show& show) = 0;

  /// What there is to say about the last answer beside how it ended: a line each.
  [[nodiscard]] virtual std::vector<std::string> notes() const = 0;
  /// Lines of /stats, under that of the last answer.
  [[nodiscard]] virtual std::string stats_text() const = 0;
};

}  // namespace lmd::apps
