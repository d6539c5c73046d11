/// \file  Answers that are held to a form: whatever is drawn of what is allowed, it is of that form.
// SPDX-License-Identifier: Apache-2.0
#include <lmd/serve/chat_endpoint.hpp>

#include <random>
#include <string>

#include "api_case.hpp"

using namespace lmd;
using namespace lmd::test;

namespace {

const std::string kTools =
    R"(,"tools":[{"type":"function","function":{"name":"add","parameters":{"type":"object",)"
    R"("properties":{"a":{"type":"integer"},"b":{"type":"int"}},"required":["a","b"],)"
    R"("additionalProperties":false}}},{"type":"function","function":{"name":"now"}}])";

serve::ApiResult ask(serve::ApiContext& context, const std::string& members) {
  const std::string body =
      R"({"model":"tiny","messages":[{"role":"user","content":"Hi"}])" + members + "}";
  return serve::chat_completions(context, post("/v1/chat/completions", body));
}

/// What a drawn answer does where it may end.
enum class AtEnd { kEnds, kGoesOn };

/// Any of the allowed tokens; where the answer may end, it does, or does if nothing else is allowed.
int draw(std::span<const std::uint32_t> allowed,
         const std::vector<int>& stop_ids,
         AtEnd at_end,
         std::mt19937& random) {
  const auto is_allowed = [&](int id) {
    return (allowed[static_cast<std::size_t>(id) / 32] >> (id % 32) & 1) != 0;
  };
  const auto is_stop = [&](int id) { return std::ranges::find(stop_ids, id) != stop_ids.end(); };
  std::vector<int> ids;
  std::vector<int> stops;
  for (int id = 0; id < test_tokenizer().vocab_size(); ++id)
    if (is_allowed(id)) (is_stop(id) ? stops : ids).push_back(id);
  if (!stops.empty() && (at_end == AtEnd::kEnds || ids.empty())) return stops.front();
  REQUIRE_FALSE(ids.empty());
  return ids[random() % ids.size()];
}

/// The choice of an answer, of which every token is drawn at random from those that are allowed, or the first
/// `max_tokens` of them. A stream's text goes to `stream`.
json::Json drawn_choice(serve::ApiContext& context,
                        const std::string& members,
                        unsigned seed,
                        AtEnd at_end = AtEnd::kEnds,
                        int max_tokens = 20'000,
                        std::string* stream = nullptr) {
  auto result = ask(context, members);
  auto& call = std::get<std::unique_ptr<serve::ApiCall>>(result);
  auto requests = call->take_requests();
  engine::Request& request = requests.at(0);
  REQUIRE(request.constraint != nullptr);
  std::mt19937 random(seed);
  std::string out;
  for (int n = 1; n <= max_tokens && !call->has_ended(); ++n) {
    const int id = draw(request.constraint->allowed(), request.stop_ids, at_end, random);
    request.constraint->accept(id);
    const bool is_stop = std::ranges::find(request.stop_ids, id) != request.stop_ids.end();
    call->on_event({.answer = 0,
                    .token = id,
                    .finish = is_stop           ? engine::FinishReason::kStop
                              : n == max_tokens ? engine::FinishReason::kLength
                                                : engine::FinishReason::kNone,
                    .logprobs = {}},
                   out);
  }
  REQUIRE(call->has_ended());
  if (stream != nullptr) {
    *stream = out;
    return {};
  }
  return json::parse(call->reply().body, "reply")["choices"][0];
}

}  // namespace

TEST_CASE("a function that is named is called") {
  for (const char* tmpl : {"internlm2", "chatml", "internvl2-internlm2", "phi3"}) {
    CAPTURE(tmpl);
    auto context = make_context(tmpl, serve::ApiCompat::k018, 4096);
    context->model.stop_ids.push_back(*test_tokenizer().id_of("<|im_end|>"));
    for (unsigned seed = 0; seed < 20; ++seed) {
      CAPTURE(seed);
      const json::Json choice = drawn_choice(
          *context, kTools + R"(,"tool_choice":{"type":"function","function":{"name":"add"}})",
          seed);
      CHECK(choice["finish_reason"] == "tool_calls");
      CHECK(choice["message"]["content"] == nullptr);
      REQUIRE(choice["message"]["tool_calls"].size() == 1);
      const json::Json& function = choice["message"]["tool_calls"][0]["function"];
      CHECK(function["name"] == "add");
      const json::Json arguments =
          json::parse(function["arguments"].get_ref<const std::string&>(), "arguments");
      CHECK(arguments.size() == 2);
      CHECK(arguments["a"].is_number_integer());
      CHECK(arguments["b"].is_number_integer());
    }
  }
}

TEST_CASE("a call that is required may be any") {
  auto context = make_context("chatml", serve::ApiCompat::k018, 4096);
  bool has_seen[2] = {};
  for (unsigned seed = 0; seed < 40; ++seed) {
    const json::Json choice = drawn_choice(
        *context, kTools + R"(,"tool_choice":"required","parallel_tool_calls":false)", seed);
    REQUIRE(choice["message"]["tool_calls"].size() == 1);
    has_seen[choice["message"]["tool_calls"][0]["function"]["name"] == "now" ? 1 : 0] = true;
  }
  CHECK(has_seen[0]);
  CHECK(has_seen[1]);
}

