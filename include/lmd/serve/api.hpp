/// \file  The endpoints as routes.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/serve/chat_endpoint.hpp>
#include <lmd/serve/route.hpp>

#include <string>
#include <utility>
#include <vector>

namespace lmd::serve {

/// What a server that runs one model answers. Outlives its routes and their calls.
class Api {
 public:
  /// \throws Error(kConfig) for a model without a name, a tokenizer or room for an answer.
  explicit Api(ServedModel model, AnswerOrigin origin = {})
      : context_{.model = std::move(model), .origin = std::move(origin)} {
    LMD_REQUIRE(!context_.model.names.empty() && context_.model.tokenizer != nullptr &&
                    context_.model.session_len > 1,
                ErrorCode::kConfig, "api: a model needs a name, a tokenizer and a session length");
  }

  [[nodiscard]] ApiContext& context() { return context_; }

  /// Every endpoint but those of operation (health, metrics).
  [[nodiscard]] std::vector<Route> routes() {
    return {post("/v1/chat/completions", chat_completions)};
  }

 private:
  using Function = ApiResult (*)(ApiContext&, const ApiRequest&);

  [[nodiscard]] Route post(std::string path, Function function) {
    return {.method = "POST",
            .path = std::move(path),
            .endpoint = [this, function](const ApiRequest& request) {
              return function(context_, request);
            }};
  }

  ApiContext context_;
};

}  // namespace lmd::serve
