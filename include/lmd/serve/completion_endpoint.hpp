/// \file  POST /v1/completions and POST /generate.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/serve/api_context.hpp>
#include <lmd/serve/completion_call.hpp>
#include <lmd/serve/completion_request.hpp>
#include <lmd/serve/generate_call.hpp>

#include <memory>
#include <string>
#include <utility>
#include <variant>
#include <vector>

namespace lmd::serve {

/// \throws ApiFailure
[[nodiscard]] inline ApiResult completions(ApiContext& context, const ApiRequest& request) {
  const ServedModel& model = context.model;
  const json::OrderedJson body = read_body(request);
  const CompletionRequest completion =
      read_completion_request({body, {"body"}, model.compat}, model);
  CompletionShape shape{.shows_logprobs = completion.shows_logprobs,
                        .shows_ids = completion.answer.return_ids,
                        .shows_id_logprobs = completion.answer.return_logprobs};
  CallPlan plan = make_plan(context, request.client, completion.answer, "cmpl-");
  bool has_room = true;
  for (const Prompt& prompt : completion.prompts) {
    const std::vector<int> ids = prompt_ids(model, prompt);
    if (completion.prompts.size() > 1) require_room(model, ids.size());
    has_room &= add_prompt(model, completion.answer, ids, plan);
    const auto* text = std::get_if<std::string>(&prompt);
    for (int i = 0; completion.has_echo && i < completion.answer.n; ++i)
      shape.echoes.push_back(text != nullptr ? *text : model.tokenizer->decode(ids));
  }
  return answered(std::make_unique<CompletionCall>(std::move(plan), std::move(shape)), has_room);
}

/// \throws ApiFailure
[[nodiscard]] inline ApiResult generate_text(ApiContext& context, const ApiRequest& request) {
  const ServedModel& model = context.model;
  const json::OrderedJson body = read_body(request);
  const GenerateRequest generate = read_generate_request({body, {"body"}, model.compat}, model);
  CallPlan plan = make_plan(context, request.client, generate.answer, "gen-");
  const bool has_room =
      add_prompt(model, generate.answer, prompt_ids(model, generate.prompt), plan);
  return answered(std::make_unique<GenerateCall>(std::move(plan), generate.answer.return_logprobs),
                  has_room);
}

}  // namespace lmd::serve
