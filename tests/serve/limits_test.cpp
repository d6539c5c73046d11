/// \file  Every number of every endpoint at its bounds, beyond them, and as something else.
// SPDX-License-Identifier: Apache-2.0
#include <lmd/serve/api.hpp>
#include <lmd/serve/limits.hpp>

#include <string>
#include <vector>

#include "api_case.hpp"

using namespace lmd;
using namespace lmd::test;

namespace {

struct Target {
  serve::Endpoints endpoint;
  serve::ApiResult (*function)(serve::ApiContext&, const serve::ApiRequest&);
  const char* members;  ///< of a body that is accepted
};

const std::vector<Target> kTargets = {
    {serve::kChat, serve::chat_completions,
     R"("model":"tiny","messages":[{"role":"user","content":"Hi"}])"},
    {serve::kCompletions, serve::completions, R"("model":"tiny","prompt":"Hi")"},
    {serve::kInteractive, serve::chat_interactive, R"("prompt":"Hi")"},
    {serve::kGenerate, serve::generate_text, R"("prompt":"Hi")"},
};

/// 200 and nothing, or the reply that the value gets.
serve::HttpReply reply_to(const Target& target,
                          const std::string& name,
                          const std::string& value,
                          serve::ApiCompat compat) {
  auto context = make_context("chatml", compat);
  const std::string more = name == "top_logprobs" ? R"(,"logprobs":true)" : "";
  const std::string body =
      std::string("{") + target.members + more + ",\"" + name + "\":" + value + "}";
  try {
    (void)target.function(*context, post("/", body));
  } catch (const serve::ApiFailure& e) {
    return serve::error_reply(e.error(), compat);
  }
  return {};
}

std::string integer_text(double value) {
  std::string text;
  serve::append_json_integer(text, static_cast<std::int64_t>(value));
  return text;
}

/// A number as JSON: integers without a point.
std::string value_text(const serve::NumberLimit& limit, double value) {
  if (limit.type == serve::FieldType::kInteger) return integer_text(value);
  std::string text;
  serve::append_json_real(text, value);
  return text;
}

/// Whether the reply says that the value is out of the field's range.
bool is_range_error(const serve::HttpReply& reply, std::string_view name) {
  return reply.body.find("\"The " + std::string(name) + ' ') != std::string::npos &&
         (reply.body.find(" must be ") != std::string::npos ||
          reply.body.find(" cannot be ") != std::string::npos);
}

template <class F>
void for_each_field(const F& f) {
  for (const serve::NumberLimit& limit : serve::kNumberLimits) {
    CAPTURE(limit.name);
    int n = 0;
    for (const Target& target : kTargets) {
      if ((limit.where & target.endpoint) == 0) continue;
      CAPTURE(target.endpoint);
      f(limit, target);
      ++n;
    }
    CHECK(n > 0);
  }
}

}  // namespace

TEST_CASE("numbers at their bounds are taken, those beyond refused by name and value") {
  for_each_field([](const serve::NumberLimit& limit, const Target& target) {
    const std::string name(limit.name);
    const bool is_integer = limit.type == serve::FieldType::kInteger;
    const double step = is_integer ? 1 : 0.015625;
    for (const auto& [value, is_inside] : {std::pair{limit.min, !limit.is_min_open},
                                           {limit.max, true},
                                           {limit.min - step, false},
                                           {limit.max + step, false}}) {
      CAPTURE(value);
      const std::string text = value_text(limit, value);
      for (const std::string& form : {text, '"' + text + '"'}) {
        const auto today = reply_to(target, name, form, serve::ApiCompat::k018);
        CHECK(is_range_error(today, name) == !is_inside);
        if (is_inside) continue;
        CHECK(today.status == 400);
        CHECK(today.body.find("The " + name + ' ' + text + ' ') != std::string::npos);
        const auto old = reply_to(target, name, form, serve::ApiCompat::k05);
        CHECK(old.status == 200);
        CHECK(old.body.find("The " + name + " `" + text + "` ") != std::string::npos);
        CHECK(old.body.find(R"("code":400)") != std::string::npos);
      }
    }
    for (const char* huge : {"9223372036854775808", "-9223372036854775809", "1e308", "-1e308",
                             "\"1e308\"", "18446744073709551616"}) {
      CAPTURE(huge);
      const auto reply = reply_to(target, name, huge, serve::ApiCompat::k018);
      CHECK(reply.status == 400);
    }
  });
}

