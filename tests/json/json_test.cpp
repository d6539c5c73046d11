/// \file  Parsing is bounded, and errors say where, what was found and what was expected.
// SPDX-License-Identifier: Apache-2.0
#include <lmd/json/json.hpp>

#include <string>

#include <doctest/doctest.h>

namespace {

using lmd::json::Json;
using lmd::json::Object;

std::string nested(int depth) {
  return std::string(static_cast<std::size_t>(depth), '[') +
         std::string(static_cast<std::size_t>(depth), ']');
}

/// The message of the error that `f` throws, or an empty string.
template <class F>
std::string message_of(F&& f) {
  try {
    f();
  } catch (const lmd::Error& e) {
    CHECK(e.code() == lmd::ErrorCode::kFormat);
    return e.what();
  }
  return {};
}

}  // namespace

TEST_CASE("depth is counted outside of strings only") {
  CHECK(lmd::json::depth_of("1") == 0);
  CHECK(lmd::json::depth_of(R"({"a": [1, {"b": 2}]})") == 3);
  CHECK(lmd::json::depth_of(R"("[[[{")") == 0);
  CHECK(lmd::json::depth_of(R"(["\"[[", "\\", []])") == 2);
}

TEST_CASE("a text deeper than the limit is refused before it is parsed") {
  CHECK_NOTHROW((void)lmd::json::parse(nested(64), "f"));
  CHECK(message_of([] { (void)lmd::json::parse(nested(65), "f"); }) ==
        "f: nested 65 deep, at most 64 is read");
  CHECK(message_of([] { (void)lmd::json::parse(std::string(10'000'000, '['), "f"); }) ==
        "f: nested 10000000 deep, at most 64 is read");
}

TEST_CASE("damaged texts are refused") {
  for (const char* text : {"", "{", "[1,]", "{\"a\" 1}", "\"\xff\"", "nul", "1 2", "]"}) {
    CAPTURE(text);
    CHECK(message_of([&] {
            (void)lmd::json::parse(text, "f");
          }).starts_with("f: not valid JSON at byte "));
  }
}

TEST_CASE("getters return what fits") {
  const Json value = lmd::json::parse(
      R"({"n": 3, "x": 1.5, "b": true, "s": "t", "a": [1], "o": {"n": 4}, "none": null})", "f");
  const Object object(value, "f");
  CHECK(object.integer("n", 0, 3) == 3);
  CHECK(object.number("n", 0, 3) == 3.0);
  CHECK(object.number("x", 1.5, 1.5) == 1.5);
  CHECK(object.boolean("b"));
  CHECK(object.string("s") == "t");
  CHECK(object.array("a").size() == 1);
  CHECK(object.object("o").integer("n", 0, 9) == 4);
  CHECK_FALSE(object.has("none"));
  CHECK(object.integer_or("none", 0, 9, 7) == 7);
  CHECK(object.number_or("absent", 0, 9, 0.5) == 0.5);
  CHECK(object.boolean_or("absent", true));
  CHECK(object.string_or("absent", "fallback") == "fallback");
}

TEST_CASE("getters name file, key, value and what was expected") {
  const Json value = lmd::json::parse(
      R"({"n": 18446744073709551615, "x": -1, "s": 5, "long": ")" + std::string(100, 'y') + "\"}",
      "f");
  const Object object(value, "f");
  CHECK(message_of([&] { (void)object.integer("n", 1, 100); }) ==
        "f: n is 18446744073709551615, expected an integer from 1 to 100");
  CHECK(message_of([&] { (void)object.integer("x", 1, 100); }) ==
        "f: x is -1, expected an integer from 1 to 100");
  CHECK(message_of([&] { (void)object.number("x", 0, 0.5); }) ==
        "f: x is -1, expected a number from 0.0 to 0.5");
  CHECK(message_of([&] { (void)object.string("s"); }) == "f: s is 5, expected a string");
  CHECK(message_of([&] { (void)object.boolean("s"); }) == "f: s is 5, expected true or false");
  CHECK(message_of([&] { (void)object.array("s"); }) == "f: s is 5, expected an array");
  CHECK(message_of([&] { (void)object.object("s"); }) == "f: s: is 5, expected an object");
  CHECK(message_of([&] { (void)object.at("absent"); }) == "f: required key absent is missing");
  CHECK(message_of([&] { (void)object.integer("long", 0, 1); }).size() < 120);
}
