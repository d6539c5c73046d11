/// \file  Text in, text out: a tokenizer, a chat template and an engine put together.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/engine/engine.hpp>
#include <lmd/text/chat_template.hpp>
#include <lmd/text/stop.hpp>
#include <lmd/text/tokenizer.hpp>
#include <lmd/text/utf8_stream.hpp>

#include <algorithm>
#include <chrono>
#include <functional>
#include <string>
#include <vector>

namespace lmd::serve {

struct GenerationOptions {
  kernels::SamplingParams sampling;
  int max_new_tokens = 512;
  int min_new_tokens = 0;
  std::vector<std::string> stop;    ///< added to the template's and the model's own
  bool ignore_eos = false;          ///< only max_new_tokens ends the answer
  bool skip_special_tokens = true;  ///< special tokens are not shown
};

struct Answer {
  std::string text;
  std::vector<int> ids;  ///< stop token included
  engine::FinishReason finish = engine::FinishReason::kNone;
  int n_prompt = 0;            ///< tokens
  double first_token_s = 0.0;  ///< seconds from submission to the first token
  double total_s = 0.0;        ///< seconds from submission to the end

  /// Tokens per second after the first one; 0 where there is none.
  [[nodiscard]] double decode_tokens_per_s() const {
    const double seconds = total_s - first_token_s;
    return ids.size() < 2 || seconds <= 0.0 ? 0.0 : static_cast<double>(ids.size() - 1) / seconds;
  }
};

/// Ids that end an answer: the model's and those stop words of the template that are one token.
[[nodiscard]] inline std::vector<int> stop_ids(const model::ModelConfig& model,
                                               const text::Tokenizer& tokenizer,
                                               const text::ChatTemplate& chat_template) {
  std::vector<int> ids = model.eos_ids;
  for (const std::string& word : chat_template.stop_words) {
    if (const auto id = tokenizer.id_of(word)) ids.push_back(*id);
  }
  return ids;
}

/// Answers one prompt on an engine that nobody else uses meanwhile. `on_text` gets the answer in
/// pieces of whole characters, as soon as no stop string can begin in them, and no text after every
/// step that reads a part of the prompt; when it returns false the answer is cancelled.
///
/// Errors:  \throws what Engine::submit throws; Error(kInternal) when the logits were not numbers.
[[nodiscard]] inline Answer generate(engine::Engine& engine,
                                     const text::Tokenizer& tokenizer,
                                     const text::ChatTemplate& chat_template,
                                     const std::vector<int>& prompt,
                                     const GenerationOptions& options,
                                     const std::function<bool(std::string_view)>& on_text) {
  using Clock = std::chrono::steady_clock;
  const auto start = Clock::now();
  const auto seconds = [start] {
    return std::chrono::duration<double>(Clock::now() - start).count();
  };
  engine::Request request;
  request.prompt = prompt;
  request.sampling = options.sampling;
  request.max_new_tokens = options.max_new_tokens;
  request.min_new_tokens = options.min_new_tokens;
  if (!options.ignore_eos) request.stop_ids = stop_ids(engine.model(), tokenizer, chat_template);
  Answer answer;
  answer.n_prompt = static_cast<int>(prompt.size());
  text::TokenStream characters(tokenizer, options.skip_special_tokens);
  const text::StopStrings stop_strings(options.stop);
  text::StopMatcher stops(stop_strings);
  bool is_stopped = false;  // by a stop string or by the caller
  const auto show = [&](std::string_view piece) {
    answer.text += piece;
    return piece.empty() || on_text(piece);
  };
  engine::RequestId id = 0;
  const auto sink = [&](const engine::TokenEvent& event) {
    if (event.token >= 0 && !is_stopped) {
      if (answer.ids.empty()) answer.first_token_s = seconds();
      answer.ids.push_back(event.token);
    }
    if (event.finish != engine::FinishReason::kNone) answer.finish = event.finish;
    if (event.token < 0 || is_stopped || event.finish == engine::FinishReason::kStop) return;
    const bool goes_on = show(stops.feed(characters.feed(event.token)));
    if (goes_on && !stops.is_stopped()) return;
    is_stopped = true;
    if (stops.is_stopped()) answer.finish = engine::FinishReason::kStop;
    engine.cancel(id);
  };
  id = engine.submit(std::move(request), sink);
  while (engine.step()) {
    if (is_stopped || !answer.ids.empty() || on_text({})) continue;
    is_stopped = true;
    engine.cancel(id);
  }
  if (!is_stopped) {
    std::string rest = stops.feed(characters.flush());
    rest += stops.flush();
    (void)show(rest);
  }
  if (stops.is_stopped()) answer.finish = engine::FinishReason::kStop;
  answer.total_s = seconds();
  LMD_REQUIRE(answer.finish != engine::FinishReason::kError, ErrorCode::kInternal,
              engine::kNotANumber);
  return answer;
}

}  // namespace lmd::serve
