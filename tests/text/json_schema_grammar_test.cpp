/// \file  JSON schemas: what they make, what they refuse, and how little hostile ones cost.
// SPDX-License-Identifier: Apache-2.0
#include <lmd/text/json_schema_grammar.hpp>

#include <algorithm>
#include <ctime>

#include "grammar_support.hpp"
#include "text_support.hpp"

using grammar_support::takes;
using lmd::text::compile_json_object;
using lmd::text::compile_json_schema;
using lmd::text::GrammarBudget;
using namespace text_support;

namespace {

struct Case {
  const char* schema;
  std::vector<std::string> valid;
  std::vector<std::string> others;
};

void check(std::initializer_list<Case> cases) {
  for (const Case& c : cases) {
    CAPTURE(c.schema);
    const auto grammar = compile_json_schema(c.schema);
    for (const std::string& text : c.valid) {
      CAPTURE(text);
      CHECK(takes(grammar, text));
    }
    for (const std::string& text : c.others) {
      CAPTURE(text);
      CHECK_FALSE(takes(grammar, text));
    }
  }
}

std::string refusal(const std::string& schema, std::int64_t steps = GrammarBudget().steps) {
  GrammarBudget budget;
  budget.steps = steps;
  const Failure failure = failure_of([&] { (void)compile_json_schema(schema, budget); });
  CAPTURE(schema.substr(0, 200));
  CHECK(failure.has_failed);
  CHECK(failure.code == lmd::ErrorCode::kConfig);
  return failure.message;
}

std::string repeated(const std::string& text, int n) {
  std::string out;
  for (int i = 0; i < n; ++i)
    out += text;
  return out;
}

/// Different names of three characters, each with `tail` behind it.
std::string names_of(int n, const std::string& tail) {
  constexpr std::string_view kDigits = "0123456789abcdefghijklmnopqrstuvwxyz";
  std::string out;
  for (int i = 0; i < n; ++i) {
    out += i == 0 ? "\"" : ",\"";
    for (const int place : {36 * 36, 36, 1})
      out += kDigits[static_cast<std::size_t>(i / place % 36)];
    out += '"' + tail;
  }
  return out;
}

}  // namespace

TEST_CASE("any JSON object") {
  const auto grammar = compile_json_object();
  for (const char* text :
       {"{}", R"({"a":1})", R"({"a": [1, -2.5e+10, true, false, null, "x"], "b": {"c": {}}})",
        R"({"\u00e9\ud83d\ude00\n":"\"\\\/\b\f\r\t世"})", R"({"":0})"}) {
    CAPTURE(text);
    CHECK(takes(grammar, text));
  }
  for (const char* text : {"",
                           "[]",
                           "1",
                           R"({"a":01})",
                           R"({"a":1,})",
                           R"({,})",
                           R"({"a" :1})",
                           R"({ "a":1})",
                           R"({"a":  1})",
                           R"({"a":.5})",
                           R"({"a":1.})",
                           R"({"a":+1})",
                           R"({"a":"\x"})",
                           R"({"a":"\ud800"})",
                           R"({"a":"\udc00"})",
                           R"({"a":"\ud83dx"})",
                           "{\"a\":\"\n\"}",
                           "{\"a\":\"\xFF\"}",
                           R"({"a":NaN})",
                           R"({a:1})",
                           R"({"a":1}})",
                           R"({"a":1e})",
                           R"({"a":1e999})"}) {
    CAPTURE(text);
    CHECK_FALSE(takes(grammar, text));
  }
  CHECK(takes(grammar, "{\"a\":" + repeated("[", 31) + repeated("]", 31) + "}"));
  CHECK_FALSE(takes(grammar, "{\"a\":" + repeated("[", 32) + repeated("]", 32) + "}"));
}

