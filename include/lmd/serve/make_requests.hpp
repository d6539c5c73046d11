/// \file  From prompts and options to what the engine is asked.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/serve/answer_call.hpp>
#include <lmd/serve/answer_options.hpp>
#include <lmd/serve/served_model.hpp>

#include <algorithm>
#include <cstdint>
#include <random>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace lmd::serve {

/// The ids of a prompt. \throws ApiFailure(kPromptTooLong) before a text is tokenised that cannot fit.
[[nodiscard]] inline std::vector<int> encode_prompt(const ServedModel& model,
                                                    std::string_view prompt,
                                                    bool add_bos) {
  if (prompt.size() > model.max_prompt_bytes()) {
    throw ApiFailure({.what = ErrorCase::kPromptTooLong,
                      .message = "Input length (" + std::to_string(prompt.size()) +
                                 " bytes) must be smaller than the model context length (" +
                                 std::to_string(model.session_len) + " tokens)."});
  }
  return model.tokenizer->encode(prompt, {.add_bos = add_bos && model.tokenizer->adds_bos()});
}

/// \throws ApiFailure(kPromptTooLong) when the prompt leaves no room for an answer.
inline void require_room(const ServedModel& model, std::size_t n_prompt) {
  if (n_prompt < static_cast<std::size_t>(model.session_len)) return;
  throw ApiFailure({.what = ErrorCase::kPromptTooLong,
                    .message = "Input length (" + std::to_string(n_prompt) +
                               ") must be smaller than the model context length (" +
                               std::to_string(model.session_len) + ")."});
}

/// Ids that end an answer.
[[nodiscard]] inline std::vector<int> stop_ids_of(const ServedModel& model,
                                                  const AnswerOptions& options) {
  std::vector<int> ids = options.stop_ids;
  if (!options.ignore_eos) ids.insert(ids.end(), model.stop_ids.begin(), model.stop_ids.end());
  return ids;
}

/// What every answer of a call obeys.
[[nodiscard]] inline AnswerRules rules_of(const ServedModel& model, const AnswerOptions& options) {
  AnswerRules rules;
  rules.tokenizer = model.tokenizer;
  rules.stop = options.stop;
  // Stop words of the template that are tokens are among its stop ids.
  for (const std::string& word : model.chat_template.stop_words) {
    if (!options.ignore_eos && !word.empty() && !model.tokenizer->id_of(word))
      rules.stop.push_back(word);
  }
  rules.skip_special_tokens = options.skip_special_tokens;
  rules.include_stop = options.include_stop;
  rules.min_new_tokens = options.min_new_tokens;
  return rules;
}

/// n requests for a prompt; their seeds are seed, seed + 1, ..., or drawn where there is none.
/// \throws ApiFailure(kPromptTooLong)
inline void add_requests(const ServedModel& model,
                         const AnswerOptions& options,
                         const std::vector<int>& prompt,
                         CallPlan& plan) {
  require_room(model, prompt.size());
  for (int i = 0; i < options.n; ++i) {
    engine::Request request;
    request.prompt = prompt;
    request.sampling = options.sampling;
    request.sampling.seed =
        options.seed ? static_cast<std::uint64_t>(*options.seed) + static_cast<std::uint64_t>(i)
                     : std::uint64_t{std::random_device{}()} << 32 | std::random_device{}();
    const int room = model.session_len - static_cast<int>(prompt.size());
    request.max_new_tokens = std::min(options.max_new_tokens.value_or(room), room);
    request.min_new_tokens = options.min_new_tokens;
    request.stop_ids = stop_ids_of(model, options);
    request.n_logprobs = options.n_logprobs;
    plan.requests.push_back(std::move(request));
  }
}

}  // namespace lmd::serve
