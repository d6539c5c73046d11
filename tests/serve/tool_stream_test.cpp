/// \file  Calls found in a model's text, however it is cut.
// SPDX-License-Identifier: Apache-2.0
#include <lmd/serve/tool_stream.hpp>

#include <random>
#include <string>
#include <vector>

#include <doctest/doctest.h>

using namespace lmd::serve;

namespace {

struct Found {
  std::string content;
  std::vector<std::pair<std::string, std::string>> calls;
  bool operator==(const Found&) const = default;
};

const ToolMarkers kInternlm{"<|action_start|><|plugin|>", "<|action_end|>"};

void add(const ToolDelta& delta, Found& found) {
  found.content += delta.content;
  for (const CallPart& part : delta.parts) {
    if (!part.name.empty()) {
      CHECK(part.index >= static_cast<int>(found.calls.size()));
      found.calls.emplace_back(part.name, "");
    }
    REQUIRE_FALSE(found.calls.empty());
    found.calls.back().second += part.arguments;
  }
}

Found read(const std::string& text, std::size_t piece, ToolStream::Options options = {}) {
  ToolStream stream(kInternlm, options);
  Found found;
  for (std::size_t at = 0; at < text.size(); at += piece)
    add(stream.feed(text.substr(at, piece)), found);
  add(stream.finish(), found);
  CHECK(stream.has_calls() == !found.calls.empty());
  return found;
}

/// The same in pieces of any size, whole and eager.
void check(const std::string& text, const Found& expected, ToolStream::Options options = {}) {
  CAPTURE(text);
  for (std::size_t piece = 1; piece <= text.size() + 1; ++piece) {
    CAPTURE(piece);
    options.is_eager = false;
    CHECK(read(text, piece, options) == expected);
    options.is_eager = true;
    CHECK(read(text, piece, options) == expected);
  }
}

}  // namespace

TEST_CASE("text without a call is content") {
  check("", {"", {}});
  check("Hello <|action <|action_start|> {}", {"Hello <|action <|action_start|> {}", {}});
}

TEST_CASE("InternLM's calls, with either key, are written as Python writes JSON") {
  check(R"(I add.<|action_start|><|plugin|>
{"name": "add", "parameters": {"a":3,"b":5}}<|action_end|>)",
        {"I add.", {{"add", R"({"a": 3, "b": 5})"}}});
  check(R"(<|action_start|><|plugin|>{"name":"add","arguments":{"a" : [1, 2,{"x":"y, :z"}]}})",
        {"", {{"add", R"({"a": [1, 2, {"x": "y, :z"}]})"}}});
  check(R"(<|action_start|><|plugin|>{"parameters":{},"id":[1,"}"],"name":"\u0061dd"}<|action_end|>
 done)",
        {"done", {{"add", "{}"}}});
}

TEST_CASE("arguments may be absent, null, or JSON in a string") {
  for (const char* members : {"", R"(,"parameters":null)", R"(,"arguments":"{}")"}) {
    check(std::string(R"(<|action_start|><|plugin|>{"name":"now")") + members + "}",
          {"", {{"now", "{}"}}});
  }
  check(R"(<|action_start|><|plugin|>{"name":"f","arguments":"{\"a\": 1}"}<|action_end|>)",
        {"", {{"f", R"({"a": 1})"}}});
}

TEST_CASE("several calls, in a list or one behind the other") {
  const std::string two = R"(<|action_start|><|plugin|>{"name":"f"}<|action_end|>)"
                          "\n"
                          R"(<|action_start|><|plugin|>{"name":"g"}<|action_end|> end)";
  check(two, {"end", {{"f", "{}"}, {"g", "{}"}}});
  check(R"(<|action_start|><|plugin|>[{"name":"f"}, {"name":"g"}]<|action_end|>)",
        {"", {{"f", "{}"}, {"g", "{}"}}});
  check(two, {"end", {{"f", "{}"}}}, {.keeps_first_only = true});
}