TEST_CASE("schemas of scalars") {
  check({
      {"true", {"1", "[]", "{}", "\"x\"", "null"}, {"", "x"}},
      {"{}", {"1", "[{}]"}, {""}},
      {R"({"type":"null"})", {"null"}, {"nul", "0"}},
      {R"({"type":["boolean","null"]})", {"true", "false", "null"}, {"0"}},
      {R"({"type":"string","nullable":true})", {"\"\"", "null"}, {"1"}},
      {R"({"type":"string","minLength":2,"maxLength":3})",
       {R"("ab")", R"("\u00e9\n")", R"("世界人")", R"("\ud83d\ude00x")"},
       {R"("a")", R"("abcd")", R"("\ud83d\ude00")"}},
      {R"({"type":"string","maxLength":0})", {"\"\""}, {"\"a\""}},
      {R"({"type":"string","minLength":3})", {"\"abc\"", "\"abcdefgh\""}, {"\"ab\""}},
      {R"({"type":"string","pattern":"b+"})",
       {R"("b")", R"("abc")", R"("\"b")"},
       {R"("a")", R"("")"}},
      {R"({"type":"string","pattern":"^a\\nb$|\"|^\\\\x"})",
       {R"("a\nb")", R"("say \"")", R"("\\x")"},
       {R"("ab")"}},
      {R"({"type":"string","pattern":"^\\w{2,300}$","maxLength":3})",
       {R"("ab")", R"("abc")"},
       {R"("a")", R"("abcd")"}},
      {R"({"allOf":[{"type":"string","pattern":"a"},{"pattern":"b"}]})",
       {R"("ab")", R"("b a")"},
       {R"("a")", R"("b")"}},
      {R"({"type":"string","format":"date"})",
       {R"("2024-02-28")", R"("1999-12-31")"},
       {R"("2024-02-30")", R"("2024-13-01")"}},
      {R"({"type":"string","format":"color"})", {R"("red")"}, {"1"}},
      {R"({"enum":["a",1,null,{"k":[1,"\u00e9"]}]})",
       {"\"a\"", "1", "null", R"({"k":[1,"é"]})", R"({"k": [1, "é"]})"},
       {"\"b\"", "{}", "2"}},
      {R"({"const":"x\"y"})", {R"("x\"y")"}, {R"("x")"}},
      {R"({"enum":["a","abc",7,2.5],"type":["string","integer"],"maxLength":2,"maximum":6})",
       {"\"a\""},
       {"\"abc\"", "7", "2.5"}},
      {R"({"enum":["ab","b1"],"pattern":"\\d"})", {"\"b1\""}, {"\"ab\""}},
      {R"({"const":1,"enum":[1,2]})", {"1"}, {"2"}},
      {R"({"minLength":2,"maximum":5})", {R"("ab")", "5", "-1.5"}, {R"("a")", "6", "null"}},
  });
}

TEST_CASE("bounds of numbers, digit by digit") {
  check({
      {R"({"type":"integer"})",
       {"0", "-7", "999999999999999999"},
       {"1.0", "01", "1e3", "1000000000000000000"}},
      {R"({"type":"number"})", {"0", "-0.5", "1e-7", "1.25E+10"}, {".5", "1e100", "--1"}},
      {R"({"type":"integer","minimum":7,"maximum":1234})",
       {"7", "9", "10", "99", "1000", "1234"},
       {"6", "0", "1235", "2000", "-8"}},
      {R"({"type":"integer","minimum":-120,"exclusiveMaximum":-9})",
       {"-120", "-99", "-10"},
       {"-121", "-9", "0", "10"}},
      {R"({"type":"integer","exclusiveMinimum":-2,"exclusiveMaximum":2})",
       {"-1", "0", "1"},
       {"-2", "2", "-0"}},
      {R"({"type":"integer","minimum":0.5,"maximum":2.5})", {"1", "2"}, {"0", "3"}},
      {R"({"type":"integer","minimum":-9223372036854775808,"maximum":9223372036854775807})",
       {"0", "-12"},
       {"x"}},
      {R"({"type":"number","minimum":0.5,"exclusiveMaximum":12.25})",
       {"0.5", "0.50", "0.51", "1", "9.99", "12", "12.2", "12.2499", "12.0"},
       {"0", "0.4999", "12.25", "12.3", "13", "-1", "1e0"}},
      {R"({"type":"number","minimum":-2.5,"maximum":0})",
       {"-2.5", "-2.4999", "-1", "-0.1", "0", "0.0"},
       {"-2.51", "-3", "0.1", "1"}},
      {R"({"type":"number","exclusiveMinimum":0})",
       {"0.1", "0.0001", "5", "123456789"},
       {"0", "0.0", "-1"}},
      {R"({"type":"number","minimum":3,"maximum":3})", {"3", "3.0"}, {"3.1", "2", "4"}},
      {R"({"type":"number","exclusiveMinimum":3.25,"maximum":3.5})",
       {"3.26", "3.2501", "3.5", "3.3"},
       {"3.25", "3.2", "3.51", "3"}},
      {R"({"type":"number","minimum":1e17})", {"100000000000000000"}, {"99999999999999999"}},
  });
  CHECK(contains(refusal(R"({"type":"integer","minimum":3,"maximum":2})"), "no text"));
  CHECK(contains(refusal(R"({"type":"integer","minimum":1e19})"), "no text"));
  CHECK(contains(refusal(R"({"type":"integer","minimum":0.25,"maximum":0.75})"), "no text"));
}