TEST_CASE("null counts as absent; what is no number is refused by place, and not repeated") {
  for_each_field([](const serve::NumberLimit& limit, const Target& target) {
    const std::string name(limit.name);
    CHECK(reply_to(target, name, "null", serve::ApiCompat::k018).status == 200);
    for (const char* value : {"\"secret\"", "\"\"", "[]", "{}", "[1]", "\"NaN\"", "\"inf\""}) {
      CAPTURE(value);
      const auto today = reply_to(target, name, value, serve::ApiCompat::k018);
      CHECK(today.status == 400);
      CHECK(today.body.find("secret") == std::string::npos);
      const bool is_placed = today.body.find("body." + name + ": expected ") != std::string::npos;
      CHECK((is_placed || is_range_error(today, name)));
      const auto old = reply_to(target, name, value, serve::ApiCompat::k05);
      CHECK(old.status == (is_placed ? 422 : 200));
      if (is_placed) CHECK(old.body.find(R"("loc":["body",")" + name + "\"]") != std::string::npos);
    }
    CHECK(reply_to(target, name, "NaN", serve::ApiCompat::k018).status == 400);
    CHECK(reply_to(target, name, "NaN", serve::ApiCompat::k05).status == 422);
    if (limit.type == serve::FieldType::kInteger)
      CHECK(reply_to(target, name, "1.5", serve::ApiCompat::k018).status == 400);
  });
}

TEST_CASE("LMDeploy's sentences") {
  using serve::ApiCompat;
  const Target& chat = kTargets[0];
  const auto old = [&](const char* name, const char* value) {
    return json::parse(reply_to(chat, name, value, ApiCompat::k05).body, "reply")["message"];
  };
  CHECK(old("top_p", "0") == "The top_p `0.0` must be in (0, 1].");
  CHECK(old("n", "0") == "The n `0` must be a positive int.");
  CHECK(old("top_k", "-1") == "The top_k `-1` cannot be a negative integer.");
  CHECK(old("temperature", "2.01") == "The temperature `2.01` must be in [0, 2]");
  const auto today = json::parse(reply_to(chat, "top_p", "0", ApiCompat::k018).body, "reply");
  CHECK(today["message"] == "The top_p 0.0 must be in (0, 1].");
  CHECK(today["type"] == "invalid_request_error");
}

TEST_CASE("truth values as clients send them") {
  for (const char* yes :
       {"true", "\"true\"", "\"True\"", "1", "\"1\"", "\"yes\"", "\"on\"", "1.0"}) {
    CAPTURE(yes);
    auto context = make_context();
    auto result = serve::completions(
        *context, post("/", std::string(R"({"model":"tiny","prompt":"a","stream":)") + yes + "}"));
    CHECK(std::get<std::unique_ptr<serve::ApiCall>>(result)->is_stream());
  }
  for (const char* wrong : {"\"maybe\"", "2", "[]", "{}", "\"\""}) {
    CAPTURE(wrong);
    CHECK(reply_to(kTargets[0], "stream", wrong, serve::ApiCompat::k018).status == 400);
  }
}

TEST_CASE("the smallest values that are taken reach the engine as usable numbers") {
  auto context = make_context();
  auto result = serve::completions(
      *context, post("/", R"({"model":"tiny","prompt":"a","top_p":1e-300,"temperature":1e-300,
                    "repetition_penalty":1e-7,"top_k":0,"min_p":0,"seed":-5})"));
  const auto requests = std::get<std::unique_ptr<serve::ApiCall>>(result)->take_requests();
  CHECK_NOTHROW(kernels::validate(requests.at(0).sampling));
}

TEST_CASE("request, then generation_config.json, then constants") {
  using serve::ApiCompat;
  const auto sampled = [](serve::ApiContext& context, const char* members, const char* path) {
    const auto request = post(path, std::string_view(members));
    auto result = std::string_view(path) == "/chat" ? serve::chat_completions(context, request)
                                                    : serve::chat_interactive(context, request);
    return std::get<std::unique_ptr<serve::ApiCall>>(result)->take_requests().at(0).sampling;
  };
  const char* chat = R"({"model":"tiny","messages":[{"role":"user","content":"a"}],"top_p":0.25})";
  auto context = make_context();
  context->model.recommended.temperature = 0.5;
  context->model.recommended.top_p = 0.75;
  const auto p = sampled(*context, chat, "/chat");
  CHECK(p.temperature == 0.5f);
  CHECK(p.top_p == 0.25f);
  CHECK(p.top_k == 50);
  auto old = make_context("chatml", ApiCompat::k05);
  old->model.recommended.temperature = 0.5;
  CHECK(sampled(*old, chat, "/chat").temperature == 0.7f);
  CHECK(sampled(*old, chat, "/chat").top_k == 40);
  const auto i = sampled(*context, R"({"prompt":"a"})", "/interactive");
  CHECK(i.temperature == 0.8f);
  CHECK(i.top_p == 0.8f);
  CHECK(i.top_k == 40);
}
