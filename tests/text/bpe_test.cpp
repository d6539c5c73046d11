/// \file  Where texts are cut, and byte-level merging with small vocabularies made by hand.
// SPDX-License-Identifier: Apache-2.0
#include <lmd/text/bpe.hpp>

#include <utility>

#include "text_support.hpp"

using namespace lmd::text;
using namespace text_support;

namespace {

using Parts = std::vector<std::string>;

Parts parts(PreTokenizer kind, std::string_view text) {
  Parts out;
  pre_tokenize(kind, text, [&](std::string_view part) { out.emplace_back(part); });
  return out;
}

/// A model of the given tokens in order of id and merges of their ids in order of rank.
BpeModel model_of(const std::vector<std::string>& tokens,
                  const std::vector<std::array<int, 3>>& merges) {
  BpeModel model;
  model.where = "m";
  for (const std::string& token : tokens) {
    model.tokens.add(token);
    model.tokens.index(model.tokens.size() - 1);
  }
  model.merges = detail::MergeTable(merges.size());
  int rank = 0;
  for (const auto& [left, right, merged] : merges)
    model.merges.add({left, right, rank++, merged});
  return model;
}

}  // namespace

TEST_CASE("GPT-2's pattern") {
  const auto gpt2 = [](std::string_view text) { return parts(PreTokenizer::kGpt2, text); };
  CHECK(gpt2("").empty());
  CHECK(gpt2("The cat's 123 ok!") == Parts{"The", " cat", "'s", " 123", " ok", "!"});
  CHECK(gpt2("I'LL") == Parts{"I", "'", "LL"});
  CHECK(gpt2("a   b") == Parts{"a", "  ", " b"});
  CHECK(gpt2("a  ") == Parts{"a", "  "});
  CHECK(gpt2("a\n\nb") == Parts{"a", "\n", "\n", "b"});
  CHECK(gpt2("a\n b") == Parts{"a", "\n", " b"});
  CHECK(gpt2("été²x") == Parts{"été", "²", "x"});
  CHECK(gpt2("世界、你好") == Parts{"世界", "、", "你好"});
  CHECK(gpt2("a\u3000 b") == Parts{"a", "\u3000", " b"});
  CHECK(gpt2("e\u0301") == Parts{"e", "\u0301"});
  CHECK(gpt2(" ") == Parts{" "});
  CHECK(gpt2("'") == Parts{"'"});
}

TEST_CASE("every digit alone, and the end of a part is the end of the text") {
  const auto digits = [](std::string_view text) { return parts(PreTokenizer::kDigitsGpt2, text); };
  CHECK(digits("number 1 then 234") == Parts{"number", " ", "1", " then", " ", "2", "3", "4"});
  CHECK(digits("a  1") == Parts{"a", "  ", "1"});
  CHECK(digits("Ⅷ½٣") == Parts{"Ⅷ", "½", "٣"});
}

TEST_CASE("Qwen2's and Llama 3's patterns") {
  const auto qwen2 = [](std::string_view text) { return parts(PreTokenizer::kQwen2, text); };
  CHECK(qwen2("I'LL don'\u017F") == Parts{"I", "'LL", " don", "'\u017F"});
  CHECK(qwen2("a 123") == Parts{"a", " ", "1", "2", "3"});
  CHECK(qwen2("(abc) \tdef") == Parts{"(abc", ")", " ", "\tdef"});
  CHECK(qwen2("x!!\r\n\n y") == Parts{"x", "!!\r\n\n", " y"});
  CHECK(qwen2("x \n \n  y") == Parts{"x", " \n \n", " ", " y"});
  CHECK(qwen2("\ny") == Parts{"\n", "y"});
  CHECK(qwen2(" !") == Parts{" !"});
  CHECK(qwen2("  ") == Parts{"  "});
  CHECK(parts(PreTokenizer::kLlama3, "1234567 8") == Parts{"123", "456", "7", " ", "8"});
}

TEST_CASE("the lowest rank is merged first, then the leftmost") {
  const BpeTokenizer tokenizer(
      model_of({"a", "b", "c", "ab", "bc", "aa"}, {{1, 2, 4}, {0, 1, 3}, {0, 0, 5}}), {});
  CHECK(tokenizer.encode("abc") == std::vector{0, 4});
  CHECK(tokenizer.encode("aaa") == std::vector{5, 0});
}

TEST_CASE("bytes without a token are dropped, and their neighbours meet") {
  const BpeTokenizer tokenizer(model_of({"a", "b", "ab"}, {{0, 1, 2}}), {});
  CHECK(tokenizer.encode("ab") == std::vector{2});
  CHECK(tokenizer.encode("acb") == std::vector{2});
  CHECK(tokenizer.encode("xyz").empty());
  BpeModel with_unk = model_of({"a", "b", "ab", "?"}, {{0, 1, 2}});
  with_unk.unk_id = 3;
  CHECK(BpeTokenizer(std::move(with_unk), {}).encode("axxa") == std::vector{0, 3, 3, 0});
}

