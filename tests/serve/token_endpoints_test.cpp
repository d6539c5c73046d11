/// \file  /v1/encode, /tokenize, /detokenize, /v1/models, and bodies of all endpoints that are no JSON.
// SPDX-License-Identifier: Apache-2.0
#include <lmd/serve/api.hpp>

#include <string>

#include "api_case.hpp"

using namespace lmd;
using namespace lmd::test;

namespace {

using Function = serve::ApiResult (*)(serve::ApiContext&, const serve::ApiRequest&);

std::string body_of(Function function, const std::string& body) {
  auto context = make_context();
  return std::get<serve::HttpReply>(function(*context, post("/", body))).body;
}

int status_of(Function function, const std::string& body) {
  auto context = make_context();
  return refusal(*context, [&] { return function(*context, post("/", body)); }).status;
}

/// The reply to GET.
json::Json got(const serve::RouteTable& table, const std::string& path) {
  const serve::Route* route = table.find("GET", path);
  REQUIRE(route != nullptr);
  serve::ApiRequest request = post(path, {});
  request.method = "GET";
  return json::parse(std::get<serve::HttpReply>(route->endpoint(request)).body, path);
}

}  // namespace

TEST_CASE("/v1/encode: one text or many") {
  CHECK(body_of(serve::encode_text, R"({"input":"aHello"})") ==
        R"({"input_ids":[97,256],"length":2})");
  CHECK(body_of(serve::encode_text,
                R"({"input":["a","","bc"],"do_preprocess":false,"add_bos":true})") ==
        R"({"input_ids":[[97],[],[98,99]],"length":[1,0,2]})");
  CHECK(body_of(serve::encode_text, R"({"input":"a","do_preprocess":true})")
            .find(R"("length":20})") != std::string::npos);
  for (const char* wrong : {"{}", R"({"input":3})", R"({"input":[3]})", R"({"input":{}})"})
    CHECK(status_of(serve::encode_text, wrong) == 400);
}

TEST_CASE("/tokenize and /detokenize turn each other back") {
  CHECK(body_of(serve::tokenize, R"({"prompt":"Hello<|im_end|>"})") ==
        R"({"count":2,"max_model_len":512,"tokens":[256,262]})");
  CHECK(body_of(serve::detokenize, R"({"tokens":[256,262,34]})") ==
        R"({"prompt":"Hello<|im_end|>\""})");
  CHECK(body_of(serve::tokenize, R"({"model":"tiny","messages":[{"role":"user","content":"a"}]})")
            .starts_with(R"({"count":20,)"));
  CHECK(status_of(serve::tokenize, R"({"model":"x","prompt":"a"})") == 404);
  for (const char* wrong : {"{}", R"({"prompt":3})", R"({"messages":"a"})",
                            R"({"prompt":3,"messages":[{"role":"user","content":"a"}]})",
                            R"({"prompt":"a","messages":[{"role":"user","content":"a"}]})"})
    CHECK(status_of(serve::tokenize, wrong) == 400);
  for (const char* wrong : {"{}", R"({"tokens":"a"})", R"({"tokens":[-1]})", R"({"tokens":[266]})"})
    CHECK(status_of(serve::detokenize, wrong) == 400);
}

TEST_CASE("models have cards under each of their names") {
  serve::ServedModel model = make_context()->model;
  model.names = {"tiny", "org/other"};
  serve::Api api(std::move(model));
  serve::RouteTable table;
  table.add(api.routes());
  const json::Json cards = got(table, "/v1/models");
  REQUIRE(cards["data"].size() == 2);
  CHECK(cards["data"][1]["id"] == "org/other");
  CHECK(cards["data"][0]["object"] == "model");
  CHECK(cards["data"][0]["permission"].size() == 1);
  CHECK(cards["data"][0]["input_modalities"].size() == 1);
  CHECK(got(table, "/v1/models/org/other")["id"] == "org/other");
  CHECK_THROWS_AS(serve::Api(serve::ServedModel{}), Error);
}

TEST_CASE("bodies that are no JSON object, of every endpoint") {
  auto context = make_context();
  for (const Function function :
       {serve::chat_completions, serve::completions, serve::chat_interactive, serve::generate_text,
        serve::encode_text, serve::tokenize, serve::detokenize}) {
    for (const char* body :
         {"", "{", "[]", "3", "null", "\"a\"", "{\"model\":\"tiny\",\"model\":\"tiny\"}",
          "\xFF\xFE", "{\"a\":1e999}"}) {
      CAPTURE(body);
      CHECK(status_of(function, body) == 400);
      context->model.compat = serve::ApiCompat::k05;
      CHECK(refusal(*context, [&] { return function(*context, post("/", body)); }).status == 422);
    }
    serve::ApiRequest request = post("/", "{}");
    request.content_type = "text/plain";
    CHECK(refusal(*context, [&] { return function(*context, request); }).status == 422);
  }
  CHECK(status_of(serve::embeddings, "{}") == 501);
}
