/// \file  Masks are what trying every token gives, on small and on real vocabularies.
// SPDX-License-Identifier: Apache-2.0
#include <lmd/text/choice_grammar.hpp>
#include <lmd/text/grammar_cache.hpp>
#include <lmd/text/json_schema_grammar.hpp>
#include <lmd/text/load_tokenizer.hpp>
#include <lmd/text/regex_grammar.hpp>
#include <lmd/text/token_mask.hpp>

#include <cstdlib>
#include <thread>

#include "grammar_support.hpp"
#include "text_support.hpp"

using namespace grammar_support;
using namespace text_support;
using lmd::text::compile_json_object;
using lmd::text::compile_json_schema;
using lmd::text::compile_regex;
using lmd::text::GrammarCache;
using lmd::text::GrammarMatcher;
using lmd::text::load_tokenizer;
using lmd::text::TokenMasks;
using lmd::text::TokenTrie;

namespace {

const char* const kTree =
    R"({"type":"object","properties":{"v":{"type":"string","maxLength":5},"l":{"$ref":"#"},"r":{"anyOf":[{"$ref":"#"},{"type":"null"}]}},"required":["v"]})";

/// Grammars of every kind: ambiguous, counted, nested, open.
std::vector<Grammar> grammars() {
  lmd::text::GrammarBudget shallow;
  shallow.answer_depth = 3;
  return {
      compile_json_object(),
      compile_json_object(shallow),
      compile_json_schema(kTree),
      compile_json_schema(kTree, shallow),
      compile_json_schema(
          R"({"anyOf":[{"type":"object","properties":{"a":{"type":"string"},"b":{"type":"number"}}},
          {"type":"object","properties":{"a":{"type":"string","maxLength":9},"c":{"enum":["x","xy",12]}}},{"type":"array","items":{"type":"integer","minimum":-9,"maximum":1234}}]})"),
      compile_json_schema(
          R"({"type":"object","properties":{"a":{"type":"string"}},"additionalProperties":{"type":"array","maxItems":40}})"),
      compile_json_schema(R"({"type":"string","minLength":30,"maxLength":200})"),
      compile_regex("[a-z ]+(, [^,]{1,40}){0,300}"),
      compile_regex("(a|aa|b){2,50}(\\{\"|\\}\\}|,)*.*"),
      compile_regex("\\s*[一-龥]{2,40}x?"),
  };
}

std::shared_ptr<const TokenTrie> trie_of(const lmd::text::Tokenizer& tokenizer) {
  return std::make_shared<const TokenTrie>(tokenizer);
}

/// Where the default model lies when the program has imported it.
std::string default_model() {
  const char* home = std::getenv("HOME");
  return std::string(home == nullptr ? "" : home) + "/.cache/lmd/models/SmolLM2-135M-Instruct";
}

int compare_all(const std::string& folder, int n_steps, int every) {
  const auto trie = trie_of(*load_tokenizer(folder));
  int n_compared = 0;
  std::uint32_t seed = 1;
  for (const Grammar& grammar : grammars()) {
    TokenMasks masks(grammar, trie);
    for (int i = 0; i < 2; ++i)
      n_compared += compare_masks(masks, seed++, n_steps, every);
  }
  return n_compared;
}

}  // namespace

TEST_CASE("masks equal their definition: small vocabularies") {
  for (const char* name : {"gpt2", "qwen2", "internlm", "llama", "prefix"}) {
    CAPTURE(name);
    CHECK(compare_all(kGolden + "/" + name, 60, 1) >= 10);
  }
}

TEST_CASE("masks equal their definition: SmolLM2") {
  if (!std::filesystem::exists(default_model())) {
    MESSAGE("skipped: ", default_model(), " is missing");
    return;
  }
  CHECK(compare_all(default_model(), 40, 8) >= 40);
}

TEST_CASE("masks equal their definition: InternLM2") {
  if (!has_shared("internlm2-chat-7b")) return;
  CHECK(compare_all(kShared + "/internlm2-chat-7b", 40, 8) >= 40);
}

