/// \file  The constraint of an answer: what may be drawn, where stop tokens may, and that it always ends.
// SPDX-License-Identifier: Apache-2.0
#include <lmd/serve/grammar_constraint.hpp>
#include <lmd/text/json_schema_grammar.hpp>
#include <lmd/text/load_tokenizer.hpp>
#include <lmd/text/regex_grammar.hpp>

#include "text/grammar_support.hpp"
#include "text/text_support.hpp"

using namespace grammar_support;
using lmd::serve::GrammarConstraint;
using lmd::text::compile_regex;
using lmd::text::TokenMasks;
using lmd::text::TokenTrie;

namespace {

std::shared_ptr<TokenMasks> masks_of(Grammar grammar, const lmd::text::Tokenizer& tokenizer) {
  return std::make_shared<TokenMasks>(std::move(grammar),
                                      std::make_shared<const TokenTrie>(tokenizer));
}

std::vector<int> allowed(GrammarConstraint& constraint, int vocab_size) {
  const auto words = constraint.allowed();
  CHECK(words.size() == (static_cast<std::size_t>(vocab_size) + 31) / 32);
  return tokens_of({words.begin(), words.end()}, static_cast<int>(words.size()) * 32);
}

}  // namespace

TEST_CASE("stop tokens may be drawn exactly where the grammar can end") {
  const PieceTokenizer tokenizer({"a", "b", "ab", "<|end|>", "<|other|>"});
  GrammarConstraint constraint(masks_of(compile_regex("a(ba)*"), tokenizer), {3}, 40);
  CHECK(allowed(constraint, 40) == std::vector{0, 2});
  constraint.accept(2);
  CHECK(allowed(constraint, 40) == std::vector{0, 2});
  CHECK_FALSE(constraint.is_complete());
  constraint.accept(0);
  CHECK(allowed(constraint, 40) == std::vector{1, 3});
  CHECK(constraint.is_complete());
  constraint.accept(3);
  CHECK(allowed(constraint, 40) == std::vector{3});
  constraint.accept(0);
  CHECK(allowed(constraint, 40) == std::vector{3});
}

TEST_CASE("a stop token that the grammar demands is allowed there, too") {
  const PieceTokenizer tokenizer({"a", "<|call_end|>", "<|end|>"});
  lmd::text::GrammarBudget budget;
  lmd::text::detail::GrammarMeter meter(budget);
  lmd::text::detail::GrammarBuilder builder(meter);
  const auto grammar = builder.finish(builder.sequence({builder.text("a"), builder.token(1)}));
  GrammarConstraint constraint(masks_of(grammar, tokenizer), {1, 2}, 3);
  CHECK(allowed(constraint, 3) == std::vector{0});
  constraint.accept(0);
  CHECK(allowed(constraint, 3) == std::vector{1});
  constraint.accept(1);
  CHECK(constraint.is_complete());
  CHECK(allowed(constraint, 3) == std::vector{1, 2});
}

TEST_CASE("something is always allowed: without a token for what must come, the answer ends") {
  const PieceTokenizer tokenizer({"a", "<|end|>"});
  GrammarConstraint constraint(masks_of(compile_regex("ab"), tokenizer), {1}, 2);
  constraint.accept(0);
  CHECK(allowed(constraint, 2) == std::vector{1});
  CHECK_FALSE(constraint.is_complete());
}

TEST_CASE(
    "vocabularies smaller and larger than the tokenizer's, and answers without a stop token") {
  const PieceTokenizer tokenizer({"a", "<|end|>", "b", "aa"});
  GrammarConstraint small(masks_of(compile_regex("[ab]*"), tokenizer), {1, 99, -1}, 3);
  CHECK(allowed(small, 3) == std::vector{0, 1, 2});
  GrammarConstraint large(masks_of(compile_regex("[ab]*"), tokenizer), {1}, 1000);
  CHECK(allowed(large, 1000) == std::vector{0, 1, 2, 3});
  CHECK_THROWS_AS(GrammarConstraint(masks_of(compile_regex("a"), tokenizer), {}, 4), lmd::Error);
  CHECK_THROWS_AS(GrammarConstraint(masks_of(compile_regex("a"), tokenizer), {4}, 4), lmd::Error);
}

TEST_CASE("the space that a tokenizer drops is no text of the answer") {
  const PieceTokenizer tokenizer({"a", " a", " ", "<|end|>"}, true);
  GrammarConstraint constraint(masks_of(compile_regex("a( a)?"), tokenizer), {3}, 4);
  CHECK(allowed(constraint, 4) == std::vector{0, 1, 2});
  constraint.accept(1);
  CHECK(allowed(constraint, 4) == std::vector{1, 2, 3});
  constraint.accept(2);
  CHECK(allowed(constraint, 4) == std::vector{0});
}

TEST_CASE("random answers of a real vocabulary are JSON as a tokenizer decodes them") {
  using namespace text_support;
  const auto tokenizer = lmd::text::load_tokenizer(kGolden + "/llama");
  const auto masks = masks_of(
      lmd::text::compile_json_schema(
          R"({"type":"object","properties":{"s":{"type":"string","maxLength":6},"n":{"type":"number"},"l":{"type":"array","items":{"type":"boolean"},"maxItems":3}},"required":["s","n"]})"),
      *tokenizer);
  const int vocab_size = tokenizer->vocab_size() + 7;
  for (std::uint32_t seed = 0; seed < 50; ++seed) {
    std::mt19937 random(seed);
    GrammarConstraint constraint(masks, {tokenizer->eos_id()}, vocab_size);
    std::vector<int> ids;
    while (ids.size() < 500) {
      const std::vector<int> choices = allowed(constraint, vocab_size);
      REQUIRE_FALSE(choices.empty());
      const int token = choices[random() % choices.size()];
      if (token == tokenizer->eos_id()) break;
      ids.push_back(token);
      constraint.accept(token);
    }
    const std::string text = tokenizer->decode(ids);
    CAPTURE(text);
    REQUIRE(constraint.is_complete());
    const auto value = lmd::json::parse(text, "answer");
    CHECK(value["s"].is_string());
    CHECK(value["n"].is_number());
  }
}
