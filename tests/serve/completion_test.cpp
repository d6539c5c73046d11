/// \file  /v1/completions and /generate: prompts of all kinds, answers and streams byte by byte.
// SPDX-License-Identifier: Apache-2.0
#include <lmd/serve/completion_endpoint.hpp>

#include <string>

#include "api_case.hpp"

using namespace lmd;
using namespace lmd::test;

namespace {

serve::ApiResult complete(serve::ApiContext& context, const std::string& members) {
  return serve::completions(context,
                            post("/v1/completions", R"({"model":"tiny",)" + members + "}"));
}

serve::ApiResult generate(serve::ApiContext& context, const std::string& members) {
  return serve::generate_text(context, post("/generate", "{" + members + "}"));
}

std::vector<engine::Request> requests_of(serve::ApiResult result) {
  return std::get<std::unique_ptr<serve::ApiCall>>(result)->take_requests();
}

const std::string kHead =
    R"({"id":"cmpl-00000000000000010000000000000002","object":"text_completion",)"
    R"("created":1700000000,"model":"tiny","choices":[)";

}  // namespace

TEST_CASE("a completion, whole and streamed") {
  auto context = make_context();
  CHECK(replied(complete(*context, R"("prompt":"th")"), {{"Hello world"}}).body ==
        kHead + R"({"index":0,"text":"Hello world","logprobs":null,"finish_reason":"stop"}],)"
                R"("usage":{"prompt_tokens":1,"total_tokens":3,"completion_tokens":2,)"
                R"("prompt_tokens_details":{"cached_tokens":0},)"
                R"("completion_tokens_details":{"reasoning_tokens":0}}})");
  context = make_context();
  const auto chunk = [](const char* text, const char* finish) {
    return "data: " + kHead + R"({"index":0,"text":")" + text +
           R"(","logprobs":null,"finish_reason":)" + finish + "}]}\n\n";
  };
  CHECK(streamed(complete(*context, R"("prompt":"th","stream":"true")"), {"Hello world"}) ==
        chunk("Hello", "null") + chunk(" world", "null") + chunk("", "\"stop\"") +
            "data: [DONE]\n\n");
}

TEST_CASE("prompts: texts, ids, and lists of both, in order") {
  auto context = make_context();
  using Ids = std::vector<int>;
  CHECK(requests_of(complete(*context, R"("prompt":"aHello")"))[0].prompt == Ids{'a', 256});
  CHECK(requests_of(complete(*context, R"("prompt":[7,265])"))[0].prompt == Ids{7, 265});
  const auto many = requests_of(complete(*context, R"("prompt":["a",[3],"b"],"n":2,"seed":5)"));
  REQUIRE(many.size() == 6);
  CHECK(many[1].prompt == Ids{'a'});
  CHECK(many[1].sampling.seed == 6);
  CHECK(many[2].prompt == Ids{3});
  CHECK(many[5].prompt == Ids{'b'});
  for (const char* wrong : {"[]", "[[]]", "3", "{}", "[1,\"a\"]", "[[266]]", "[-1]", "[1.5]",
                            "null", "\"\"", "[null]"}) {
    CAPTURE(wrong);
    CHECK(refusal(*context, [&] {
            return complete(*context, std::string(R"("prompt":)") + wrong);
          }).status == 400);
  }
  std::string list;
  for (int i = 0; i < 65; ++i)
    list += i > 0 ? ",\"a\"" : "\"a\"";
  CHECK(refusal(*context, [&] {
          return complete(*context, R"("n":2,"prompt":[)" + list + "]");
        }).status == 400);
}

TEST_CASE("lengths: what the request says, what the context has room for, what 0.5 took") {
  auto context = make_context("chatml", serve::ApiCompat::k018, 100);
  CHECK(requests_of(complete(*context, R"("prompt":"a")"))[0].max_new_tokens == 99);
  CHECK(requests_of(complete(*context, R"("prompt":"a","max_tokens":7)"))[0].max_new_tokens == 7);
  CHECK(requests_of(complete(*context, R"("prompt":"a","max_tokens":700)"))[0].max_new_tokens ==
        99);
  CHECK(
      requests_of(complete(*context, R"("prompt":"a","max_tokens":7,"max_completion_tokens":9)"))[0]
          .max_new_tokens == 9);
  auto old = make_context("chatml", serve::ApiCompat::k05, 100);
  CHECK(requests_of(complete(*old, R"("prompt":"a")"))[0].max_new_tokens == 16);
  CHECK(requests_of(generate(*context, R"("prompt":"a")"))[0].max_new_tokens == 99);
}