TEST_CASE("the trie holds every token that has bytes and is not special") {
  const PieceTokenizer tokenizer({"a", "ab", "<|end|>", "", "b", "ab", " ", " a"});
  const TokenTrie trie(tokenizer);
  std::vector<int> found;
  for (std::uint32_t node = 0; node + 1 < trie.nodes().size(); ++node) {
    for (const int token : trie.tokens_at(node)) {
      found.push_back(token);
      CHECK(trie.bytes(token).size() == trie.nodes()[node].depth);
      CHECK(static_cast<std::uint8_t>(trie.bytes(token).back()) == trie.nodes()[node].byte);
    }
  }
  std::sort(found.begin(), found.end());
  CHECK(found == std::vector{0, 1, 4, 5, 6, 7});
  CHECK(trie.bytes(2).empty());
  CHECK(trie.bytes(-1).empty());
  CHECK(trie.bytes(8).empty());
  CHECK(trie.n_tokens() == 8);
  CHECK(trie.max_token_bytes() == 2);
  CHECK(trie.nodes()[trie.space_node()].byte == ' ');
}

TEST_CASE("masks of a small vocabulary, by hand") {
  const PieceTokenizer tokenizer({"a", "b", "ab", "abc", "c\"", "\"", "<|end|>", "\",", "}"});
  TokenMasks masks(compile_regex("\"(ab)*c?\"(,|\\})"), trie_of(tokenizer));
  std::vector<std::uint32_t> words = words_for(*masks.trie());
  GrammarMatcher matcher(masks.grammar());
  const auto allowed = [&] {
    masks.fill(matcher, words);
    return tokens_of(words, 9);
  };
  CHECK(allowed() == std::vector{5});
  REQUIRE(matcher.advance("\""));
  CHECK(allowed() == std::vector{0, 2, 3, 4, 5, 7});
  REQUIRE(matcher.advance("abc"));
  CHECK(allowed() == std::vector{5, 7});
  REQUIRE_FALSE(matcher.advance("a"));  // changes nothing
  CHECK(allowed() == std::vector{5, 7});
  REQUIRE(matcher.advance("\""));
  CHECK(allowed() == std::vector{8});
  REQUIRE(matcher.advance("}"));
  CHECK(matcher.can_end());
  CHECK(allowed().empty());
}

TEST_CASE("a space that the tokenizer drops may stand before an answer, once") {
  const PieceTokenizer tokenizer({"a", " a", " ", "  a", "b", " b"}, true);
  const auto trie = trie_of(tokenizer);
  std::vector<std::uint32_t> words = words_for(*trie);
  TokenMasks plain(compile_regex("ab"), trie);
  plain.fill(GrammarMatcher(plain.grammar()), words, true);
  CHECK(tokens_of(words, 6) == std::vector{0, 1, 2});
  plain.fill(GrammarMatcher(plain.grammar()), words, false);
  CHECK(tokens_of(words, 6) == std::vector{0});
  TokenMasks spaced(compile_regex(" ab"), trie);  // the first of two spaces is dropped
  spaced.fill(GrammarMatcher(spaced.grammar()), words, true);
  CHECK(tokens_of(words, 6) == std::vector{2, 3});
}

TEST_CASE("special tokens stand only where the grammar names them") {
  const PieceTokenizer tokenizer({"x", "<|a|>", "<|b|>", "<|a|>x"});
  lmd::text::GrammarBudget budget;
  lmd::text::detail::GrammarMeter meter(budget);
  lmd::text::detail::GrammarBuilder builder(meter);
  const Grammar grammar = builder.finish(builder.sequence(
      {builder.token(1), builder.repeat(builder.text("x"), 0, -1), builder.token(2)}));
  TokenMasks masks(grammar, trie_of(tokenizer));
  std::vector<std::uint32_t> words = words_for(*masks.trie());
  GrammarMatcher matcher(grammar);
  masks.fill(matcher, words);
  CHECK(tokens_of(words, 4) == std::vector{1});
  CHECK_FALSE(matcher.advance("<|a|>"));  // its name is no text
  REQUIRE(matcher.advance_token(1));
  CHECK_FALSE(matcher.advance_token(1));
  masks.fill(matcher, words);
  CHECK(tokens_of(words, 4) == std::vector{0, 2});
  REQUIRE(matcher.advance("xx"));
  REQUIRE(matcher.advance_token(2));
  CHECK(matcher.can_end());
  TokenMasks any(compile_regex("[\\s\\S]*"), trie_of(tokenizer));
  any.fill(GrammarMatcher(any.grammar()), words);
  CHECK(tokens_of(words, 4) == std::vector{0});
}

