/// \file  GET /v1/models, and what is not offered by a path that clients know.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/serve/api_context.hpp>

#include <cstdint>
#include <string>
#include <string_view>

namespace lmd::serve {

namespace detail {

[[nodiscard]] inline std::string model_card(const ServedModel& model,
                                            const std::string& name,
                                            std::int64_t created) {
  return R"({"id":)" + json_string(name) + R"(,"object":"model","created":)" +
         std::to_string(created) + R"(,"owned_by":"lmd","root":)" + json_string(name) +
         R"(,"parent":null,"max_model_len":)" + std::to_string(model.session_len) +
         R"(,"input_modalities":["text"],"permission":[{"id":)" + json_string("modelperm-" + name) +
         R"(,"object":"model_permission","created":)" + std::to_string(created) +
         R"(,"allow_create_engine":false,"allow_sampling":true,"allow_logprobs":true,)"
         R"("allow_search_indices":true,"allow_view":true,"allow_fine_tuning":false,)"
         R"("organization":"*","group":null,"is_blocking":false}]})";
}

}  // namespace detail

/// All names of the model.
[[nodiscard]] inline ApiResult list_models(ApiContext& context, const ApiRequest&) {
  HttpReply reply;
  for (const std::string& name : context.model.names) {
    reply.body += reply.body.empty() ? R"({"object":"list","data":[)" : ",";
    reply.body += detail::model_card(context.model, name, context.origin.seconds());
  }
  reply.body += "]}";
  return reply;
}

/// GET /v1/models/NAME. \throws ApiFailure(kUnknownModel)
[[nodiscard]] inline ApiResult show_model(ApiContext& context, const ApiRequest& request) {
  const std::string name(request.path.substr(std::string_view("/v1/models/").size()));
  if (!context.model.has_name(name)) throw ApiFailure(unknown_model(name));
  HttpReply reply;
  reply.body = detail::model_card(context.model, name, context.origin.seconds());
  return reply;
}

/// POST /v1/embeddings. \throws ApiFailure(kNotBuilt) always
[[nodiscard]] inline ApiResult embeddings(ApiContext&, const ApiRequest&) {
  throw ApiFailure(
      {.what = ErrorCase::kNotBuilt, .message = "The model gives no embeddings, only text."});
}

}  // namespace lmd::serve
