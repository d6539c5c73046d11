/// \file  Forced tool calls in the wire form of templates with and without tokens for them.
// SPDX-License-Identifier: Apache-2.0
#include <lmd/text/chat_templates.hpp>
#include <lmd/text/tool_call_grammar.hpp>

#include "grammar_support.hpp"
#include "text_support.hpp"

using namespace grammar_support;
using namespace text_support;
using lmd::text::builtin_template;
using lmd::text::compile_tool_calls;
using lmd::text::GrammarMatcher;
using lmd::text::Tool;

namespace {

std::vector<Tool> tools() {
  const std::string numbers =
      R"("properties":{"a":{"type":"integer"},"b":{"type":"integer"}},"required":["a","b"])";
  return {{"add", "Adds.", "{\"type\":\"object\"," + numbers + "}"},
          {"mul", {}, "{" + numbers + "}"},
          {"now", {}, {}}};
}

}  // namespace

TEST_CASE("InternLM2: the tokens of a call stand as tokens") {
  const PieceTokenizer tokenizer(
      {"<|action_start|>", "<|plugin|>", "<|action_end|>", "\n", "{", "<|im_end|>"});
  const auto tmpl = builtin_template("internlm2");
  const Grammar grammar = compile_tool_calls(tools(), {tmpl, tokenizer});
  GrammarMatcher matcher(grammar);
  CHECK_FALSE(matcher.advance("<"));
  CHECK_FALSE(matcher.advance("{"));
  CHECK_FALSE(matcher.advance_token(1));
  REQUIRE(matcher.advance_token(0));
  REQUIRE(matcher.advance_token(1));
  REQUIRE(matcher.advance("\n{\"name\": \"mul\", \"parameters\": {\"a\": 3, \"b\": 5}}"));
  CHECK_FALSE(matcher.can_end());
  REQUIRE(matcher.advance_token(2));
  CHECK(matcher.can_end());
  CHECK_FALSE(matcher.advance_token(0));

  const Grammar three = compile_tool_calls(tools(), {tmpl, tokenizer, 3});
  GrammarMatcher several(three);
  for (int i = 0; i < 3; ++i) {
    REQUIRE(several.advance_token(0));
    REQUIRE(several.advance_token(1));
    REQUIRE(several.advance("\n{\"name\":\"now\",\"parameters\":{}}"));
    REQUIRE(several.advance_token(2));
    CHECK(several.can_end());
  }
  CHECK_FALSE(several.advance_token(0));
}

TEST_CASE("templates without such tokens: plain JSON, further calls between marks") {
  const PieceTokenizer tokenizer({"x"});
  const auto tmpl = builtin_template("smollm2");
  const Grammar one = compile_tool_calls(tools(), {tmpl, tokenizer});
  CHECK(takes(one, R"({"name": "add", "parameters": {"a": 1, "b": -2}})"));
  CHECK(takes(one, R"({"name":"now","parameters":{"any":["thing"]}})"));
  CHECK_FALSE(takes(one, R"({"name": "add", "parameters": {"a": 1}})"));
  CHECK_FALSE(takes(one, R"({"name": "sub", "parameters": {}})"));
  CHECK_FALSE(takes(one, R"({"name": "mul", "parameters": 3})"));
  CHECK_FALSE(
      takes(one, "{\"name\":\"now\",\"parameters\":{}}\n{\"name\":\"now\",\"parameters\":{}}"));
  const Grammar two = compile_tool_calls(tools(), {tmpl, tokenizer, 2});
  const std::string now = R"({"name":"now","parameters":{}})";
  const std::string end = "\n</tool_call>";
  const std::string begin = "\n<tool_call>\n";
  CHECK(takes(two, now));
  CHECK(takes(two, now + end));
  CHECK(takes(two, now + end + begin + R"({"name":"mul","parameters":{"a":1,"b":2}})" + end));
  CHECK_FALSE(takes(two, now + begin + now + end));
  CHECK_FALSE(takes(two, now + end + begin + now));
  CHECK_FALSE(takes(two, now + end + begin + now + end + begin + now + end));
  const Grammar marked = compile_tool_calls(tools(), {tmpl, tokenizer, 2, "[", "]"});
  CHECK(takes(marked, now + "]\n[" + now + "]"));
  CHECK_FALSE(takes(marked, now + end));
}

TEST_CASE("names that are no tokens of the vocabulary stand as text") {
  const PieceTokenizer tokenizer({"x"});
  const auto tmpl = builtin_template("internlm2");
  CHECK(takes(compile_tool_calls(tools(), {tmpl, tokenizer}),
              "<|action_start|><|plugin|>\n{\"name\":\"now\",\"parameters\":{}}<|action_end|>"));
}

TEST_CASE("a named function is that tool alone; bad tools are refused") {
  const PieceTokenizer tokenizer({"x"});
  const auto tmpl = builtin_template("smollm2");
  const std::vector<Tool> all = tools();
  const Grammar only =
      compile_tool_calls(std::span<const Tool>(all).subspan(1, 1), {tmpl, tokenizer});
  CHECK(takes(only, R"({"name":"mul","parameters":{"a":1,"b":2}})"));
  CHECK_FALSE(takes(only, R"({"name":"add","parameters":{"a":1,"b":2}})"));
  const auto message = [&](std::vector<Tool> bad, int max_calls = 1) {
    const Failure failure = failure_of([&] {
      (void)compile_tool_calls(bad, {tmpl, tokenizer, max_calls});
    });
    CHECK(failure.code == lmd::ErrorCode::kConfig);
    return failure.message;
  };
  CHECK(contains(message({}), "no tools"));
  CHECK(contains(message(tools(), 0), "0 tool calls"));
  CHECK(contains(message({{"f", {}, "{"}}), "not valid JSON"));
  CHECK(contains(message({{"f", {}, R"({"type":"string"})"}}), "no text"));
  CHECK(contains(message({{"\xFF", {}, {}}}), "UTF-8"));
  CHECK(contains(message({{"f", {}, R"({"type":"object","properties":{"a":{"not":{}}}})"}}),
                 "not in a JSON schema"));
}
