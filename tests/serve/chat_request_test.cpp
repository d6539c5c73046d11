/// \file  Bodies of /v1/chat/completions: messages, tools, formats, and what is wrong with them.
// SPDX-License-Identifier: Apache-2.0
#include <lmd/serve/chat_endpoint.hpp>

#include <string>

#include "api_case.hpp"

using namespace lmd;
using namespace lmd::test;

namespace {

const std::string kAdd =
    R"({"type":"function","function":{"name":"add","description":"Adds.","parameters":)"
    R"({"type":"object","properties":{"b":{"type":"integer"},"a":{"type":"integer"}}}}})";

serve::ChatRequest read(const std::string& body,
                        serve::ApiCompat compat = serve::ApiCompat::k018,
                        const char* tmpl = "internlm2") {
  const auto context = make_context(tmpl, compat);
  const json::OrderedJson value = json::parse_bounded(body);
  return serve::read_chat_request({value, {"body"}, compat}, context->model);
}

/// A body with these messages.
std::string with(const std::string& messages, const std::string& members = {}) {
  return R"({"model":"tiny","messages":[)" + messages + "]" + members + "}";
}

const std::string kHi = R"({"role":"user","content":"Hi"})";

/// The error's case and, of 0.18, its message.
std::pair<serve::ErrorCase, std::string> failure(const std::string& body) {
  try {
    (void)read(body);
  } catch (const serve::ApiFailure& e) {
    const auto reply = serve::error_reply(e.error(), serve::ApiCompat::k018);
    return {e.error().what, json::parse(reply.body, "reply")["message"].get<std::string>()};
  }
  FAIL("accepted: " << body);
  return {};
}

std::string prompt_of(const std::string& body, const char* tmpl) {
  auto context = make_context(tmpl, serve::ApiCompat::k018, 4096);
  auto result = serve::chat_completions(*context, post("/", body));
  const auto requests = std::get<std::unique_ptr<serve::ApiCall>>(result)->take_requests();
  return test_tokenizer().decode(requests.at(0).prompt, false);
}

}  // namespace

TEST_CASE("contents: text, null, parts joined by newlines") {
  CHECK(read(with(kHi)).messages[0].content == "Hi");
  CHECK(read(with(R"({"role":"assistant","content":null})")).messages[0].content.empty());
  CHECK(
      read(
          with(
              R"({"role":"user","content":[{"type":"text","text":"a"},{"type":"text","text":"b"}]})"))
          .messages[0]
          .content == "a\nb");
}

TEST_CASE("roles, and results of tools under both of their names") {
  const auto request =
      read(with(R"({"role":"developer","content":"S"},{"role":"tool","content":"8",)"
                R"("tool_call_id":"x"},{"role":"environment","name":"plugin","content":"9"})"));
  CHECK(request.messages[0].role == "system");
  CHECK(request.messages[1].name == "plugin");
  CHECK(request.messages[2].name == "plugin");
  CHECK(failure(with(R"({"role":"robot","content":"a"})")).second ==
        "body.messages.0.role: expected system, user, assistant, tool or environment");
}

TEST_CASE("fields that nobody knows are ignored") {
  CHECK_NOTHROW(
      (void)read(with(kHi, R"(,"kwargs":{"min_tokens":3,"session_id":-7},"foo":[{}],"user":"u",)"
                           R"("tools":null,"logit_bias":{},"response_format":null,"stop":null,)"
                           R"("repetition_ngram_size":0,"return_routed_experts":false)")));
}