TEST_CASE("schemas of objects") {
  check({
      {R"({"type":"object"})", {"{}", R"({"x":[]})"}, {"[]"}},
      {R"({"type":"object","properties":{"b":{"type":"integer"},"a":{"type":"integer"}},"required":["a"]})",
       {R"({"b":1,"a":2})", R"({"b": 1, "a": 2})", R"({"a":2})"},
       {R"({"a":2,"b":1})", R"({"b":1})", "{}", R"({"a":2,"c":1})"}},
      {R"({"properties":{"a":{},"b":{},"c":{}}})",
       {"{}", R"({"a":1})", R"({"b":1})", R"({"c":1})", R"({"a":1,"c":1})",
        R"({"a":1,"b":2,"c":3})"},
       {R"({"c":1,"a":1})", R"({,"a":1})", R"({"a":1,})", R"({"a":1"b":1})", "1"}},
      {R"({"type":"object","properties":{"a":false,"b":true}})",
       {"{}", R"({"b":1})"},
       {R"({"a":1})"}},
      {R"({"type":"object","properties":{"a":{"type":"null"}},"additionalProperties":{"type":"integer"}})",
       {"{}", R"({"a":null})", R"({"b":1})", R"({"a":null,"b":1,"ab":2})", R"({"":1})"},
       {R"({"a":1})", R"({"b":null})", R"({"b":1,"a":null})", R"({"\u0061":1})"}},
      {R"({"type":"object","additionalProperties":{"type":"integer"},"maxProperties":2})",
       {"{}", R"({"a":1,"b":2})"},
       {R"({"a":1,"b":2,"c":3})"}},
      {R"({"type":"object","properties":{"a":{},"b":{}},"minProperties":1})",
       {R"({"a":1})", R"({"b":1})"},
       {"{}"}},
      {R"({"type":"object","patternProperties":{"^x":{"type":"null"}},"additionalProperties":false})",
       {"{}", R"({"x":null,"xy":null})"},
       {R"({"y":null})", R"({"x":1})"}},
      {R"({"required":["k"],"type":"object"})", {R"({"k":[1]})"}, {"{}", R"({"j":1})"}},
      {R"({"type":"object","properties":{"a\"\\b":{"const":1}},"required":["a\"\\b"]})",
       {R"({"a\"\\b":1})"},
       {"{}"}},
  });
  CHECK(contains(refusal(R"({"type":"object","properties":{"a":false},"required":["a"]})"),
                 "no text"));
  CHECK(contains(refusal(R"({"type":"object","required":["a"],"additionalProperties":false})"),
                 "no text"));
}

