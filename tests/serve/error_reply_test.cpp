/// \file  Error replies: status, body and headers of every row, for both kinds of clients.
// SPDX-License-Identifier: Apache-2.0
#include <lmd/serve/error_reply.hpp>

#include <string>

#include <doctest/doctest.h>

using namespace lmd::serve;

namespace {

struct Row {
  ApiError error;
  int old_status;
  const char* old_body;
  int status;
  const char* body;
};

const Row kRows[] = {
    {unknown_model("gpt\n\"4\""), 200,
     R"({"object":"error","message":"The model `gpt\n\"4\"` does not exist.","code":404})", 404,
     R"({"message":"The model `gpt\n\"4\"` does not exist.","type":"not_found_error","code":404,"param":null,"object":"error"})"},
    {{.what = ErrorCase::kMalformed,
      .message = "Field required",
      .location = {"body", "messages", "0", "role"},
      .problem = "missing"},
     422,
     R"({"detail":[{"type":"missing","loc":["body","messages",0,"role"],"msg":"Field required"}]})",
     400,
     R"({"message":"body.messages.0.role: Field required","type":"invalid_request_error","code":400,"param":null,"object":"error"})"},
    {{.what = ErrorCase::kUnauthorized},
     401,
     R"({"detail":{"error":{"message":"Please request with valid api key!","type":"invalid_request_error","param":null,"code":"invalid_api_key"}}})",
     401,
     R"({"message":"Unauthorized.","type":"authentication_error","code":401,"param":null,"object":"error"})"},
    {{.what = ErrorCase::kNotFound},
     404,
     R"({"detail":"Not Found"})",
     404,
     R"({"message":"Not Found","type":"not_found_error","code":404,"param":null,"object":"error"})"},
    {{.what = ErrorCase::kWrongMethod},
     405,
     R"({"detail":"Method Not Allowed"})",
     405,
     R"({"message":"Method Not Allowed","type":"invalid_request_error","code":405,"param":null,"object":"error"})"},
    {{.what = ErrorCase::kForbidden, .message = "Long."},
     403,
     R"({"detail":"Forbidden"})",
     403,
     R"({"message":"Long.","type":"invalid_request_error","code":403,"param":null,"object":"error"})"},
    {{.what = ErrorCase::kBodyTooLarge},
     413,
     R"({"object":"error","message":"The body is too large.","code":413})",
     413,
     R"({"message":"The body is too large.","type":"invalid_request_error","code":413,"param":null,"object":"error"})"},
    {{.what = ErrorCase::kQueueFull},
     429,
     R"({"object":"error","message":"The server is busy, try again later.","code":429})",
     429,
     R"({"message":"The server is busy, try again later.","type":"rate_limit_error","code":429,"param":null,"object":"error"})"},
    {{},
     500,
     R"({"object":"error","message":"Internal error.","code":500})",
     500,
     R"({"message":"Internal error.","type":"server_error","code":500,"param":null,"object":"error"})"},
};

}  // namespace

TEST_CASE("an error has the status and the body that its clients know") {
  for (const Row& row : kRows) {
    const HttpReply old = error_reply(row.error, ApiCompat::k05);
    CHECK(old.status == row.old_status);
    CHECK(old.body == row.old_body);
    const HttpReply reply = error_reply(row.error, ApiCompat::k018);
    CHECK(reply.status == row.status);
    CHECK(reply.body == row.body);
    CHECK(reply.content_type == "application/json");
  }
}

TEST_CASE("a full or absent server says when to come back") {
  for (const ErrorCase what : {ErrorCase::kQueueFull, ErrorCase::kUnavailable}) {
    for (const ApiCompat compat : {ApiCompat::k05, ApiCompat::k018}) {
      const HttpReply reply = error_reply({.what = what}, compat);
      REQUIRE(reply.headers.size() == 1);
      CHECK(reply.headers[0].first == "Retry-After");
    }
  }
  CHECK(error_reply({.what = ErrorCase::kNotFound}, ApiCompat::k05).headers.empty());
}

TEST_CASE("values out of range are named as LMDeploy names them") {
  CHECK(out_of_range(ApiCompat::k05, "top_p", "0.0", "must be in (0, 1].").message ==
        "The top_p `0.0` must be in (0, 1].");
  CHECK(out_of_range(ApiCompat::k018, "top_p", "0.0", "must be in (0, 1].").message ==
        "The top_p 0.0 must be in (0, 1].");
}

TEST_CASE("a model's name is cut between characters") {
  const std::string name = std::string(63, 'a') + "\xE4\xB9\xA6";
  CHECK(shown_model(name) == std::string(63, 'a'));
  CHECK(shown_model("short") == "short");
  CHECK(shown_model(std::string(100, 'b')) == std::string(64, 'b'));
}

TEST_CASE("an error in a stream is one event and the end") {
  CHECK(stream_error({}) ==
        "data: {\"error\":{\"message\":\"Internal error.\",\"type\":\"server_error\",\"code\":500}}"
        "\n\ndata: [DONE]\n\n");
}

TEST_CASE("strings are written on one line, as UTF-8") {
  CHECK(json_string("a\"\\\n\r\t\x01\x7f") == R"("a\"\\\n\u000d\u0009\u0001\u007f")");
  CHECK(json_string("\xE2\x80\xA8\xE2\x80\xA9\xE2\x80\xA6") == "\"\\u2028\\u2029\xE2\x80\xA6\"");
  CHECK(json_string("\xFF") == "\"\xEF\xBF\xBD\"");
}
