/// \file  /v1/chat/completions: answers and streams byte by byte.
// SPDX-License-Identifier: Apache-2.0
#include <lmd/serve/chat_endpoint.hpp>

#include <string>

#include "api_case.hpp"

using namespace lmd;
using namespace lmd::test;

namespace {

serve::ApiResult ask(serve::ApiContext& context, const std::string& members) {
  const std::string body =
      R"({"model":"tiny","messages":[{"role":"user","content":"Hi"}])" + members + "}";
  return serve::chat_completions(context, post("/v1/chat/completions", body));
}

constexpr const char* kHead =
    R"({"id":"chatcmpl-00000000000000010000000000000002","object":"chat.completion","created":1700000000,)"
    R"("model":"tiny","choices":[)";
const std::string kChunk =
    R"(data: {"id":"chatcmpl-00000000000000010000000000000002","object":"chat.completion.chunk",)"
    R"("created":1700000000,"model":"tiny","choices":[)";

}  // namespace

TEST_CASE("an answer has content, usage and a finish reason") {
  auto context = make_context();
  const auto reply = replied(ask(*context, ""), {{"Hello world"}});
  CHECK(reply.status == 200);
  CHECK(reply.content_type == "application/json");
  CHECK(reply.body ==
        kHead +
            std::string(R"({"index":0,"message":{"role":"assistant","content":"Hello world",)"
                        R"("reasoning_content":null,"tool_calls":null},"logprobs":null,)"
                        R"("finish_reason":"stop"}],"usage":{"prompt_tokens":21,"total_tokens":23,)"
                        R"("completion_tokens":2,"prompt_tokens_details":{"cached_tokens":0},)"
                        R"("completion_tokens_details":{"reasoning_tokens":0}}})"));
}

TEST_CASE("a stream has one choice per chunk and a role in each") {
  auto context = make_context();
  const std::string stream = streamed(ask(*context, R"(,"stream":true)"), {"Hello world"});
  const auto chunk = [](const char* content, const char* finish) {
    return kChunk + R"({"index":0,"delta":{"role":"assistant","content":")" + content +
           R"("},"finish_reason":)" + finish + "}]}\n\n";
  };
  CHECK(stream == chunk("Hello", "null") + chunk(" world", "null") + chunk("", "\"stop\"") +
                      "data: [DONE]\n\n");
}

TEST_CASE("usage comes in a last chunk without choices, only when it is asked for") {
  auto context = make_context();
  const std::string stream = streamed(
      ask(*context, R"(,"stream":true,"stream_options":{"include_usage":true})"), {"Hello"});
  CHECK(
      stream ==
      kChunk +
          R"({"index":0,"delta":{"role":"assistant","content":"Hello"},"finish_reason":null}],"usage":null})"
          "\n\n" +
          kChunk +
          R"({"index":0,"delta":{"role":"assistant","content":""},"finish_reason":"stop"}],"usage":null})"
          "\n\n" +
          kChunk +
          R"(],"usage":{"prompt_tokens":21,"total_tokens":22,"completion_tokens":1,)"
          R"("prompt_tokens_details":{"cached_tokens":0},"completion_tokens_details":{"reasoning_tokens":0}}})"
          "\n\ndata: [DONE]\n\n");
}

TEST_CASE("a stop string is cut wherever tokens end, and frees the engine") {
  struct Case {
    const char* stop;
    const char* content;
    int n_tokens;  // that were drawn
  };
  for (const auto& [stop, content, n_tokens] : {Case{R"("is")", "Hello", 2},
                                                {R"([" world"," is"])", "Hello", 2},
                                                {R"("s th")", "Hello i", 4},
                                                {R"("nothing")", "Hello is thing", 4},
                                                {R"(["",null])", "", -1}}) {
    CAPTURE(stop);
    auto context = make_context();
    const std::string members = std::string(R"(,"stop":)") + stop;
    if (n_tokens < 0) {
      const auto reply = refusal(*context, [&] { return ask(*context, members); });
      CHECK(reply.status == 400);
      continue;
    }
    const auto reply = replied(ask(*context, members), {{"Hello is thing"}});
    const json::Json body = json::parse(reply.body, "reply");
    CHECK(body["choices"][0]["finish_reason"] == "stop");
    CHECK(body["usage"]["completion_tokens"] == n_tokens);
  }
}