TEST_CASE("whole parts in the vocabulary may bypass the merges") {
  BpeModel model = model_of({"a", "b", "ab"}, {});
  CHECK(BpeTokenizer(model, {}).encode("ab") == std::vector{0, 1});
  model.ignores_merges = true;
  CHECK(BpeTokenizer(model, {}).encode("ab") == std::vector{2});
}

TEST_CASE("a million bytes in one part take n log n time") {
  const BpeTokenizer tokenizer(model_of({"a", "aa", "aaaa"}, {{0, 0, 1}, {1, 1, 2}}), {});
  const double before = cpu_seconds();
  CHECK(tokenizer.encode(std::string(1000000, 'a')) == std::vector<int>(250000, 2));
  CHECK(cpu_seconds() - before < kMaxSecondsOfMillion);
}

TEST_CASE("a million bytes that each pattern could look at again take linear time") {
  for (const auto kind : {PreTokenizer::kGpt2, PreTokenizer::kDigitsGpt2, PreTokenizer::kQwen2,
                          PreTokenizer::kLlama3}) {
    for (const char* unit : {" ", "\n", " \n", "'", "1", "a ", " !", "  a"}) {
      std::string text;
      while (text.size() < 1000000)
        text += unit;
      std::size_t n = 0;
      const double before = cpu_seconds();
      pre_tokenize(kind, text, [&](std::string_view part) { n += part.size(); });
      CHECK(n == text.size());
      CHECK(cpu_seconds() - before < kMaxSecondsOfMillion);
    }
  }
}

TEST_CASE("tokens read back as bytes") {
  const BpeTokenizer tokenizer(model_of({"Ġa", "Ã", "©", "Ċ", "x y"}, {}), {});
  CHECK(tokenizer.decode(std::vector{0, 1, 2, 3, 4}) == " aé\nx y");
  CHECK(tokenizer.decode(std::vector{1}) == "\uFFFD");
  std::string bytes;
  tokenizer.append_piece(1, true, bytes);
  CHECK(bytes == "\xC3");
  CHECK(tokenizer.piece(0) == "Ġa");
}

TEST_CASE("added tokens: longest first, spaces swallowed, names of strangers not parsed") {
  TokenizerTraits traits;
  traits.added = {{.id = 2, .content = "<a>"},
                  {.id = 3, .content = "<a>b"},
                  {.id = 4, .content = "<r>", .strips_right = true},
                  {.id = 5, .content = "<l>", .strips_left = true},
                  {.id = 6, .content = "<t>", .is_special = false}};
  traits.bos_id = 2;
  const BpeTokenizer tokenizer(model_of({"b", "Ġ"}, {}), traits);
  CHECK(tokenizer.encode("<a>b<a> b") == std::vector{3, 2, 1, 0});
  CHECK(tokenizer.encode("<r>\u3000\n b") == std::vector{4, 0});
  CHECK(tokenizer.encode("b \u2003<l>b") == std::vector{0, 5, 0});
  CHECK(tokenizer.encode("<r> <l>") == std::vector{4, 5});
  CHECK(tokenizer.encode(" \x9E<l>") == std::vector{1, 5});  // what stands between is no space
  CHECK(tokenizer.encode("<a>b", {.parse_special = false}) == std::vector{0});
  CHECK(tokenizer.encode("<t>b", {.parse_special = false}) == std::vector{6, 0});
  CHECK(tokenizer.encode("b", {.add_bos = true}) == std::vector{2, 0});
  CHECK(tokenizer.encode("<a>c", {.add_bos = true}) == std::vector{2});
  CHECK(tokenizer.encode("", {.add_bos = true}) == std::vector{2});
  CHECK_FALSE(tokenizer.adds_bos());
  CHECK(tokenizer.vocab_size() == 7);
  CHECK(tokenizer.decode(std::vector{2, 0, 6}) == "b<t>");
  CHECK(tokenizer.decode(std::vector{2, 0, 6}, false) == "<a>b<t>");
}

TEST_CASE("ill-formed UTF-8 becomes U+FFFD per maximal subpart") {
  const BpeTokenizer tokenizer(model_of({"ï", "¿", "½", "a"}, {}), {});
  CHECK(tokenizer.encode("a\xF0\x9F\x90"
                         "a") == std::vector{3, 0, 1, 2, 3});
  CHECK(tokenizer.encode("\xED\xA0\x80").size() == 9);
}
