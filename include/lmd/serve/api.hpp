/// \file  The endpoints as routes.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/serve/chat_endpoint.hpp>
#include <lmd/serve/completion_endpoint.hpp>
#include <lmd/serve/interactive_endpoint.hpp>
#include <lmd/serve/model_endpoints.hpp>
#include <lmd/serve/openapi.hpp>
#include <lmd/serve/route.hpp>
#include <lmd/serve/token_endpoints.hpp>

#include <string>
#include <utility>
#include <vector>

namespace lmd::serve {

/// What a server that runs one model answers. Outlives its routes and their calls.
class Api {
 public:
  /// \throws Error(kConfig) for a model without a name, a tokenizer or room for an answer.
  /// \param has_pages  whether the server shows pages beside: its description has them then
  explicit Api(ServedModel model, bool has_pages = false)
      : context_(checked(std::move(model))), openapi_(openapi_text(context_.model, has_pages)) {}

  [[nodiscard]] ApiContext& context() { return context_; }

  /// Every endpoint but those of operation (health, metrics).
  [[nodiscard]] std::vector<Route> routes() {
    std::vector<Route> routes = {
        route("GET", "/v1/models", list_models),
        route("POST", "/v1/chat/completions", chat_completions),
        route("POST", "/v1/completions", completions),
        route("POST", "/v1/chat/interactive", chat_interactive),
        route("POST", "/v1/encode", encode_text),
        route("POST", "/v1/embeddings", embeddings),
        route("POST", "/generate", generate_text),
        route("POST", "/tokenize", tokenize),
        route("POST", "/detokenize", detokenize),
    };
    routes.push_back({.method = "GET",
                      .path = "/openapi.json",
                      .runs_on = RunsOn::kIoThread,
                      .endpoint = [this](const ApiRequest&) {
                        return ApiResult(HttpReply{.status = 200, .body = openapi_});
                      }});
    for (const std::string& name : context_.model.names)
      routes.push_back(route("GET", "/v1/models/" + name, show_model));
    return routes;
  }

 private:
  [[nodiscard]] static ServedModel checked(ServedModel model) {
    LMD_REQUIRE(!model.names.empty() && model.tokenizer != nullptr && model.session_len > 1,
                ErrorCode::kConfig, "api: a model needs a name, a tokenizer and a session length");
    return model;
  }

  using Function = ApiResult (*)(ApiContext&, const ApiRequest&);

  [[nodiscard]] Route route(const char* method, std::string path, Function function) {
    return {.method = method,
            .path = std::move(path),
            .endpoint = [this, function](const ApiRequest& request) {
              return function(context_, request);
            }};
  }

  ApiContext context_;
  std::string openapi_;
};

}  // namespace lmd::serve