TEST_CASE("a token that is part of a character has log probabilities and bytes of its own") {
  auto context = make_context();
  const std::string members = R"(,"logprobs":true,"top_logprobs":2)";
  const Script script{"\xE4\xBD\xA0", engine::FinishReason::kLength, true};
  const json::Json body = json::parse(replied(ask(*context, members), {script}).body, "reply");
  const json::Json& choice = body["choices"][0];
  CHECK(choice["message"]["content"] == "\xE4\xBD\xA0");
  CHECK(choice["finish_reason"] == "length");
  const json::Json& entries = choice["logprobs"]["content"];
  REQUIRE(entries.size() == 3);
  CHECK(entries[0]["token"] == "<0xE4>");
  CHECK(entries[0]["bytes"] == json::Json::array({0xE4}));
  CHECK(entries[0]["logprob"] == -0.5);
  CHECK(entries[2]["top_logprobs"].size() == 2);
  CHECK(entries[2]["top_logprobs"][1]["token"] == "!");

  const std::string stream = streamed(ask(*context, members + R"(,"stream":true)"), script);
  CHECK(stream.find(R"("content":""},"logprobs":{"content":[{"token":"<0xE4>","logprob":-0.5,)"
                    R"("bytes":[228],"top_logprobs":[)") != std::string::npos);
  CHECK(stream.find("\"content\":\"\xE4\xBD\xA0\"},\"logprobs\"") != std::string::npos);
}

TEST_CASE("n answers have indices, seeds in a row and one usage") {
  auto context = make_context();
  auto result = ask(*context, R"(,"n":3,"seed":7)");
  auto& call = std::get<std::unique_ptr<serve::ApiCall>>(result);
  const auto requests = call->take_requests();
  REQUIRE(requests.size() == 3);
  for (std::size_t i = 0; i < 3; ++i) {
    CHECK(requests[i].sampling.seed == 7 + i);
    CHECK(requests[i].prompt == requests[0].prompt);
  }
  std::string out;
  for (const int answer : {2, 0, 1})
    play(*call, answer, {std::string(static_cast<std::size_t>(answer) + 1, 'x')}, out);
  REQUIRE(call->has_ended());
  const json::Json body = json::parse(call->reply().body, "reply");
  for (int i = 0; i < 3; ++i) {
    CHECK(body["choices"][i]["index"] == i);
    CHECK(body["choices"][i]["message"]["content"].get<std::string>().size() == i + 1u);
  }
  CHECK(body["usage"]["prompt_tokens"] == 21);
  CHECK(body["usage"]["completion_tokens"] == 6);
}

TEST_CASE("an engine's error ends all answers of a call") {
  auto context = make_context();
  for (const bool is_stream : {false, true}) {
    CAPTURE(is_stream);
    auto result = ask(*context, is_stream ? R"(,"n":2,"stream":true)" : R"(,"n":2)");
    auto& call = std::get<std::unique_ptr<serve::ApiCall>>(result);
    std::string out;
    call->on_event({.answer = 1, .finish = engine::FinishReason::kError, .logprobs = {}}, out);
    CHECK(call->has_ended());
    CHECK(call->take_finished_early() == std::vector{serve::EarlyEnd{0, false}});
    if (is_stream) {
      CHECK(out ==
            R"(data: {"error":{"message":"Internal error.","type":"server_error","code":500}})"
            "\n\ndata: [DONE]\n\n");
    } else {
      CHECK(call->reply().status == 500);
    }
  }
}

TEST_CASE("a prompt without room: an error today, an empty answer for clients of 0.5") {
  auto context = make_context("chatml", serve::ApiCompat::k018, 21);
  const auto reply = refusal(*context, [&] { return ask(*context, ""); });
  CHECK(reply.status == 400);
  CHECK(reply.body.find("Input length (21) must be smaller than the model context length (21).") !=
        std::string::npos);
  auto old = make_context("chatml", serve::ApiCompat::k05, 21);
  const auto whole = std::get<serve::HttpReply>(ask(*old, ""));
  CHECK(whole.status == 200);
  CHECK(json::parse(whole.body, "reply")["choices"][0]["finish_reason"] == "length");
  const auto stream = std::get<serve::HttpReply>(ask(*old, R"(,"stream":true)"));
  CHECK(stream.content_type == "text/event-stream");
  CHECK(stream.body.find(R"("content":""},"finish_reason":"length"}]})") != std::string::npos);
  CHECK(stream.body.ends_with("data: [DONE]\n\n"));
}

TEST_CASE("usage tells of cached tokens, once for each prompt") {
  auto context = make_context();
  auto result = ask(*context, R"(,"n":2)");
  auto& call = std::get<std::unique_ptr<serve::ApiCall>>(result);
  std::string out;
  for (const int answer : {0, 1}) {
    serve::AnswerEvent event{.answer = answer, .token = 'x', .logprobs = {}};
    event.finish = engine::FinishReason::kLength;
    event.n_reused = 16 + answer;
    call->on_event(event, out);
  }
  const json::Json usage = json::parse(call->reply().body, "reply")["usage"];
  CHECK(usage["prompt_tokens_details"]["cached_tokens"] == 16);
}

TEST_CASE("a session id is one request's at a time") {
  auto context = make_context();
  auto first = ask(*context, R"(,"session_id":"3")");
  const auto reply = refusal(*context, [&] { return ask(*context, R"(,"session_id":3)"); });
  CHECK(reply.status == 400);
  first = serve::HttpReply{};
  CHECK_NOTHROW((void)ask(*context, R"(,"session_id":3)"));
}
