/// \file  One answer while it comes: tokens in, text in whole characters out, cut at stop strings.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/serve/api_call.hpp>
#include <lmd/text/stop.hpp>
#include <lmd/text/tokenizer.hpp>
#include <lmd/text/utf8_stream.hpp>

#include <optional>
#include <string>
#include <vector>

namespace lmd::serve {

/// What all answers of a call have in common.
struct AnswerRules {
  const text::Tokenizer* tokenizer = nullptr;  ///< outlives the object
  std::vector<std::string> stop = {};          ///< none of them empty
  bool skip_special_tokens = true;
  bool include_stop = false;  ///< the text ends with the stop string, or token, that ended it
  int min_new_tokens = 0;     ///< no stop string is looked for in the tokens before
};

/// A token of an answer with its log probabilities, where these were asked for.
struct AnswerToken {
  int id = -1;
  std::optional<kernels::TokenLogprobs> logprobs = std::nullopt;
};

/// What an event adds to an answer.
struct AnswerDelta {
  std::string text = {};
  std::optional<AnswerToken> token = std::nullopt;  ///< none: a stop token, or no token at all
  engine::FinishReason finish = engine::FinishReason::kNone;
};

/// A token's text is held back while it is no whole character, or may become a stop string; its id and log
/// probabilities never are. How tokens cut the text changes nothing.
class AnswerText {
 public:
  /// \pre `rules` and `stops`, which was made of rules.stop, outlive the object
  AnswerText(const AnswerRules& rules, const text::StopStrings& stops)
      : rules_(&rules), characters_(*rules.tokenizer, rules.skip_special_tokens), stops_(stops) {}

  [[nodiscard]] bool has_ended() const { return has_ended_; }
  /// Whether a stop string ended it, of which the engine knows nothing.
  [[nodiscard]] bool has_ended_early() const { return stops_.is_stopped(); }
  /// Tokens so far. A stop token is not one of the answer's.
  [[nodiscard]] int n_tokens() const { return n_tokens_; }

  /// Ends it from outside. What is held back is dropped.
  void end() { has_ended_ = true; }

  /// Takes an event of this answer. Those that come after the end add nothing.
  [[nodiscard]] AnswerDelta feed(const AnswerEvent& event) {
    AnswerDelta delta;
    if (has_ended_) return delta;
    const bool is_stop_token = event.token >= 0 && event.finish == engine::FinishReason::kStop;
    if (event.token >= 0 && !is_stop_token) {
      ++n_tokens_;
      delta.token = AnswerToken{event.token, event.logprobs};
      delta.text = let_through(characters_.feed(event.token));
    }
    delta.finish = event.finish;
    if (stops_.is_stopped()) {
      delta.finish = engine::FinishReason::kStop;
      if (rules_->include_stop) delta.text += matched();
    } else if (event.finish != engine::FinishReason::kNone) {
      delta.text += stops_.feed(characters_.flush());
      delta.text += stops_.flush();
      if (is_stop_token && rules_->include_stop) delta.text += characters_.feed(event.token);
    }
    has_ended_ = delta.finish != engine::FinishReason::kNone;
    return delta;
  }

 private:
  [[nodiscard]] const std::string& matched() const {
    return rules_->stop[static_cast<std::size_t>(stops_.matched())];
  }

  /// What of new text may be shown now.
  std::string let_through(std::string text) {
    return n_tokens_ <= rules_->min_new_tokens ? text : stops_.feed(text);
  }

  const AnswerRules* rules_;
  text::TokenStream characters_;
  text::StopMatcher stops_;
  int n_tokens_ = 0;
  bool has_ended_ = false;
};

}  // namespace lmd::serve