TEST_CASE("schemas of arrays") {
  check({
      {R"({"type":"array"})", {"[]", "[1,[2]]", "[1, 2]"}, {"[1,]", "{}", "[,1]"}},
      {R"({"type":"array","items":{"type":"integer"},"minItems":2,"maxItems":3})",
       {"[1,2]", "[1,2,3]"},
       {"[1]", "[1,2,3,4]", "[1,\"\"]"}},
      {R"({"items":{"type":"null"},"minItems":1})", {"[null]", "[null,null]"}, {"[]"}},
      {R"({"type":"array","items":false})", {"[]"}, {"[1]"}},
      {R"({"type":"array","maxItems":0})", {"[]"}, {"[1]"}},
      {R"({"prefixItems":[{"type":"integer"},{"type":"string"}]})",
       {"[]", "[1]", "[1,\"a\"]"},
       {"[1,\"a\",2]", "[\"a\"]"}},
      {R"({"prefixItems":[{"type":"integer"},{"type":"string"}],"items":{"type":"null"},"minItems":2,"maxItems":4})",
       {"[1,\"a\"]", "[1,\"a\",null,null]"},
       {"[1]", "[1,\"a\",null,null,null]", "[1,null]"}},
      {R"({"prefixItems":[{},{},{}],"items":{},"maxItems":2})",
       {"[]", "[1]", "[1,2]"},
       {"[1,2,3]"}},
      {R"({"type":"array","items":[{"type":"integer"}],"additionalItems":{"type":"null"}})",
       {"[]", "[1]", "[1,null]"},
       {"[null]", "[1,1]"}},
      {R"({"type":"array","items":{"type":"integer","maximum":9},"minItems":50,"maxItems":60})",
       {"[1" + repeated(",1", 49) + "]", "[1" + repeated(",1", 59) + "]"},
       {"[1" + repeated(",1", 48) + "]", "[1" + repeated(",1", 60) + "]"}},
  });
}

