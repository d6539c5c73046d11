/// \file  Regular expressions: what matches, what is refused, and how little hostile ones cost.
// SPDX-License-Identifier: Apache-2.0
#include <lmd/text/choice_grammar.hpp>
#include <lmd/text/regex_grammar.hpp>

#include "grammar_support.hpp"
#include "text_support.hpp"

using grammar_support::takes;
using lmd::text::compile_choice;
using lmd::text::compile_regex;
using lmd::text::GrammarBudget;
using namespace text_support;

namespace {

struct Case {
  const char* pattern;
  std::vector<std::string> matching;
  std::vector<std::string> others;
};

std::string repeated(const std::string& text, int n) {
  std::string out;
  for (int i = 0; i < n; ++i)
    out += text;
  return out;
}

/// The message that compiling gives within `steps` steps.
std::string refusal(const std::string& pattern, std::int64_t steps = GrammarBudget().steps) {
  GrammarBudget budget;
  budget.steps = steps;
  const Failure failure = failure_of([&] { (void)compile_regex(pattern, budget); });
  CHECK(failure.has_failed);
  CHECK(failure.code == lmd::ErrorCode::kConfig);
  return failure.message;
}

}  // namespace

TEST_CASE("patterns match whole texts") {
  const Case cases[] = {
      {"abc", {"abc"}, {"", "ab", "abcd", "xabc"}},
      {"^abc$", {"abc"}, {"abcabc"}},
      {"", {""}, {"a"}},
      {"a|bc|", {"a", "bc", ""}, {"b", "abc"}},
      {"(a|b)*c", {"c", "abac"}, {"", "ab"}},
      {"(?:ab)+?", {"ab", "abab"}, {"", "aba"}},
      {"(?P<x>a)(?<y>b)", {"ab"}, {"a"}},
      {"a{2}b{1,3}c{2,}", {"aabcc", "aabbbcccc"}, {"abcc", "aabbbbcc", "aabc"}},
      {"a{0}b", {"b"}, {"ab"}},
      {"[a-cx]", {"a", "b", "x"}, {"d", "", "ab"}},
      {"[^a-c]", {"d", "世", "\n", "😀"}, {"a", "\xFF", "\xE4\xB8"}},
      {"[\\]\\-\\\\]+", {"]", "-\\"}, {"[", "a"}},
      {"[a-]", {"a", "-"}, {"b"}},
      {".", {"x", "é", "世"}, {"\n", "\r", "", "\xC3"}},
      {"[\\s\\S]", {"\n", "x"}, {""}},
      {"\\d\\w\\s", {"1_ ", "0a\t"}, {"a1 ", "1- ", "1a\u00A0"}},
      {"\\D\\W\\S", {"a-b", "世 x"}, {"1-b", "aab", "a- "}},
      {"\\x41\\u4e16\\u{1F600}\\t\\n\\.\\/", {"A世😀\t\n./"}, {"A世😀\t\nx/"}},
      {"[α-ω]{2}", {"αω", "λς"}, {"α", "ab"}},
      {"\\$\\^\\*", {"$^*"}, {""}},
      {"}]", {"}]"}, {"}"}},
      {"((a{2}){3}|b){1,2}", {"aaaaaa", "b", "baaaaaa", "aaaaaaaaaaaa"}, {"aa", "bbb", ""}},
      {"(a*)*b?(c|)", {"", "aaab", "c"}, {"bb"}},
      {"(a?){3}", {"", "a", "aaa"}, {"aaaa"}},
      {"(a*b*){100,200}", {"", "ab", "bbaab"}, {"c"}},
  };
  for (const Case& c : cases) {
    CAPTURE(c.pattern);
    const auto grammar = compile_regex(c.pattern);
    for (const std::string& text : c.matching) {
      CAPTURE(text);
      CHECK(takes(grammar, text));
    }
    for (const std::string& text : c.others) {
      CAPTURE(text);
      CHECK_FALSE(takes(grammar, text));
    }
  }
}

TEST_CASE("counts are exact at their bounds, and large ones cost no states") {
  const auto grammar = compile_regex("(ab|c){10,4096}");
  CHECK(grammar->n_states() < 10);
  for (const int n : {9, 10, 11, 4095, 4096, 4097}) {
    CAPTURE(n);
    CHECK(takes(grammar, repeated("ab", n)) == (n >= 10 && n <= 4096));
    CHECK(takes(grammar, repeated("c", n)) == (n >= 10 && n <= 4096));
  }
  const auto nested = compile_regex("((x{64}){64}y){2}");
  CHECK(takes(nested, repeated(repeated("x", 4096) + "y", 2)));
  CHECK_FALSE(takes(nested, repeated(repeated("x", 4095) + "y", 2)));
}