TEST_CASE("answers nest as deep as the budget allows, and are never led into a dead end") {
  lmd::text::GrammarBudget budget;
  budget.answer_depth = 4;
  const Grammar any = compile_json_object(budget);
  CHECK(takes(any, R"({"a":[[[]]]})"));
  CHECK_FALSE(takes(any, R"({"a":[[[[]]]]})"));
  // Each level needs two more: where there is room for one, a key that needs two is not offered.
  budget.answer_depth = 6;
  const char* const chain =
      R"({"type":"object","properties":{"n":{"type":"array","items":{"$ref":"#"},"minItems":1},"z":{"type":"null"}}})";
  const Grammar grammar = compile_json_schema(chain, budget);
  GrammarMatcher matcher(grammar);
  REQUIRE(matcher.advance(R"({"n":[{)"));
  CHECK(GrammarMatcher(matcher).advance("\"n\":[{}]}]}"));
  REQUIRE(matcher.advance("\"n\":[{"));
  CHECK(GrammarMatcher(matcher).advance("}]}]}"));
  CHECK(GrammarMatcher(matcher).advance("\"z\":null}]}]}"));
  CHECK_FALSE(GrammarMatcher(matcher).advance("\"n"));
}

TEST_CASE("masks without memory for parts, or with few steps, are right or smaller") {
  const auto trie = trie_of(*load_tokenizer(kGolden + "/qwen2"));
  for (const Grammar& grammar : grammars()) {
    TokenMasks forgetful(grammar, trie, 0);
    CHECK(compare_masks(forgetful, 5, 30, 1) > 0);
    TokenMasks hurried(grammar, trie, std::size_t{8} << 20, 50);
    TokenMasks whole(grammar, trie);
    std::vector<std::uint32_t> few = words_for(*trie);
    std::vector<std::uint32_t> all = few;
    const GrammarMatcher start(grammar);
    hurried.fill(start, few);
    whole.fill(start, all);
    for (std::size_t i = 0; i < few.size(); ++i)
      CHECK((few[i] & ~all[i]) == 0);
  }
}

TEST_CASE("what a part cannot have is asked for once") {
  const auto trie = trie_of(*load_tokenizer(kGolden + "/qwen2"));
  constexpr std::int64_t kSteps = 50;
  for (const char* const pattern : {"[a-z ]+", "[a-z ]{1,4000}", "(([a-z ]+|x)*,)*"}) {
    CAPTURE(pattern);
    const Grammar grammar = compile_regex(pattern);
    const GrammarMatcher start(grammar);
    std::vector<std::uint32_t> all = words_for(*trie);
    std::vector<std::uint32_t> first = all;
    std::vector<std::uint32_t> second = all;
    TokenMasks(grammar, trie).fill(start, all);
    TokenMasks hurried(grammar, trie, std::size_t{8} << 20, kSteps);
    hurried.fill(start, first);
    CHECK(hurried.steps_left() < 0);
    hurried.fill(start, second);
    CHECK(hurried.steps_left() == kSteps);
    CHECK(first == second);
    CHECK(first != all);
    CHECK(!tokens_of(first, trie->n_tokens()).empty());
    for (std::size_t i = 0; i < all.size(); ++i)
      CHECK((first[i] & ~all[i]) == 0);

    // Without room for a part the mask is walked for; the part is no more.
    constexpr std::int64_t kMany = 1'000'000;
    TokenMasks forgetful(grammar, trie, 0, kMany);
    forgetful.fill(start, first);
    const std::int64_t n_first = kMany - forgetful.steps_left();
    forgetful.fill(start, second);
    const std::int64_t n_second = kMany - forgetful.steps_left();
    CHECK(2 * n_second <= n_first + 2);
    CHECK(first == all);
    CHECK(second == all);
  }
}

TEST_CASE("parts that few steps are left for are found when there are more") {
  const auto trie = trie_of(*load_tokenizer(kGolden + "/qwen2"));
  const Grammar grammar = compile_regex("[a-z ]+");
  std::vector<std::uint32_t> all = words_for(*trie);
  std::vector<std::uint32_t> found = all;
  TokenMasks(grammar, trie).fill(GrammarMatcher(grammar), all);
  TokenMasks masks(grammar, trie);
  masks.prepare(50);
  masks.fill(GrammarMatcher(grammar), found);
  CHECK(found == all);
}