TEST_CASE("bare calls follow a prompt that begins them") {
  check("{\"name\":\"f\"}\n{\"name\":\"g\",\"parameters\":{\"a\":1}}",
        {"", {{"f", "{}"}, {"g", R"({"a": 1})"}}}, {.begins_inside = true});
  check("{\"name\":\"f\"}<|action_end|>", {"", {{"f", "{}"}}}, {.begins_inside = true});
  check("no call", {"no call", {}}, {.begins_inside = true});
}

TEST_CASE("a block that is no call stays content") {
  for (const char* text :
       {"<|action_start|><|plugin|>3 + 5<|action_end|>", "<|action_start|><|plugin|>{\"name\": 3}",
        "<|action_start|><|plugin|>{\"parameters\": {}}", "a<|action_start|><|plugin|>",
        "<|action_start|><|plugin|>{\"name\" \"f\"}", "<|action_start|><|plugin|>{\"nam"}) {
    check(text, {text, {}});
  }
}

TEST_CASE("a call that is cut off is what came of it, once its name is known") {
  const std::string begin = "a<|action_start|><|plugin|>";
  check(begin + R"({"name":"f","parameters":{"a":1)", {"a", {{"f", R"({"a": 1)"}}});
  check(begin + R"({"name":"f",)", {"a", {{"f", ""}}});
  check(begin + R"([{"name":"f"},{"name":"g","par)", {"a", {{"f", "{}"}, {"g", ""}}});
  const std::string nameless = begin + R"({"parameters":{"a":1},"na)";
  check(nameless, {nameless, {}});
  check(begin + R"({"name":"f"}<|action_e)", {"a", {{"f", "{}"}}});
  ToolStream stream(kInternlm, {});
  (void)stream.feed(begin + R"({"name":"f","parameters":{)");
  CHECK_FALSE(stream.is_cut_off());
  (void)stream.finish();
  CHECK(stream.is_cut_off());
  CHECK(stream.has_calls());
}

TEST_CASE("an answer that is held to calls has no content, wherever it is cut") {
  const std::string marked = R"(<|action_start|><|plugin|>
{"name": "f", "parameters": {"a": 1}}<|action_end|>)";
  const std::string bare = R"({"name": "f", "parameters": {"a": 1}}
<|action_end|>
<|action_start|><|plugin|>
{"name": "g", "parameters": {}}<|action_end|>)";
  for (const bool is_bare : {false, true}) {
    const std::string& text = is_bare ? bare : marked;
    for (std::size_t n = 0; n <= text.size(); ++n) {
      CAPTURE(text.substr(0, n));
      const ToolStream::Options options{.begins_inside = is_bare, .is_forced = true};
      const Found found = read(text.substr(0, n), n + 1, options);
      CHECK(found.content.empty());
      check(text.substr(0, n), found, options);
    }
  }
}

TEST_CASE("arguments that are no object make no call") {
  for (const char* value : {"[1]", "3", "true", "\"x\"", "{1}", "{\"a\":}"}) {
    CAPTURE(value);
    const std::string text =
        std::string(R"(<|action_start|><|plugin|>{"name":"f","parameters":)") + value + "}";
    for (std::size_t piece = 1; piece <= text.size(); ++piece)
      CHECK(read(text, piece).calls.empty());
  }
}

TEST_CASE("any text can be read") {
  const char* parts[] = {"{",
                         "}",
                         "[",
                         "]",
                         ",",
                         ":",
                         "\"",
                         "\\",
                         "name",
                         "arguments",
                         "<|action_start|><|plugin|>",
                         "<|action_end|>",
                         " ",
                         "1",
                         "null"};
  std::mt19937 random(5);
  for (int round = 0; round < 3000; ++round) {
    std::string text;
    for (int i = 0; i < 30; ++i)
      text += parts[random() % std::size(parts)];
    CAPTURE(text);
    const Found whole = read(text, text.size());
    CHECK(read(text, 1) == whole);
    CHECK(read(text, 3) == whole);
  }
}
