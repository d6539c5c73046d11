/// \file  JSON from strangers: bounds, duplicates, the order of keys.
// SPDX-License-Identifier: Apache-2.0
#include <lmd/json/bounded_json.hpp>

#include <string>

#include <doctest/doctest.h>

using namespace lmd;

namespace {

std::string complaint(const std::string& text, const json::Bounds& bounds = {}) {
  try {
    (void)json::parse_bounded(text, bounds);
  } catch (const Error& e) {
    CHECK(e.code() == ErrorCode::kFormat);
    return e.what();
  }
  return {};
}

std::string repeated(const std::string& text, int n) {
  std::string all;
  for (int i = 0; i < n; ++i)
    all += text;
  return all;
}

}  // namespace

TEST_CASE("values keep the order of their keys") {
  const std::string text = R"({"b":[1,-2,3.5,true,null,"x"],"a":{"d":{},"c":[]}})";
  CHECK(json::to_text(json::parse_bounded(text)) == text);
  CHECK(json::to_text(json::parse_bounded(" 7 ")) == "7");
}

TEST_CASE("depth is bounded, one below, at and one above") {
  CHECK(complaint(repeated("[", 63) + repeated("]", 63)).empty());
  CHECK(complaint(repeated("[", 64) + repeated("]", 64)).empty());
  CHECK(complaint(repeated("[", 65) + repeated("]", 65)) == "is nested more than 64 deep");
  CHECK(complaint(repeated("{\"a\":", 65) + "1" + repeated("}", 65)) ==
        "is nested more than 64 deep");
  CHECK(complaint(repeated("[", 1'000'000)) == "is nested more than 64 deep");
}

TEST_CASE("the number of values and the length of keys are bounded") {
  const json::Bounds bounds{.depth = 4, .values = 3, .key_bytes = 2};
  CHECK(complaint("[1,2]", bounds).empty());
  CHECK(complaint("[1,2,3]", bounds) == "has more than 3 values");
  CHECK(complaint("[[],[],[]]", bounds) == "has more than 3 values");
  CHECK(complaint(R"({"ab":1})", bounds).empty());
  CHECK(complaint(R"({"abc":1})", bounds) == "has a key of more than 2 bytes");
}

TEST_CASE("a key stands once in an object") {
  CHECK(complaint(R"({"a":1,"a":1})") == "has a key twice in one object");
  CHECK(complaint(R"([{"a":{"b":1,"c":2,"b":3}}])") == "has a key twice in one object");
  CHECK(complaint(R"([{"a":1},{"a":1}])").empty());
}

TEST_CASE("what is no JSON is refused in words that repeat nothing of it") {
  for (const char* text : {"", "{", "nul", "{\"a\" 1}", "[1,]", "NaN", "[Infinity]", "\"\xFF\"",
                           "'a'", "{} {}", "\"secret", "// x\n1"}) {
    CAPTURE(text);
    const std::string found = complaint(text);
    CHECK(found.starts_with("is not valid JSON at byte "));
    CHECK(found.find("secret") == std::string::npos);
  }
  CHECK(complaint("1e400") == "holds a number beyond the range of a double");
}