TEST_CASE("the cache's grammars are prepared") {
  const auto trie = trie_of(*load_tokenizer(kGolden + "/gpt2"));
  GrammarCache cache(trie);
  const auto masks = cache.get("a", [] { return compile_regex("[a-z ]+x"); });
  std::vector<std::uint32_t> words = words_for(*trie);
  masks->fill(GrammarMatcher(masks->grammar()), words);
  const std::int64_t none_needed = masks->steps_left();
  masks->fill(GrammarMatcher(masks->grammar()), words);
  CHECK(masks->steps_left() == none_needed);
}

TEST_CASE("parts that are found in advance change nothing") {
  const auto trie = trie_of(*load_tokenizer(kGolden + "/gpt2"));
  for (const Grammar& grammar : grammars()) {
    TokenMasks masks(grammar, trie);
    masks.prepare();
    CHECK(masks.n_bytes() > grammar->n_bytes());
    CHECK(compare_masks(masks, 3, 30, 1) > 0);
  }
}

TEST_CASE("a matcher's memory is bounded however long the answer gets") {
  const Grammar grammar = compile_json_schema(
      R"({"type":"array","items":{"type":"array","items":{"type":"string","maxLength":7}}})");
  GrammarMatcher matcher(grammar);
  REQUIRE(matcher.advance("[[\"\"]"));
  for (int i = 0; i < 20000; ++i)
    REQUIRE(matcher.advance(R"(,["abc", "d\u00e9f"])"));
  CHECK(matcher.chart().n_nodes() < 20000);
  REQUIRE(matcher.advance("]"));
  CHECK(matcher.can_end());
  CHECK(matcher.advance(""));
}

TEST_CASE("the cache keeps what was used last within its bytes") {
  const auto trie = trie_of(*load_tokenizer(kGolden + "/gpt2"));
  int n_compiled = 0;
  const auto pattern = [&](const std::string& text) {
    return [&n_compiled, text] {
      ++n_compiled;
      return compile_regex(text);
    };
  };
  GrammarCache roomy(trie);
  const auto first = roomy.get("a", pattern("a+"));
  CHECK(roomy.get("a", pattern("b+")) == first);
  CHECK(n_compiled == 1);
  CHECK_THROWS_AS((void)roomy.get("bad", pattern("(")), lmd::Error);
  CHECK(roomy.size() == 1);

  const std::size_t one = roomy.n_bytes();
  GrammarCache tight(trie, 3 * one + one / 2);
  for (const char* key : {"1", "2", "3"})
    (void)tight.get(key, pattern("a+"));
  (void)tight.get("1", pattern("a+"));
  (void)tight.get("4", pattern("a+"));  // throws out 2
  CHECK(tight.size() == 3);
  n_compiled = 0;
  (void)tight.get("1", pattern("a+"));
  (void)tight.get("3", pattern("a+"));
  CHECK(n_compiled == 0);
  (void)tight.get("2", pattern("a+"));
  CHECK(n_compiled == 1);
  CHECK(tight.n_bytes() <= 3 * one + one / 2);
}

TEST_CASE("one cache and one grammar serve many threads") {
  const auto trie = trie_of(*load_tokenizer(kGolden + "/gpt2"));
  GrammarCache cache(trie, 1 << 16);
  std::vector<std::thread> threads;
  std::vector<int> n_wrong(4, 0);
  for (std::size_t t = 0; t < n_wrong.size(); ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < 40; ++i) {
        const std::string pattern =
            "[a-" + std::string(1, static_cast<char>('d' + i % 5)) + "]{1,30}x";
        const auto masks = cache.get(pattern, [&] { return compile_regex(pattern); });
        std::vector<std::uint32_t> found = words_for(*trie);
        std::vector<std::uint32_t> expected = found;
        GrammarMatcher matcher(masks->grammar());
        (void)matcher.advance("abc");
        masks->fill(matcher, found);
        masks->fill_by_definition(matcher, expected);
        n_wrong[t] += found == expected ? 0 : 1;
      }
    });
  }
  for (std::thread& thread : threads)
    thread.join();
  CHECK(n_wrong == std::vector<int>(4, 0));
}