TEST_CASE("tens of thousands of counts are rules of their own") {
  CHECK(compile_regex(repeated("a{99}", 43'000))->n_rules() > 43'000);
  const auto grammar = compile_regex("(a{99}b{99}){2}");
  const std::string once = repeated("a", 99) + repeated("b", 99);
  CHECK(takes(grammar, once + once));
  CHECK_FALSE(takes(grammar, once + once.substr(1)));
}

TEST_CASE("characters are UTF-8 up to their last code point, without surrogates") {
  const auto grammar = compile_regex("[^x]");
  for (const char* text :
       {"\x7F", "\xC2\x80", "\xDF\xBF", "\xE0\xA0\x80", "\xED\x9F\xBF", "\xEE\x80\x80",
        "\xEF\xBF\xBF", "\xF0\x90\x80\x80", "\xF4\x8F\xBF\xBF"}) {
    CHECK(takes(grammar, text));
  }
  for (const char* text : {"\x80", "\xC1\xBF", "\xE0\x9F\xBF", "\xED\xA0\x80", "\xED\xBF\xBF",
                           "\xF0\x8F\xBF\xBF", "\xF4\x90\x80\x80", "\xF5\x80\x80\x80"}) {
    CHECK_FALSE(takes(grammar, text));
  }
}

TEST_CASE("what is not regular, or not well formed, is refused by name") {
  CHECK(contains(refusal("(a)\\1"), "backreference"));
  CHECK(contains(refusal("(?<n>a)\\k<n>"), "backreference"));
  CHECK(contains(refusal("a(?=b)"), "lookaround"));
  CHECK(contains(refusal("(?<!a)b"), "lookaround"));
  CHECK(contains(refusal("\\bword"), "word boundary"));
  CHECK(contains(refusal("(?i)a"), "flags"));
  CHECK(contains(refusal("\\p{L}"), "Unicode property"));
  CHECK(contains(refusal("a^b"), "anchor"));
  CHECK(contains(refusal("(^a)"), "anchor"));
  CHECK(contains(refusal("a$b"), "anchor"));
  CHECK(contains(refusal("*a"), "nothing to repeat"));
  CHECK(contains(refusal("a|+"), "nothing to repeat"));
  CHECK(contains(refusal("a**"), "quantifier of a quantifier"));
  CHECK(contains(refusal("a++"), "quantifier of a quantifier"));
  CHECK(contains(refusal("a{3,2}"), "bounds exchanged"));
  CHECK(contains(refusal("a{,2}"), "not well formed"));
  CHECK(contains(refusal("a{4097}"), "above 4096"));
  CHECK(contains(refusal("a{99999999999999999999}"), "above 4096"));
  CHECK(contains(refusal("{"), "brace"));
  CHECK(contains(refusal("(a"), "does not end"));
  CHECK(contains(refusal("a)"), "without an opening"));
  CHECK(contains(refusal("[a"), "does not end"));
  CHECK(contains(refusal("[z-a]"), "bounds exchanged"));
  CHECK(contains(refusal("[\\d-z]"), "range"));
  CHECK(contains(refusal("\\"), "backslash at the end"));
  CHECK(contains(refusal("\\xZZ"), "hexadecimal"));
  CHECK(contains(refusal("\\uD800"), "surrogate"));
  CHECK(contains(refusal("\xFF"), "UTF-8"));
  CHECK(contains(refusal("[^\\s\\S]"), "no text"));
}

// The steps that a refusal may take are a few for each byte of the pattern: what it is refused for is found before the
// budget is, and the message says which of both was met.
TEST_CASE("hostile patterns are refused within a few steps for each of their bytes") {
  CHECK(contains(refusal(repeated("(", 60000), 2 * 60000), "inside each other"));
  CHECK(contains(refusal(repeated("(a|", 60000), 4 * 60000), "inside each other"));
  CHECK(contains(refusal(repeated("[", 3000), 3000), "bracket"));
  CHECK(contains(refusal(repeated("*", 60000), 10), "nothing to repeat"));
  CHECK(contains(refusal(repeated("a", 300000), 10), "bytes"));
  CHECK(contains(refusal("a" + repeated("{", 60000), 10), "not well formed"));
}

TEST_CASE("automata that would be too large are refused when the budget is spent") {
  // 2^30 states: the 30th character from the end
  CHECK(contains(refusal("(a|b)*a" + repeated("(a|b)", 30)), "grammar: takes more than"));
  // alternatives of alternatives, 2^20 ways
  CHECK(takes(compile_regex(repeated("(a|aa)", 20)), repeated("a", 30)));
  CHECK(contains(refusal("(.{1,60}x|.{2,61}y)*z" + repeated("(.|..)", 5000), 1'000'000),
                 "takes more than"));
  GrammarBudget small;
  small.bytes = 1000;
  const Failure failure =
      failure_of([&] { (void)compile_regex("[a-z]{3}[0-9]{20}[a-z]{20}", small); });
  CHECK(contains(failure.message, "1000 bytes"));
}

TEST_CASE("the work for a byte is bounded, however ambiguous the grammar") {
  const auto grammar = compile_regex("((a{1,4096}){1,4096}){1,4096}");
  lmd::text::GrammarMatcher matcher(grammar);
  for (int i = 0; i < 3000; ++i)
    REQUIRE(matcher.advance("a"));
  const auto& row = matcher.row();
  CHECK(row.end - row.begin <= lmd::text::detail::GrammarChart::kMaxItems);
}

TEST_CASE("choices") {
  const std::vector<std::string> choices = {"yes", "no", "no idea", "世界"};
  const auto grammar = compile_choice(choices);
  for (const std::string& choice : choices)
    CHECK(takes(grammar, choice));
  CHECK_FALSE(takes(grammar, "no "));
  CHECK_FALSE(takes(grammar, ""));
  CHECK(contains(failure_of([] { (void)compile_choice({}); }).message, "no texts"));
  const std::vector<std::string> huge = {repeated("a", 300000)};
  CHECK(contains(failure_of([&] { (void)compile_choice(huge); }).message, "bytes"));
}
