/// \file  A conversation: the transcript, and answers to what was said.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/serve/pipeline.hpp>

#include <functional>
#include <optional>
#include <random>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "answer_settings.hpp"
#include "conversation.hpp"
#include "load_shown.hpp"

namespace lmd::apps {

[[nodiscard]] inline serve::GenerationOptions generation_options(const AnswerSettings& s) {
  serve::GenerationOptions options;
  options.sampling.temperature = static_cast<float>(s.temperature);
  options.sampling.top_k = static_cast<int>(s.top_k);
  options.sampling.top_p = static_cast<float>(s.top_p);
  options.sampling.min_p = static_cast<float>(s.min_p);
  options.sampling.repetition_penalty = static_cast<float>(s.repetition_penalty);
  options.sampling.presence_penalty = static_cast<float>(s.presence_penalty);
  options.sampling.frequency_penalty = static_cast<float>(s.frequency_penalty);
  options.sampling.seed =
      s.seed >= 0 ? static_cast<std::uint64_t>(s.seed) : std::uint64_t{std::random_device{}()};
  options.max_new_tokens = static_cast<int>(s.max_new_tokens);
  options.stop = s.stop;
  return options;
}

/// Keeps what was said and shows the model all of it at each turn; what the engine has seen before
/// comes from its prefix cache.
class ChatSession {
 public:
  /// Gets pieces of the answer; false ends it.
  using Show = std::function<bool(std::string_view)>;

  ChatSession(Runtime& runtime, AnswerSettings settings, std::optional<std::string> system)
      : settings(std::move(settings)), runtime_(&runtime), tokenizer_(&tokenizer_of(runtime)) {
    if (system) set_system(*std::move(system));
  }

  AnswerSettings settings;

  /// Forgets what was said; the system text stays.
  void reset() {
    const bool has_system = !messages_.empty() && messages_.front().role == "system";
    messages_.resize(has_system ? 1 : 0);
  }

  /// Starts over with another system text.
  void set_system(std::string text) {
    messages_.clear();
    messages_.push_back(
        {.role = "system", .content = std::move(text), .name = {}, .tool_calls = {}});
  }

  /// Answers `text`. When the conversation has outgrown the session its oldest turns are dropped
  /// and counted in n_dropped().
  /// \throws Error(kCapacity) when `text` alone is too long; it is forgotten then.
  serve::Answer ask(const std::string& text, const Show& show) {
    if (is_completion()) reset();
    const std::size_t n_before = messages_.size();
    messages_.push_back({.role = "user", .content = text, .name = {}, .tool_calls = {}});
    try {
      const std::vector<int> prompt = fitting_prompt();
      serve::Answer answer =
          serve::generate(*runtime_->engine, *tokenizer_, runtime_->chat_template, prompt,
                          generation_options(settings), show);
      n_context_ = static_cast<int>(prompt.size() + answer.ids.size());
      remember(answer.text);
      return answer;
    } catch (...) {
      if (messages_.size() > n_before) messages_.resize(n_before);
      throw;
    }
  }

  /// Turns that the last question pushed out.
  [[nodiscard]] int n_dropped() const { return n_dropped_; }
  /// Tokens of the conversation, the last answer included.
  [[nodiscard]] int n_context() const { return n_context_; }
  [[nodiscard]] int session_len() const { return runtime_->engine->plan().session_len; }

 private:
  [[nodiscard]] bool is_completion() const {
    return runtime_->chat_template.capability == text::Capability::kCompletion;
  }

  [[nodiscard]] std::vector<int> prompt_of(const std::vector<text::Message>& messages) const {
    return tokenizer_->encode(text::render(runtime_->chat_template, messages),
                              {.add_bos = tokenizer_->adds_bos()});
  }

  std::vector<int> fitting_prompt() {
    const int reserve = answer_reserve(session_len(), static_cast<int>(settings.max_new_tokens));
    std::vector<int> prompt;
    n_dropped_ = drop_oldest_turns(messages_, [&](const std::vector<text::Message>& messages) {
      prompt = prompt_of(messages);
      return std::ssize(prompt) <= session_len() - reserve;
    });
    return prompt;
  }

  /// An answer that was stopped before its first word leaves no trace, and neither does its question.
  void remember(const std::string& answer) {
    if (answer.empty()) {
      messages_.pop_back();
    } else {
      messages_.push_back({.role = "assistant", .content = answer, .name = {}, .tool_calls = {}});
    }
  }

  Runtime* runtime_;
  const text::Tokenizer* tokenizer_;
  std::vector<text::Message> messages_;
  int n_dropped_ = 0;
  int n_context_ = 0;
};

}  // namespace lmd::apps