TEST_CASE("what is missing or of the wrong kind is named by place") {
  using serve::ErrorCase;
  CHECK(failure(R"({"messages":[]})").second == "body.model: Field required");
  CHECK(failure(R"({"model":"other","messages":[]})") ==
        std::pair{ErrorCase::kUnknownModel, std::string("The model `other` does not exist.")});
  CHECK(failure(R"({"model":"tiny"})").second == "body.messages: Field required");
  CHECK(failure(R"({"model":"tiny","messages":"Hi"})").second == "body.messages: expected a list");
  CHECK(failure(with("3")).second == "body.messages.0: expected an object");
  CHECK(failure(with(R"({"role":"user","content":3})")).second ==
        "body.messages.0.content: expected a string");
  CHECK(failure(with(R"({"role":"user","content":[{"type":"audio"}]})")).second ==
        "body.messages.0.content.0.type: expected text or image_url");
  CHECK(failure(with("")).second == "Either messages or input_ids must be given.");
  CHECK(failure(with(kHi, R"(,"input_ids":[1])")).first == ErrorCase::kOutOfRange);
  CHECK(failure(with("", R"(,"input_ids":[1,-1])")).second ==
        "body.input_ids.1: expected a token id from 0 to 265");
  CHECK(read(with("", R"(,"input_ids":[1,265])")).input_ids == std::vector{1, 265});
  for (const char* members : {"", R"("messages":null,)"}) {
    const std::string body = std::string(R"({"model":"tiny",)") + members + R"("input_ids":[1]})";
    CHECK(read(body).input_ids == std::vector{1});
    CHECK(read(body, serve::ApiCompat::k05).input_ids == std::vector{1});
  }
  CHECK(failure(R"({"model":"tiny","input_ids":[]})").second ==
        "Either messages or input_ids must be given.");
}

TEST_CASE("stop strings are bounded in number and length") {
  const auto stop = [](std::size_t n, std::size_t bytes) {
    std::string list;
    for (std::size_t i = 0; i < n; ++i)
      list += (i > 0 ? ",\"" : "\"") + std::string(bytes, 'a') + '"';
    return with(kHi, ",\"stop\":[" + list + "]");
  };
  CHECK(read(stop(16, 256)).answer.stop.size() == 16);
  CHECK(read(stop(0, 0)).answer.stop.empty());
  CHECK(read(stop(3, 0)).answer.stop.empty());
  CHECK(failure(stop(17, 1)).second == "body.stop: holds 17 entries, at most 16 are taken");
  CHECK(failure(stop(1, 257)).second == "body.stop.0: expected at most 256 bytes");
  CHECK(failure(with(kHi, R"(,"stop":3)")).second == "body.stop: expected a string");
}

TEST_CASE("biases by token id") {
  const auto request = read(with(kHi, R"(,"logit_bias":{"3":-100,"265":5.5})"));
  CHECK(request.answer.sampling.logit_bias ==
        std::vector<std::pair<int, float>>{{3, -100.0f}, {265, 5.5f}});
  for (const char* wrong : {R"({"266":1})", R"({"-1":1})", R"({"a":1})", R"({"1":101})",
                            R"({"1":"x"})", "[]", R"({"1":null})"}) {
    CAPTURE(wrong);
    CHECK(failure(with(kHi, std::string(R"(,"logit_bias":)") + wrong)).first ==
          serve::ErrorCase::kMalformed);
  }
}

TEST_CASE("images are refused, by their URL first") {
  const auto image = [](const std::string& url) {
    return with(R"({"role":"user","content":[{"type":"image_url","image_url":{"url":")" + url +
                R"("}}]})");
  };
  CHECK(failure(image("data:image/png;base64,iVBORw0=")).second ==
        "The model takes no images, text alone.");
  for (const char* url :
       {"file:///etc/passwd", "/etc/passwd", "ftp://a/b", "data:text/html;base64,AAAA",
        "data:image/png,AAAA", "data:image/png;base64,", "data:image/png;base64,A",
        "data:image/png;base64,AA==A", "http://localhost/a.png", "https://allowed.example@evil/a",
        "https://allowed.example\\\\@evil/", "HTTP://169.254.169.254/", "gopher://x"}) {
    CAPTURE(url);
    const auto [what, message] = failure(image(url));
    CHECK(what == serve::ErrorCase::kMalformed);
    CHECK(message.starts_with("body.messages.0.content.0.image_url: "));
    CHECK(message.find("passwd") == std::string::npos);
  }
}