TEST_CASE("references and combinations") {
  check({
      {R"({"$defs":{"n":{"type":"object","properties":{"v":{"type":"integer"},"next":{"anyOf":[{"$ref":"#/$defs/n"},{"type":"null"}]}},"required":["v","next"]}},"$ref":"#/$defs/n"})",
       {R"({"v":1,"next":null})", R"({"v":1,"next":{"v":2,"next":null}})"},
       {R"({"v":1})", R"({"v":1,"next":{}})"}},
      {R"({"type":"array","items":{"$ref":"#"}})", {"[]", "[[],[[]]]"}, {"[1]"}},
      {R"({"definitions":{"a/b~c":{"const":1}},"properties":{"p":{"$ref":"#/definitions/a~1b~0c"},"q":{"$ref":"#/properties/p"}}})",
       {R"({"p":1,"q":1})"},
       {R"({"p":2})"}},
      {R"({"anyOf":[{"type":"string","maxLength":1},{"type":"integer"}]})",
       {"\"a\"", "12"},
       {"\"ab\"", "null"}},
      {R"({"oneOf":[{"type":"string"},{"type":"integer"},{"type":"object"}]})",
       {"\"a\"", "12", "{}"},
       {"null"}},
      {R"({"oneOf":[{"properties":{"k":{"const":"a"},"x":{}},"required":["k"]},{"properties":{"k":{"enum":["b","c"]}},"required":["k"]}]})",
       {R"({"k":"a","x":1})", R"({"k":"c"})"},
       {R"({"k":"b","x":1})", "{}"}},
      {R"({"oneOf":[{"type":"integer","maximum":3},{"type":"number","exclusiveMinimum":3}]})",
       {"3", "3.5"},
       {"2.5"}},
      {R"({"allOf":[{"properties":{"a":{"type":"integer","minimum":2}},"required":["a"]},{"properties":{"a":{"maximum":4},"b":{}}}]})",
       {R"({"a":2})", R"({"a":4,"b":1})"},
       {R"({"a":1})", R"({"a":5})", R"({"b":1})"}},
      {R"({"allOf":[{"properties":{"a":{}},"additionalProperties":false},{"properties":{"a":{},"b":{}}}]})",
       {R"({"a":1})"},
       {R"({"b":1})"}},
      {R"({"type":"object","properties":{"a":{},"b":{}},"anyOf":[{"required":["a"]},{"required":["b"]}]})",
       {R"({"a":1})", R"({"b":1})", R"({"a":1,"b":1})"},
       {"{}"}},
      {R"({"$ref":"#/$defs/s","maxLength":2,"$defs":{"s":{"type":"string","minLength":1}}})",
       {"\"a\"", "\"ab\""},
       {"\"\"", "\"abc\""}},
      {R"({"allOf":[{"type":["string","null"]},{"type":["null","integer"]}]})",
       {"null"},
       {"\"\"", "1"}},
      {R"({"type":"integer","allOf":[{"enum":[3.5,4]}]})", {"4"}, {"3.5"}},
  });
  CHECK(contains(refusal(R"({"allOf":[{"type":"string"},{"type":"integer"}]})"), "no text"));
  CHECK(contains(refusal(R"({"$ref":"#"})"), "leads to itself"));
  CHECK(contains(
      refusal(
          R"({"$defs":{"a":{"$ref":"#/$defs/b"},"b":{"anyOf":[{"type":"null"},{"$ref":"#/$defs/a"}]}},"$ref":"#/$defs/a"})"),
      "leads to itself"));
  CHECK(contains(refusal(R"({"type":"object","properties":{"n":{"$ref":"#"}},"required":["n"]})"),
                 "no text"));
  CHECK(contains(refusal(R"({"allOf":[{"$ref":"#"}],"type":"object"})"), "nested so deep"));
}

TEST_CASE("what cannot be enforced is refused by name, and without text of the schema") {
  const char* const refused[] = {"not",
                                 "if",
                                 "then",
                                 "else",
                                 "contains",
                                 "minContains",
                                 "maxContains",
                                 "multipleOf",
                                 "propertyNames",
                                 "dependencies",
                                 "dependentRequired",
                                 "$dynamicRef",
                                 "dependentSchemas",
                                 "unevaluatedProperties"};
  for (const char* keyword : refused) {
    CAPTURE(keyword);
    const std::string message = refusal(R"({"type":"object","properties":{"SECRET":{")" +
                                        std::string(keyword) + R"(":{}}}})");
    CHECK(message == "grammar: " + std::string(keyword) + " in a JSON schema is not supported");
  }
  CHECK(contains(refusal(R"({"uniqueItems":true})"), "uniqueItems"));
  CHECK(
      takes(compile_json_schema(R"({"uniqueItems":false,"title":"t","x-other":{"not":1}})"), "1"));
  CHECK(contains(refusal(R"({"oneOf":[{"type":"string"},{"minLength":2}]})"),
                 "oneOf whose alternatives may overlap"));
  CHECK(contains(refusal(R"({"$ref":"http://x/y"})"), "$ref out of the document"));
  CHECK(contains(refusal(R"({"$ref":"#/nowhere"})"), "$ref to nothing"));
  CHECK(contains(refusal(R"({"$ref":"#anchor"})"), "$ref to an anchor"));
  CHECK(contains(refusal(R"({"type":"thing"})"), "unknown type"));
  CHECK(contains(refusal(R"({"type":7})"), "such a value of type"));
  CHECK(contains(refusal(R"({"minLength":-1})"), "such a value of minLength"));
  CHECK(contains(refusal(R"({"minItems":1.5})"), "such a value of minItems"));
  CHECK(contains(refusal(R"({"exclusiveMinimum":true})"), "such a value of exclusiveMinimum"));
  CHECK(contains(refusal(R"({"required":"a"})"), "such a value of required"));
  CHECK(contains(refusal(R"({"enum":[]})"), "such a value of enum"));
  CHECK(contains(refusal(R"({"properties":{"a":1}})"), "such a value of properties"));
  CHECK(contains(refusal("[]"), "neither an object nor a boolean"));
  CHECK(contains(refusal("{"), "not valid JSON"));
  CHECK(contains(refusal(R"({"type":"object","type":"string"})"), "a key twice"));
  CHECK(contains(refusal(R"({"maxLength":4097})"), "maxLength in a JSON schema is above 4096"));
  CHECK(contains(refusal(R"({"type":"object","properties":{"a":{}},"maxProperties":0})"),
                 "maxProperties"));
  CHECK(contains(refusal(R"({"type":"object","minProperties":2})"), "minProperties"));
  CHECK(contains(refusal(R"x({"type":"string","pattern":"(?=x)"})x"), "lookaround"));
  CHECK(contains(refusal(R"({"enum":[{"a":1}],"properties":{"a":{"type":"null"}}})"),
                 "enum of objects"));
}

TEST_CASE("a schema is read in a time that grows about as the number of its keys") {
  const auto milliseconds = [](int n) {
    std::string schema = "{";
    for (int i = 0; i < n; ++i)
      schema += (i == 0 ? "\"key" : ",\"key") + std::to_string(i) + "\":1";
    schema += '}';
    double best = 1e9;
    for (int i = 0; i < 5; ++i) {
      const GrammarBudget budget;
      lmd::text::detail::GrammarMeter meter(budget);
      const std::clock_t begin = std::clock();
      (void)lmd::text::detail::parse_schema(schema, meter);
      best = std::min(best, 1e3 * static_cast<double>(std::clock() - begin) / CLOCKS_PER_SEC);
    }
    return best;
  };
  // 16 times as many: 16 log(20000) / log(1250) = 22 times the time; where each key is compared with all, 256.
  CHECK(milliseconds(20'000) < 3 * 22 * std::max(milliseconds(1'250), 0.1));
}

// As for patterns, the steps allowed are a few for each byte of the schema.
TEST_CASE("hostile schemas are refused within a few steps for each of their bytes") {
  CHECK(contains(refusal(repeated("[", 3000), 2 * 3000), "nested more than 64 deep"));
  CHECK(
      contains(refusal(R"({"enum":)" + repeated("[", 100000) + repeated("]", 100000) + "}", 300000),
               "deep"));
  CHECK(contains(refusal(repeated(R"({"items":)", 60) + "{}" + repeated("}", 60), 100 * 600),
                 "nested so deep"));
  CHECK(contains(refusal("\"" + repeated("a", 300000) + "\"", 10), "bytes"));
  std::string many = R"({"type":"object","properties":{)";
  for (int i = 0; i < 2500; ++i)
    many += (i == 0 ? "\"" : ",\"") + std::to_string(i) + "\":{}";
  CHECK(contains(refusal(many + "}}", 40 * static_cast<std::int64_t>(many.size())),
                 "more than 2000 subschemas"));
  std::string wide = R"({"anyOf":[{})";
  for (int i = 0; i < 100; ++i)
    wide += ",{}";
  CHECK(contains(refusal(wide + "]}", 10000), "more than 64 alternatives"));
}

TEST_CASE("combinations keep the order of names, and required ones count once") {
  check({
      {R"({"allOf":[{"type":"object","properties":{"b":{"type":"null"},"a":{}},"required":["z","a"]},
           {"properties":{"c":{},"a":{"type":"boolean"}},"required":["a","y","z"]}]})",
       {R"({"a":true,"z":1,"y":2})", R"({"b":null,"a":true,"c":3,"z":1,"y":2})"},
       {R"({"a":1,"z":1,"y":2})", R"({"a":true,"y":2,"z":1})", R"({"a":true,"z":1,"y":2,"z":1})",
        R"({"z":1,"y":2})"}},
      {R"({"type":"object","required":["n","x","x"],"properties":{"x":{"type":"null"},"o":false},"additionalProperties":{"type":"integer"}})",
       {R"({"x":null,"n":1})", R"({"x":null,"n":1,"p":2})"},
       {R"({"x":null,"n":1,"o":1})", R"({"x":null,"n":null})", R"({"x":null,"n":1,"n":1})"}},
      {R"({"allOf":[{"type":"object"},{"properties":{"a":{"type":"null"}},"additionalProperties":{"type":"integer"}}]})",
       {R"({"a":null,"b":1})"},
       {R"({"a":1})", R"({"b":null})"}},
  });
  CHECK(contains(refusal(R"({"type":"object","required":["n"],"properties":{"n":false}})"),
                 "satisfies it"));
}

TEST_CASE("names are as few as subschemas, and the search for them is counted") {
  const std::string names = names_of(40'000, "");
  CHECK(contains(refusal(R"({"type":"object","required":[)" + names + "]}",
                         12 * static_cast<std::int64_t>(names.size())),
                 "more than 2000 subschemas"));
  const std::string required = R"({"required":[)" + names_of(18'000, "") + "]}";
  CHECK(contains(refusal(R"({"type":"object","allOf":[)" + required + "," + required + "]}"),
                 "more than 2000 subschemas"));
  const std::string object = R"({"type":"object","properties":{)" + names_of(2000, ":{}") + "}}";
  CHECK(contains(refusal(R"({"allOf":[)" + object + "," + object + "]}"), "steps to compile"));
  CHECK(contains(refusal(R"({"oneOf":[)" + required + "," + required + "]}"), "steps to compile"));
  // each of 1,800 references is searched for among 12,000 definitions
  std::string references = R"({"anyOf":[)";
  for (int i = 0; i < 60; ++i) {
    references += (i == 0 ? "" : ",") + std::string(R"({"allOf":[)");
    for (int j = 0; j < 30; ++j)
      references += (j == 0 ? "" : ",") + std::string(R"({"$ref":"#/$defs/6yb"})");
    references += "]}";
  }
  references += R"(],"$defs":{)" + names_of(12'000, ":{}") + "}}";
  CHECK(contains(refusal(references), "steps to compile"));
  // where only one part of a combination speaks of properties, nothing is searched
  std::string all = R"({"type":"object","properties":{)" + names_of(900, ":{}") + "}}";
  for (int i = 0; i < 8; ++i)
    all = R"({"allOf":[)" + all + R"(,{"required":["000"]}]})";
  const auto grammar = compile_json_schema(all);
  CHECK(takes(grammar, R"({"000":1,"002":2})"));
  CHECK_FALSE(takes(grammar, R"({"002":2})"));
}

TEST_CASE("schemas whose combinations grow without bound are refused when the budget is spent") {
  // a0 is a1 and a1, a1 is a2 and a2, ...: 2^15 parts
  std::string doubling = R"({"$ref":"#/$defs/a0","$defs":{)";
  for (int i = 0; i < 15; ++i) {
    const std::string next = R"({"$ref":"#/$defs/a)" + std::to_string(i + 1) + "\"}";
    doubling += "\"a" + std::to_string(i) + R"(":{"allOf":[)" + next + "," + next + "]},";
  }
  CHECK(contains(refusal(doubling + R"("a15":{"type":"null"}}})", 100'000), "takes more than"));
  // 3^5 combinations
  const std::string three = R"({"anyOf":[{"minLength":1},{"maxLength":2},{"minimum":3}]})";
  CHECK(contains(refusal(R"({"allOf":[)" + three + repeated("," + three, 4) + "]}"),
                 "more than 64 alternatives"));
  // a cycle of references through thousands of rules is no recursion of the compiler
  std::string ring = R"({"$ref":"#/$defs/r0","$defs":{)";
  for (int i = 0; i < 1900; ++i) {
    ring += (i == 0 ? "\"r" : ",\"r") + std::to_string(i) + R"(":{"$ref":"#/$defs/r)" +
            std::to_string((i + 1) % 1900) + "\"}";
  }
  CHECK(contains(refusal(ring + "}}"), "leads to itself"));
  // many optional properties with a common beginning
  std::string optional = R"({"type":"object","properties":{)";
  for (int i = 0; i < 300; ++i)
    optional +=
        (i == 0 ? "\"property_" : ",\"property_") + std::to_string(i) + R"(":{"type":"integer"})";
  CHECK(takes(compile_json_schema(optional + "}}"),
              R"({"property_0":1,"property_7":3,"property_299":4})"));
}

TEST_CASE("equal parts of a schema are compiled once") {
  std::string schema = R"({"type":"object","properties":{)";
  const std::string part =
      R"({"type":"object","properties":{"s":{"type":"string","maxLength":4000},"t":{"type":"string","pattern":"^a{1,4000}$"}}})";
  for (int i = 0; i < 300; ++i)
    schema += (i == 0 ? "\"" : ",\"") + std::to_string(i) + "\":" + part;
  const auto grammar = compile_json_schema(schema + "}}");
  CHECK(grammar->n_rules() < 12);
}