TEST_CASE("required calls that may be several are at most four, and end behind each") {
  auto context = make_context("chatml", serve::ApiCompat::k018, 16384);
  const std::string required = kTools + R"(,"tool_choice":"required")";
  for (unsigned seed = 0; seed < 10; ++seed) {
    CAPTURE(seed);
    const json::Json one = drawn_choice(*context, required, seed);
    CHECK(one["message"]["tool_calls"].size() == 1);
    const json::Json most = drawn_choice(*context, required, seed, AtEnd::kGoesOn);
    CHECK(most["finish_reason"] == "tool_calls");
    CHECK(most["message"]["content"] == nullptr);
    CHECK(most["message"]["tool_calls"].size() == 4);
  }
}

namespace {

/// A stream's message and finish reason, put together.
json::Json together(const std::string& stream) {
  json::Json choice = {{"content", ""}, {"tool_calls", json::Json::array()}};
  for (std::size_t at = 0; (at = stream.find("data: {", at)) != std::string::npos; ++at) {
    const std::string line = stream.substr(at + 6, stream.find('\n', at) - at - 6);
    const json::Json chunk = json::parse(line, "chunk")["choices"][0];
    const json::Json& delta = chunk["delta"];
    if (delta.contains("content"))
      choice["content"] =
          choice["content"].get<std::string>() + delta["content"].get<std::string>();
    for (const json::Json& part : delta.value("tool_calls", json::Json::array())) {
      if (part["function"].contains("name"))
        choice["tool_calls"].push_back(part["function"]);
      else {
        json::Json& arguments = choice["tool_calls"].back()["arguments"];
        arguments = arguments.get<std::string>() + part["function"]["arguments"].get<std::string>();
      }
    }
    if (!chunk["finish_reason"].is_null()) choice["finish"] = chunk["finish_reason"];
  }
  return choice;
}

}  // namespace

TEST_CASE("a forced call that is cut off is the same whole and streamed, and never content") {
  const std::string named = kTools + R"(,"tool_choice":{"function":{"name":"add"}})";
  for (const char* tmpl : {"internlm2", "chatml"}) {
    CAPTURE(tmpl);
    auto context = make_context(tmpl, serve::ApiCompat::k018, 4096);
    bool has_seen_name = false;
    for (int n = 1; n < 60; ++n) {
      CAPTURE(n);
      const json::Json whole = drawn_choice(*context, named, 1, AtEnd::kEnds, n);
      std::string out;
      (void)drawn_choice(*context, named + R"(,"stream":true)", 1, AtEnd::kEnds, n, &out);
      const json::Json streamed = together(out);
      const json::Json& message = whole["message"];
      CHECK(message["content"].is_null() == !message["tool_calls"].is_null());
      if (message["content"].is_string()) CHECK(message["content"] == "");
      CHECK(streamed["content"] == "");
      CHECK(streamed["finish"] == whole["finish_reason"]);
      json::Json calls = json::Json::array();
      if (!message["tool_calls"].is_null())
        for (const json::Json& call : message["tool_calls"])
          calls.push_back(call["function"]);
      CHECK(streamed["tool_calls"] == calls);
      has_seen_name |= !calls.empty();
      if (whole["finish_reason"] != "length") break;
      if (!calls.empty()) CHECK(calls[0]["name"] == "add");
    }
    CHECK(has_seen_name);
  }
}

TEST_CASE("response formats") {
  auto context = make_context("chatml", serve::ApiCompat::k018, 4096);
  const auto content = [&](const std::string& format, unsigned seed) {
    const json::Json choice = drawn_choice(*context, R"(,"response_format":)" + format, seed);
    CHECK(choice["finish_reason"] == "stop");
    return choice["message"]["content"].get<std::string>();
  };
  for (unsigned seed = 0; seed < 10; ++seed) {
    CAPTURE(seed);
    CHECK(json::parse(content(R"({"type":"json_object"})", seed), "content").is_object());
    const auto shaped = json::parse(
        content(
            R"({"type":"json_schema","json_schema":{"name":"n","strict":true,"schema":{"type":"object",)"
            R"("properties":{"x":{"enum":["p","q"]}},"required":["x"],"additionalProperties":false}}})",
            seed),
        "content");
    CHECK(shaped.size() == 1);
    CHECK((shaped["x"] == "p" || shaped["x"] == "q"));
    const std::string matched =
        content(R"({"type":"regex_schema","regex_schema":"call me [a-c]{2,3}"})", seed);
    CHECK(matched.starts_with("call me "));
    CHECK((matched.size() == 10 || matched.size() == 11));
  }
}

TEST_CASE("a form that cannot be enforced is refused in words that repeat nothing of it") {
  auto context = make_context();
  for (
      const char* format :
      {R"({"type":"regex_schema","regex_schema":"secret["})",
       R"({"type":"regex_schema","regex_schema":"a(?=secret)b"})",
       R"({"type":"json_schema","json_schema":{"name":"n","schema":{"type":"secret"}}})",
       R"({"type":"json_schema","json_schema":{"name":"n","schema":{"$ref":"http://secret/"}}})"}) {
    CAPTURE(format);
    const auto reply = refusal(
        *context, [&] { return ask(*context, std::string(R"(,"response_format":)") + format); });
    CHECK(reply.status == 400);
    CHECK(reply.body.find("secret") == std::string::npos);
  }
}

TEST_CASE("free answers have no constraint") {
  auto context = make_context();
  for (const char* members :
       {"", R"(,"response_format":{"type":"text"})", R"(,"tool_choice":"auto")"}) {
    auto result = ask(*context, members + kTools);
    CHECK(std::get<std::unique_ptr<serve::ApiCall>>(result)->take_requests().at(0).constraint ==
          nullptr);
  }
}