TEST_CASE("an echo stands in front once, whole and streamed") {
  auto context = make_context();
  const auto body = json::parse(
      replied(complete(*context, R"("prompt":"a th","echo":true,"n":2)"), {{"x"}, {"y"}}).body,
      "r");
  CHECK(body["choices"][0]["text"] == "a thx");
  CHECK(body["choices"][1]["text"] == "a thy");
  const std::string stream =
      streamed(complete(*context, R"("prompt":[97],"echo":true,"stream":true)"), {"xy"});
  CHECK(stream.find(R"("text":"ax")") != std::string::npos);
  CHECK(stream.find(R"("text":"y")") != std::string::npos);
  CHECK(refusal(*context, [&] {
          return complete(*context, R"("prompt":"a","echo":true,"logprobs":1)");
        }).status == 400);
}

TEST_CASE("suffix and best_of are taken and have no effect, as in LMDeploy") {
  auto context = make_context();
  const auto plain = requests_of(complete(*context, R"("prompt":"a","seed":1)"));
  const auto more =
      requests_of(complete(*context, R"("prompt":"a","seed":1,"best_of":3,"suffix":"b")"));
  REQUIRE(more.size() == 1);
  CHECK(more[0].prompt == plain[0].prompt);
  for (const char* wrong :
       {R"("suffix":3)", R"("best_of":"x")", R"("best_of":0)", R"("best_of":17)"}) {
    CAPTURE(wrong);
    CHECK(refusal(*context, [&] {
            return complete(*context, std::string(R"("prompt":"a",)") + wrong);
          }).status == 400);
  }
}

TEST_CASE("log probabilities in lists") {
  auto context = make_context();
  const auto body = json::parse(replied(complete(*context, R"("prompt":"a","logprobs":2)"),
                                        {{"Hello x", engine::FinishReason::kLength, true}})
                                    .body,
                                "r");
  const json::Json& logprobs = body["choices"][0]["logprobs"];
  CHECK(logprobs["tokens"] == json::Json::array({"Hello", " ", "x"}));
  CHECK(logprobs["token_logprobs"] == json::Json::array({-0.5, -0.5, -0.5}));
  CHECK(logprobs["text_offset"] == json::Json::array({0, 5, 6}));
  CHECK(logprobs["top_logprobs"][0]["!"] == -1.0);
  const std::string stream =
      streamed(complete(*context, R"("prompt":"a","logprobs":0,"stream":true)"),
               {"Hello x", engine::FinishReason::kLength, true});
  CHECK(stream.find(R"("text_offset":[6])") != std::string::npos);
}

TEST_CASE("/generate, whole and streamed") {
  auto context = make_context();
  CHECK(
      replied(generate(*context, R"("prompt":"ab","return_logprob":true)"),
              {{"xHello", engine::FinishReason::kLength, true}})
          .body ==
      R"({"text":"xHello","output_ids":[120,256],"meta_info":{"prompt_tokens":2,"completion_tokens":2,)"
      R"("finish_reason":{"type":"length"},"output_token_logprobs":[[-0.5,120],[-0.5,256]]}})");
  CHECK(
      streamed(generate(*context, R"("input_ids":[97],"stream":true)"), {"x"}) ==
      R"(data: {"text":"x","output_ids":[120],"meta_info":{"prompt_tokens":1,"completion_tokens":1,)"
      R"("finish_reason":null,"output_token_logprobs":null}})"
      "\n\n"
      R"(data: {"text":"","output_ids":[],"meta_info":{"prompt_tokens":1,"completion_tokens":1,)"
      R"("finish_reason":{"type":"stop"},"output_token_logprobs":null}})"
      "\n\ndata: [DONE]\n\n");
  const auto requests =
      requests_of(generate(*context, R"("prompt":"a","stop_token_ids":[5],"ignore_eos":true)"));
  CHECK(requests[0].stop_ids == std::vector{5});
  for (const char* wrong :
       {R"("foo":1)", R"("prompt":"a","input_ids":[1])", R"("prompt":3)", R"("input_ids":[])"}) {
    CAPTURE(wrong);
    CHECK(refusal(*context, [&] { return generate(*context, wrong); }).status == 400);
  }
}