TEST_CASE("tools in the order of their keys") {
  const auto request = read(with(kHi, R"(,"tools":[)" + kAdd + "]"));
  REQUIRE(request.tools.tools.size() == 1);
  CHECK(request.tools.tools[0].name == "add");
  CHECK(*request.tools.tools[0].parameters ==
        R"({"type":"object","properties":{"b":{"type":"integer"},"a":{"type":"integer"}}})");
  CHECK(request.shows_tools());
  CHECK_FALSE(request.is_call_forced);
  CHECK_FALSE(read(with(kHi, R"(,"tool_choice":"none","tools":[)" + kAdd + "]")).shows_tools());
  CHECK(read(with(kHi, R"(,"tool_choice":"required","tools":[)" + kAdd + "]")).is_call_forced);
  const std::string named = R"(,"tool_choice":{"type":"function","function":{"name":"add"}})";
  CHECK(read(with(kHi, named + R"(,"tools":[)" + kAdd + "]")).tools.choice == "add");
  CHECK(failure(with(kHi, named)).second == "The tool_choice needs tools to choose from.");
  CHECK(failure(with(kHi, R"(,"tool_choice":"required")")).first == serve::ErrorCase::kOutOfRange);
  CHECK(failure(with(kHi, R"(,"tool_choice":"must","tools":[)" + kAdd + "]")).first ==
        serve::ErrorCase::kMalformed);
  CHECK(failure(with(kHi, R"(,"tools":[{"type":"function","function":{"name":"a b"}}])")).first ==
        serve::ErrorCase::kMalformed);
  CHECK(failure(with(kHi, R"(,"tools":[{"type":"retrieval","function":{"name":"a"}}])")).first ==
        serve::ErrorCase::kMalformed);
  CHECK(failure(with(kHi, R"(,"tools":[{"type":"function"}])")).second ==
        "body.tools.0.function: Field required");
  CHECK(failure(with(kHi, R"(,"tools":[{"type":"retrieval"}])")).second ==
        "body.tools.0.type: expected function");
  CHECK(read(with(kHi, R"(,"tools":[{"name":"add"}])")).tools.tools[0].name == "add");
  CHECK(failure(with(kHi, R"(,"tools":[)" + kAdd + R"(,{"name":"add"}])")).second ==
        "body.tools.1: has the name of a tool before it");
}

