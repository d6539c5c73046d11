/// \file  /openapi.json says what the server does: its routes, its fields, their ranges.
// SPDX-License-Identifier: Apache-2.0
#include <lmd/serve/api.hpp>

#include <set>
#include <string>

#include "api_case.hpp"

using namespace lmd;
using namespace lmd::test;

namespace {

json::Json document(const serve::ServedModel& model) {
  return json::parse(serve::openapi_text(model, true), "openapi.json");
}

const json::Json& properties(const json::Json& document, const char* path) {
  return document["paths"][path]["post"]["requestBody"]["content"]["application/json"]["schema"]
                 ["properties"];
}

}  // namespace

TEST_CASE("every route is described, and pages where there are some") {
  serve::ServedModel model = make_context()->model;
  const json::Json described = document(model);
  const json::Json without_pages = json::parse(serve::openapi_text(model, false), "openapi.json");
  serve::Api api(std::move(model));
  for (const serve::Route& route : api.routes()) {
    const std::string path = route.path == "/v1/models/tiny" ? "/v1/models/{model}" : route.path;
    CAPTURE(path);
    CHECK(described["paths"][path].contains(route.method == "GET" ? "get" : "post"));
  }
  for (const char* page : {"/", "/docs"}) {
    CHECK(described["paths"][page]["get"]["responses"]["200"]["content"].contains("text/html"));
    CHECK_FALSE(without_pages["paths"].contains(page));
  }
  const json::Json& card = described["paths"]["/v1/models/{model}"]["get"];
  CHECK(card["parameters"][0]["schema"]["enum"] == json::Json::array({"tiny"}));
  CHECK(card["responses"].contains("404"));
  const json::Json& refused = described["paths"]["/v1/embeddings"]["post"]["responses"];
  CHECK_FALSE(refused.contains("200"));
  CHECK(refused.contains("501"));
  std::set<std::string> ids;
  for (const json::Json& path : described["paths"])
    for (const json::Json& operation : path)
      CHECK(ids.insert(operation["operationId"].get<std::string>()).second);
}

TEST_CASE("numbers have the ranges of the table and the defaults of the model") {
  serve::ServedModel model = make_context()->model;
  model.recommended.top_p = 0.5;
  model.max_n = 4;
  const json::Json described = document(model);
  const json::Json& chat = properties(described, "/v1/chat/completions");
  for (const serve::NumberLimit& limit : serve::kNumberLimits) {
    if ((limit.where & serve::kChat) == 0) continue;
    CAPTURE(limit.name);
    const json::Json& field = chat[std::string(limit.name)];
    const char* minimum = limit.is_min_open ? "exclusiveMinimum" : "minimum";
    CHECK(field[minimum].get<double>() == doctest::Approx(limit.min));
    if (limit.name != "n") CHECK(field["maximum"].get<double>() == doctest::Approx(limit.max));
  }
  CHECK(chat["n"]["maximum"] == 4);
  CHECK(chat["model"]["enum"] == json::Json::array({"tiny"}));
  CHECK(chat["top_p"]["default"] == 0.5);
  CHECK(chat["temperature"]["default"] == doctest::Approx(0.8));
  CHECK(properties(described, "/v1/chat/interactive")["top_k"]["default"] == 40);
}

TEST_CASE("no field is described twice, and bounds of lists are those that are checked") {
  for (const serve::Operation& operation : serve::kOperations) {
    std::set<std::string_view> names;
    CAPTURE(operation.path);
    for (const serve::FieldSchema& field : serve::kFieldSchemas)
      if ((field.where & operation.endpoint) != 0) CHECK(names.insert(field.name).second);
    for (const serve::NumberLimit& limit : serve::kNumberLimits)
      if ((limit.where & operation.endpoint) != 0) CHECK(names.insert(limit.name).second);
  }
  const json::Json chat = properties(document(make_context()->model), "/v1/chat/completions");
  CHECK(chat["stop"]["anyOf"][1]["maxItems"] == serve::kMaxStops);
  CHECK(chat["stop"]["anyOf"][1]["items"]["maxLength"] == serve::kMaxStopBytes);
  CHECK(chat["tools"]["maxItems"] == serve::kMaxTools);
  CHECK(properties(document(make_context()->model), "/generate")["stop_token_ids"]["maxItems"] ==
        serve::kMaxStopIds);
}
