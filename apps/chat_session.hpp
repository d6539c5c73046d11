/// \file  A conversation with a model on this machine: the transcript, and answers to what was said.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/serve/pipeline.hpp>

#include <optional>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "chat_partner.hpp"
#include "conversation.hpp"
#include "load_shown.hpp"
#include "units.hpp"

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

/// A model on this machine. It is shown all that was said at each turn; what the engine has seen
/// before comes from its prefix cache.
class ChatSession final : public ChatPartner {
 public:
  ChatSession(Runtime& runtime, AnswerSettings settings, const std::optional<std::string>& system)
      : ChatPartner(std::move(settings)), runtime_(&runtime), tokenizer_(&tokenizer_of(runtime)) {
    if (system) set_system(*system);
  }

  void reset() override {
    const bool has_system = !messages_.empty() && messages_.front().role == "system";
    messages_.resize(has_system ? 1 : 0);
  }

  void set_system(std::string text) override {
    messages_.clear();
    messages_.push_back(
        {.role = "system", .content = std::move(text), .name = {}, .tool_calls = {}});
  }

  /// When the conversation has outgrown the session its oldest turns are dropped.
  /// \throws Error(kCapacity) when `text` alone is too long; it is forgotten then.
  ChatAnswer ask(const std::string& text, const Show& show) override {
    if (is_completion()) reset();
    const std::size_t n_before = messages_.size();
    messages_.push_back({.role = "user", .content = text, .name = {}, .tool_calls = {}});
    try {
      const std::vector<int> prompt = fitting_prompt();
      const serve::Answer answer =
          serve::generate(*runtime_->engine, *tokenizer_, runtime_->chat_template, prompt,
                          generation_options(settings), show);
      n_context_ = static_cast<int>(prompt.size() + answer.ids.size());
      remember(answer.text);
      return {std::ssize(answer.ids), answer.finish == engine::FinishReason::kLength,
              answer.first_token_s, answer.decode_tokens_per_s()};
    } catch (...) {
      if (messages_.size() > n_before) messages_.resize(n_before);
      throw;
    }
  }

  [[nodiscard]] std::vector<std::string> notes() const override {
    if (n_dropped_ == 0) return {};
    return {dropped_text(n_dropped_) + count_text(session_len()) + " tokens"};
  }

  [[nodiscard]] std::string stats_text() const override {
    const engine::EngineStats& stats = runtime_->engine->stats();
    return "  context         " + count_text(n_context_) + " of " + count_text(session_len()) +
           " tokens\n" +  //
           "  prompts         " + count_text(stats.prompt_tokens) + " tokens, " +
           count_text(stats.reused_tokens) + " of them from the prefix cache\n" +  //
           "  answers         " + count_text(stats.generated_tokens) + " tokens\n";
  }

 private:
  [[nodiscard]] int session_len() const { return runtime_->engine->plan().session_len; }

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
  int n_dropped_ = 0;  // turns that the last question pushed out
  int n_context_ = 0;  // tokens of the conversation, the last answer included
};

}  // namespace lmd::apps
