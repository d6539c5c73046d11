/// \file  Tests of what the clients read from servers and ask them.
// SPDX-License-Identifier: Apache-2.0
#include "../../apps/serve/answer_chunk.hpp"

#include <string>
#include <vector>

#include "../../apps/exit_code.hpp"
#include "../../apps/serve/chat_request.hpp"
#include <doctest/doctest.h>

using namespace lmd;
using namespace lmd::apps;

TEST_CASE("a line of an error has no controls and ends between characters") {
  CHECK(one_line("a\nb\r\n\tc\x1b[0m\x7f") == "a b c [0m");
  CHECK(one_line("x\xC2\x9By") == "x y");
  CHECK(one_line("\n \n").empty());
  const std::string wide = "\xE4\xBD\xA0\xE5\xA5\xBD";
  for (std::size_t n = 0; n < wide.size(); ++n)
    CHECK(one_line(wide, n) == wide.substr(0, n / 3 * 3) + "...");
  CHECK(one_line(wide, 6) == wide);
}

TEST_CASE("what an error says, in every server's shape") {
  CHECK(error_message(R"({"error":{"message":"m","type":"t"}})") == "m");
  CHECK(error_message(R"({"error":"m"})") == "m");
  CHECK(error_message(R"({"error":{"code":7}})") == R"({"code":7})");
  CHECK(error_message(R"({"object":"error","message":"m","code":400})") == "m");
  CHECK(error_message(R"({"message":"m"})") == "m");
  CHECK(error_message(R"({"detail":"m"})") == "m");
  CHECK(error_message(R"({"detail":{"error":{"message":"m"}}})") == "m");
  CHECK(error_message(R"({"detail":[{"loc":["body",0,"x"],"msg":"m"}]})") == "body.0.x: m");
  CHECK(error_message(R"({"detail":[{"msg":"m"}]})") == "m");
  CHECK(error_message(R"({"detail":[7]})").empty());
  CHECK(error_message("<html>").substr(0, 6) == "<html>");
  CHECK(error_message("").empty());
  CHECK(error_message(std::string(100'000, '[')).empty());
}

TEST_CASE("chunks of chats and of completions, whole answers, usage") {
  const AnswerChunk chat =
      parse_answer_chunk(R"({"choices":[{"delta":{"role":"assistant","content":"hi"}}]})", "s");
  CHECK(chat.text == "hi");
  CHECK(chat.has_tokens);
  CHECK(chat.finish.empty());
  CHECK_FALSE(chat.usage.has_value());
  const AnswerChunk last = parse_answer_chunk(
      R"({"choices":[{"delta":{"content":""},"finish_reason":"stop"}],"usage":null})", "s");
  CHECK_FALSE(last.has_tokens);
  CHECK(last.finish == "stop");
  CHECK(parse_answer_chunk(R"({"choices":[{"text":"hi","finish_reason":null}]})", "s").text ==
        "hi");
  CHECK(parse_answer_chunk(R"({"choices":[{"message":{"content":"hi"}}]})", "s").text == "hi");
  CHECK(parse_answer_chunk(R"({"choices":[{"delta":{"tool_calls":[{}]}}]})", "s").has_tokens);
  CHECK(parse_answer_chunk(R"({"choices":[{"delta":{"reasoning":"hm"}}]})", "s").has_tokens);
  const AnswerChunk usage = parse_answer_chunk(
      R"({"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":5,
          "prompt_tokens_details":{"cached_tokens":2}}})",
      "s");
  REQUIRE(usage.usage.has_value());
  CHECK(usage.usage->prompt == 3);
  CHECK(usage.usage->completion == 5);
  CHECK(usage.usage->cached == 2);
}

TEST_CASE("what is no chunk, and numbers that are none") {
  for (const char* text :
       {"", "{", "null", "[]", "7", "{}", R"({"choices":7})", R"({"usage":[]})"}) {
    CAPTURE(text);
    CHECK_THROWS_AS((void)parse_answer_chunk(text, "s"), serve::ClientError);
    CHECK_THROWS_AS((void)parse_interactive_line(text, "s"), serve::ClientError);
  }
  const AnswerChunk odd = parse_answer_chunk(
      R"({"usage":{"prompt_tokens":-1,"completion_tokens":1e99,"prompt_tokens_details":7}})", "s");
  CHECK(odd.usage->prompt == 0);
  CHECK(odd.usage->completion == 0);
  CHECK(odd.usage->cached == 0);
  const AnswerChunk huge =
      parse_answer_chunk(R"({"usage":{"prompt_tokens":18446744073709551615}})", "s");
  CHECK(huge.usage->prompt == 0);
}

TEST_CASE("a request says what was set and what changes something") {
  AnswerSettings settings;
  const std::vector<Said> question = {{"user", "q"}};
  const auto keys = [&] {
    json::Json body = json::Json::object();
    add_settings(body, settings);
    return body.dump();
  };
  CHECK(keys() == R"({"temperature":0.8,"top_k":40,"top_p":0.8})");
  settings.temperature = 0.0;
  CHECK(keys() == R"({"temperature":0.0})");
  set_by_name(settings, "top_p", "1");
  set_by_name(settings, "min_p", "0");
  set_by_name(settings, "seed", "7");
  CHECK(keys() == R"({"min_p":0.0,"seed":7,"temperature":0.0,"top_p":1.0})");
  set_by_name(settings, "seed", "-1");
  set_by_name(settings, "stop", "x");
  CHECK(keys() == R"({"min_p":0.0,"stop":["x"],"temperature":0.0,"top_p":1.0})");
  const json::Json body = chat_body("m", question, settings, 9);
  CHECK(body["max_tokens"] == 9);
  CHECK_FALSE(body.contains("continue_final_message"));
  CHECK(chat_body("m", {{"user", "q"}, {"assistant", "a"}}, settings, 9)["continue_final_message"]);
}

TEST_CASE("every failure of a client has its exit code") {
  using serve::ClientFailure;
  const auto code = [](ClientFailure kind) {
    return exit_code_of(static_cast<const Error&>(serve::ClientError(kind, "x")));
  };
  for (const ClientFailure kind : {ClientFailure::kResolve, ClientFailure::kConnect,
                                   ClientFailure::kTls, ClientFailure::kTimeout})
    CHECK(code(kind) == ExitCode::kNoServer);
  for (const ClientFailure kind :
       {ClientFailure::kTooLarge, ClientFailure::kProtocol, ClientFailure::kStatus})
    CHECK(code(kind) == ExitCode::kServerError);
  CHECK(code(ClientFailure::kKey) == ExitCode::kNoAccess);
  CHECK(code(ClientFailure::kCut) == ExitCode::kBrokenOff);
  CHECK(code(ClientFailure::kCancelled) == ExitCode::kInterrupted);
}
