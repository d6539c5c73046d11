/// \file  What all endpoints share: the model, sessions, where ids and times come from.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/serve/answer_call.hpp>
#include <lmd/serve/constraints.hpp>
#include <lmd/serve/make_requests.hpp>
#include <lmd/serve/served_model.hpp>
#include <lmd/serve/sessions.hpp>

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <random>
#include <string>
#include <utility>
#include <vector>

namespace lmd::serve {

/// Where ids and times of answers come from; tests give their own. Called from many threads.
struct AnswerOrigin {
  std::function<std::uint64_t()> random = [] {
    return std::uint64_t{std::random_device{}()} << 32 | std::random_device{}();
  };
  std::function<std::int64_t()> seconds = [] {  // since 1970
    const auto now = std::chrono::system_clock::now().time_since_epoch();
    return std::chrono::duration_cast<std::chrono::seconds>(now).count();
  };
};

/// Outlives the calls that are made with it.
struct ApiContext {
  explicit ApiContext(ServedModel served, AnswerOrigin where_from = {})
      : model(std::move(served)), origin(std::move(where_from)), constraints(model) {}

  ServedModel model;
  AnswerOrigin origin;
  Sessions sessions;
  Constraints constraints;
};

namespace detail {

/// `chatcmpl-` and 32 hexadecimal digits; a number where clients of 0.5 expect a session's id.
[[nodiscard]] inline std::string new_id(const ApiContext& context, const std::string& prefix) {
  if (context.model.compat == ApiCompat::k05)
    return std::to_string(context.origin.random() % 1'000'000'000);
  std::string id = prefix;
  for (int half = 0; half < 2; ++half) {
    const std::uint64_t bits = context.origin.random();
    for (int shift = 60; shift >= 0; shift -= 4)
      id += "0123456789abcdef"[bits >> shift & 15];
  }
  return id;
}

}  // namespace detail

/// The lease of a session. \throws ApiFailure when another request has it, or there are too many.
[[nodiscard]] inline std::unique_ptr<Sessions::Lease> occupy(ApiContext& context,
                                                             const SessionKey& key) {
  auto [lease, refusal] = context.sessions.occupy(key, Sessions::Clock::now());
  if (refusal == Sessions::Refusal::kFull)
    throw ApiFailure({.what = ErrorCase::kQueueFull, .message = "Too many sessions are in use."});
  if (refusal == Sessions::Refusal::kOccupied) {
    throw ApiFailure({.what = ErrorCase::kSessionOccupied,
                      .message = "The session_id " + std::to_string(key.id) + " is occupied."});
  }
  return std::move(lease);
}

/// A plan without prompts, for ApiRequest::client. \throws ApiFailure when its session is occupied.
[[nodiscard]] inline CallPlan make_plan(ApiContext& context,
                                        std::uint64_t client,
                                        const AnswerOptions& options,
                                        const std::string& id_prefix) {
  CallPlan plan;
  plan.rules = rules_of(context.model, options);
  plan.is_stream = options.is_stream;
  plan.include_usage = options.is_stream && options.include_usage;
  plan.answers_per_prompt = options.n;
  plan.compat = context.model.compat;
  plan.created = context.origin.seconds();
  plan.model = context.model.names.front();
  const bool has_session = options.session_id >= 0;
  if (has_session && options.n > 1) throw refused("The n must be 1 where a session_id is given.");
  if (has_session) plan.lease = occupy(context, {client, options.session_id});
  plan.id = has_session && context.model.compat == ApiCompat::k05
                ? std::to_string(options.session_id)
                : detail::new_id(context, id_prefix);
  return plan;
}

/// Adds n requests for a prompt. For clients of 0.5 one that is too long gets empty answers: false.
/// \throws ApiFailure(kPromptTooLong) for others.
[[nodiscard]] inline bool add_prompt(const ServedModel& model,
                                     const AnswerOptions& options,
                                     const std::vector<int>& prompt,
                                     CallPlan& plan) {
  plan.n_prompt_tokens += static_cast<int>(prompt.size());
  const bool is_too_long = prompt.size() >= static_cast<std::size_t>(model.session_len);
  if (!is_too_long || model.compat == ApiCompat::k018) {
    add_requests(model, options, prompt, plan);
    return true;
  }
  plan.requests.resize(plan.requests.size() + static_cast<std::size_t>(options.n));
  return false;
}

/// The call, or for a prompt without room, the reply of a call whose answers are empty.
[[nodiscard]] inline ApiResult answered(std::unique_ptr<AnswerCall> call, bool has_room) {
  if (has_room) return call;
  std::string out;
  const auto n = static_cast<int>(call->take_requests().size());
  for (int i = 0; i < n; ++i)
    call->on_event({.answer = i, .finish = engine::FinishReason::kLength, .logprobs = {}}, out);
  if (!call->is_stream()) return call->reply();
  HttpReply reply;
  reply.body = std::move(out);
  reply.content_type = call->stream_content_type();
  return reply;
}

}  // namespace lmd::serve
