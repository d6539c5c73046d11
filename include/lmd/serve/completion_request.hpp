/// \file  The bodies of /v1/completions and /generate.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/serve/answer_options.hpp>
#include <lmd/serve/make_requests.hpp>

#include <string>
#include <utility>
#include <variant>
#include <vector>

namespace lmd::serve {

/// A text, or token ids as they are.
using Prompt = std::variant<std::string, std::vector<int>>;

struct CompletionRequest {
  std::vector<Prompt> prompts;
  bool has_echo = false;        ///< answers begin with the prompt's text
  bool shows_logprobs = false;  ///< in the shape of this endpoint
  AnswerOptions answer = {};
};

namespace detail {

/// A string, ids, or a list of either.
[[nodiscard]] inline std::vector<Prompt> read_prompts(const Fields& fields,
                                                      const ServedModel& model) {
  const json::OrderedJson& value = fields.at("prompt");
  if (value.is_string()) return {value.get<std::string>()};
  const auto wrong = [&](Location location) {
    return malformed(std::move(location), "string_type", "expected a string or token ids");
  };
  if (!value.is_array() || value.empty()) throw wrong(fields.location("prompt"));
  if (value.front().is_number()) return {fields.ids("prompt", model.vocab_size, kMaxIds)};
  fields.require_count("prompt", value.size(), kMaxPrompts);
  std::vector<Prompt> prompts;
  for (const json::OrderedJson& item : value) {
    Location location = fields.location("prompt");
    location.push_back(std::to_string(prompts.size()));
    if (item.is_string()) {
      prompts.emplace_back(item.get<std::string>());
    } else if (item.is_array() && !item.empty()) {
      prompts.emplace_back(Fields::ids_of(item, location, model.vocab_size));
    } else {
      throw wrong(std::move(location));
    }
  }
  return prompts;
}

}  // namespace detail

/// The ids of a prompt. A text that gives none, as no tokenizer puts BOS in front, is refused.
[[nodiscard]] inline std::vector<int> prompt_ids(const ServedModel& model, const Prompt& prompt) {
  const auto* text = std::get_if<std::string>(&prompt);
  std::vector<int> ids =
      text != nullptr ? encode_prompt(model, *text, true) : std::get<std::vector<int>>(prompt);
  if (ids.empty()) throw refused("The prompt must not be empty.");
  return ids;
}

/// \throws ApiFailure for the first field that is wrong.
[[nodiscard]] inline CompletionRequest read_completion_request(const Fields& fields,
                                                               const ServedModel& model) {
  CompletionRequest request;
  const std::string& name = fields.required_string("model");
  if (!model.has_name(name)) throw ApiFailure(unknown_model(name));
  request.answer = read_answer_options(fields, kCompletions, model);
  request.prompts = detail::read_prompts(fields, model);
  request.has_echo = fields.boolean_or("echo", false);
  // LMDeploy takes these two and does nothing with them, so clients send them.
  (void)fields.string("suffix");
  NumberLimit best_of = limit_of("best_of", kCompletions);
  best_of.max = model.max_n;
  (void)fields.integer(best_of);
  if (const auto n_top = fields.integer(limit_of("logprobs", kCompletions))) {
    request.shows_logprobs = true;
    request.answer.n_logprobs = static_cast<int>(*n_top);
  }
  if (request.has_echo && request.shows_logprobs)
    throw refused("The echo cannot be combined with logprobs: prompts have none.");
  if (request.prompts.size() * static_cast<std::size_t>(request.answer.n) > kMaxPrompts) {
    throw refused("The prompt and n ask for more than " + std::to_string(kMaxPrompts) +
                  " answers.");
  }
  const bool is_old = model.compat == ApiCompat::k05;
  constexpr int kOldDefault = 16;
  if (is_old && !request.answer.max_new_tokens) request.answer.max_new_tokens = kOldDefault;
  return request;
}

struct GenerateRequest {
  Prompt prompt;
  AnswerOptions answer = {};
};

/// \throws ApiFailure for the first field that is wrong.
[[nodiscard]] inline GenerateRequest read_generate_request(const Fields& fields,
                                                           const ServedModel& model) {
  GenerateRequest request;
  request.answer = read_answer_options(fields, kGenerate, model);
  constexpr int kDefaultTokens = 128;
  if (!request.answer.max_new_tokens) request.answer.max_new_tokens = kDefaultTokens;
  if (fields.has("stop_token_ids"))
    request.answer.stop_ids = fields.ids("stop_token_ids", model.vocab_size, kMaxStopIds);
  if (fields.has("prompt") == fields.has("input_ids"))
    throw refused("Either prompt or input_ids must be given.");
  if (fields.has("prompt")) {
    request.prompt = fields.required_string("prompt");
  } else {
    request.prompt = fields.ids("input_ids", model.vocab_size, kMaxIds);
  }
  return request;
}

}  // namespace lmd::serve