TEST_CASE("calls of earlier answers must be JSON objects") {
  const auto call = [](const std::string& arguments) {
    return with(R"({"role":"assistant","content":null,"tool_calls":[{"id":"1","type":"function",)"
                R"("function":{"name":"add","arguments":)" +
                arguments + "}}]}");
  };
  CHECK(read(call(R"("{\"a\": 1}")")).messages[0].tool_calls[0].arguments == R"({"a": 1})");
  CHECK(read(call(R"({"a":1})")).messages[0].tool_calls[0].arguments == R"({"a":1})");
  CHECK(read(call(R"("")")).messages[0].tool_calls[0].arguments.empty());
  for (const char* wrong : {R"("{")", R"("3")", "[1]", R"("[]")"})
    CHECK(failure(call(wrong)).second ==
          "body.messages.0.tool_calls.0.function.arguments: expected the JSON text of an object");
}

TEST_CASE("formats of answers") {
  using Kind = serve::ResponseFormat::Kind;
  const auto format = [](const std::string& text) {
    return with(kHi, ",\"response_format\":" + text);
  };
  CHECK(read(format(R"({"type":"text"})")).format.kind == Kind::kText);
  CHECK(read(format(R"({"type":"json_object"})")).format.kind == Kind::kJsonObject);
  const auto schema =
      read(format(R"({"type":"json_schema","json_schema":{"name":"n","schema":{"b":1,"a":2}}})"));
  CHECK(schema.format.kind == Kind::kJsonSchema);
  CHECK(schema.format.source == R"({"b":1,"a":2})");
  CHECK(read(format(R"({"type":"regex_schema","regex_schema":"a+"})")).format.source == "a+");
  for (const char* wrong :
       {"3", R"({"type":"xml"})", R"({})", R"({"type":"json_schema"})",
        R"({"type":"json_schema","json_schema":{"schema":3}})", R"({"type":"regex_schema"})"}) {
    CAPTURE(wrong);
    CHECK(failure(format(wrong)).first == serve::ErrorCase::kMalformed);
  }
  CHECK(failure(with(kHi, R"(,"response_format":{"type":"json_object"},"tools":[)" + kAdd + "]"))
            .first == serve::ErrorCase::kOutOfRange);
  CHECK(
      failure(with(kHi, R"(,"response_format":{"type":"json_object"},"ignore_eos":true)")).first ==
      serve::ErrorCase::kOutOfRange);
}

TEST_CASE("what lmd lacks is refused by name, and what asks for nothing is not") {
  for (const char* members :
       {R"(,"return_routed_experts":true)", R"(,"image_data":["x"])",
        R"(,"mm_processor_kwargs":{"a":1})", R"(,"reasoning_effort":"high")",
        R"(,"enable_thinking":true)", R"(,"chat_template_kwargs":{"enable_thinking":true})",
        R"(,"repetition_ngram_size":3)"}) {
    CAPTURE(members);
    const std::string key = std::string(members).substr(2, std::string(members).find("\":") - 2);
    CHECK(failure(with(kHi, members)).second.find(key) != std::string::npos);
  }
  CHECK_NOTHROW(
      (void)read(with(kHi, R"(,"reasoning_effort":"none","enable_thinking":false,"image_data":[],)"
                           R"("chat_template_kwargs":{"enable_thinking":false})")));
}

TEST_CASE("clients of 0.5 may send a prompt in place of messages, or without a template") {
  const auto request = read(R"({"model":"tiny","messages":"Hi"})", serve::ApiCompat::k05);
  CHECK(request.is_raw);
  CHECK(read(with(kHi, R"(,"do_preprocess":false)"), serve::ApiCompat::k05).is_raw);
  CHECK_FALSE(read(with(kHi, R"(,"do_preprocess":false)")).is_raw);
}

TEST_CASE("InternLM2's prompt shows tools and results as it was trained on them") {
  const std::string body = with(kHi + R"(,{"role":"assistant","content":"I add."},)"
                                      R"({"role":"environment","name":"plugin","content":"8"})",
                                R"(,"tools":[)" + kAdd + "]");
  const std::string prompt = prompt_of(body, "internlm2");
  CHECK(
      prompt.find(
          "<|im_start|>system name=<|plugin|>\n[{\"description\": \"Adds.\", \"name\": \"add\", "
          "\"parameters\": {\"type\": \"object\", \"properties\": {\"b\": {\"type\": \"integer\"}, "
          "\"a\": {\"type\": \"integer\"}}}}]<|im_end|>") != std::string::npos);
  CHECK(prompt.ends_with(
      "<|im_start|>environment name=<|plugin|>\n8<|im_end|>\n<|im_start|>assistant\n"));
}

TEST_CASE("other templates show tools in the system message, calls and results as text") {
  const std::string call =
      R"({"role":"assistant","content":null,"tool_calls":[{"id":"1","type":"function","function":)"
      R"({"name":"add","arguments":"{\"a\":3}"}}]},{"role":"tool","tool_call_id":"1","content":"8"})";
  const std::string body = with(kHi + "," + call, R"(,"tools":[)" + kAdd + "]");
  const std::string prompt = prompt_of(body, "chatml");
  CHECK(prompt.starts_with("<|im_start|>system\nThese functions can be called"));
  CHECK(prompt.find("\"name\": \"add\"") != std::string::npos);
  CHECK(prompt.find(
            "<|im_start|>assistant\n<tool_call>\n{\"name\": \"add\", \"arguments\": {\"a\": 3}}\n"
            "</tool_call><|im_end|>\n<|im_start|>tool\n8<|im_end|>\n") != std::string::npos);
  const std::string phi = prompt_of(body, "phi3");
  CHECK(phi.find("<|user|>\n<tool_response>\n8\n</tool_response><|end|>") != std::string::npos);
}
