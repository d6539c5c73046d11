/// \file  tokenizer.json: what is read, what is refused, what is written; folders and their config.
// SPDX-License-Identifier: Apache-2.0
#include <lmd/text/load_tokenizer.hpp>
#include <lmd/text/tokenizer_json_writer.hpp>

#include <random>

#include "text_support.hpp"

using lmd::json::Json;
using namespace lmd::text;
using namespace text_support;

namespace {

const std::vector<std::string> kTokens = {"<bos>", "a", "b", "Ġ", "ab", "\"", "\\", "世"};
const std::vector<std::string> kMerges = {"a b"};
const std::vector<int> kSpecial = {0};

std::string formatted(PreTokenizer kind = PreTokenizer::kGpt2) {
  return format_tokenizer_json(
      {.tokens = kTokens, .merges = kMerges, .special_ids = kSpecial, .pre_tokenizer = kind});
}

TokenizerJson parsed(const std::string& text) {
  return interpret_tokenizer_json(detail::parse_tokenizer_json_text(text, "t"));
}

/// The failure of reading the written file after `change`.
template <class F>
Failure failure_after(F&& change) {
  Json root = Json::parse(formatted());
  change(root);
  return failure_of([&] { (void)parsed(root.dump()); });
}

template <class F>
void refused(const char* part, F&& change) {
  const Failure failure = failure_after(change);
  CAPTURE(failure.message);
  CAPTURE(part);
  CHECK(failure.has_failed);
  CHECK(failure.code == lmd::ErrorCode::kFormat);
  CHECK(contains(failure.message, part));
}

}  // namespace

TEST_CASE("what is written is read back") {
  for (const auto kind : {PreTokenizer::kGpt2, PreTokenizer::kDigitsGpt2, PreTokenizer::kQwen2,
                          PreTokenizer::kLlama3}) {
    const TokenizerJson read = parsed(formatted(kind));
    CHECK(read.model.pre_tokenizer == kind);
    CHECK_FALSE(read.model.is_nfc);
    CHECK(read.traits.bos_id == -1);
    REQUIRE(read.model.tokens.size() == 8);
    for (int id = 0; id < 8; ++id)
      CHECK(read.model.tokens[id] == kTokens[std::size_t(id)]);
    REQUIRE(read.traits.added.size() == 1);
    CHECK(read.traits.added[0].content == "<bos>");
    CHECK(read.traits.added[0].is_special);
    const BpeTokenizer tokenizer(read.model, read.traits);
    CHECK(tokenizer.encode("<bos>ab b\"") == std::vector{0, 4, 3, 2, 5});
  }
  const TokenizerJson other = parsed(format_tokenizer_json({.tokens = kTokens,
                                                            .merges = kMerges,
                                                            .special_ids = kSpecial,
                                                            .is_nfc = true,
                                                            .ignores_merges = true,
                                                            .bos_id = 0}));
  CHECK(other.model.is_nfc);
  CHECK(other.model.ignores_merges);
  CHECK(other.traits.bos_id == 0);
  CHECK(other.traits.adds_bos);
}

TEST_CASE("what cannot be written is refused") {
  const std::vector<std::string> twice = {"a", "b", "a"};
  const std::vector<std::string> broken = {"a", "\xFF"};
  const std::vector<int> far = {2};
  const auto write = [](const TokenizerJsonContent& content) {
    return failure_of([&] { (void)format_tokenizer_json(content); }).message;
  };
  CHECK(contains(write({.tokens = twice, .merges = {}, .special_ids = {}}), "token 2 \"a\""));
  CHECK(contains(write({.tokens = broken, .merges = {}, .special_ids = {}}), "token 1 is not"));
  CHECK(contains(write({.tokens = broken, .merges = {}, .special_ids = far}), "id 2"));
  const std::vector<int> last = {1};
  CHECK(contains(write({.tokens = broken, .merges = {}, .special_ids = last}), "token 1 is not"));
}

TEST_CASE("merges as pairs, ids in any order and with gaps") {
  Json root = Json::parse(formatted());
  root["model"]["merges"] = Json::array({Json::array({"a", "b"})});
  root["model"]["vocab"]["b"] = 20;
  const TokenizerJson read = parsed(root.dump());
  const BpeTokenizer tokenizer(read.model, read.traits);
  CHECK(tokenizer.vocab_size() == 21);
  CHECK(tokenizer.encode("ab b") == std::vector{4, 3, 20});
  CHECK(tokenizer.piece(2).empty());
  CHECK(tokenizer.decode(std::vector{2}).empty());
}

TEST_CASE("what is not supported is refused by name") {
  CHECK_FALSE(failure_after([](Json&) {}).has_failed);
  refused("type Unigram", [](Json& r) { r["model"]["type"] = "Unigram"; });
  refused("normalizer NFKC", [](Json& r) { r["normalizer"] = {{"type", "NFKC"}}; });
  refused("Metaspace", [](Json& r) { r["pre_tokenizer"] = {{"type", "Metaspace"}}; });
  refused("pre_tokenizer null", [](Json& r) { r["pre_tokenizer"] = nullptr; });
  refused("ByteLevel", [](Json& r) { r["pre_tokenizer"]["add_prefix_space"] = true; });
  refused("ByteLevel", [](Json& r) { r["pre_tokenizer"].erase("add_prefix_space"); });
  refused("ByteLevel", [](Json& r) { r["pre_tokenizer"]["use_regex"] = "yes"; });
  refused("decoder WordPiece", [](Json& r) { r["decoder"] = {{"type", "WordPiece"}}; });
  refused("decoder is missing", [](Json& r) { r["decoder"] = nullptr; });
  refused("byte_fallback", [](Json& r) { r["model"]["byte_fallback"] = true; });
  refused("dropout", [](Json& r) { r["model"]["dropout"] = 0.1; });
  refused("end_of_word_suffix", [](Json& r) { r["model"]["end_of_word_suffix"] = "</w>"; });
  refused("unk_token", [](Json& r) { r["model"]["unk_token"] = "<none>"; });
  refused("Bert", [](Json& r) { r["post_processor"] = {{"type", "BertProcessing"}}; });
  refused("single_word", [](Json& r) { r["added_tokens"][0]["single_word"] = true; });
  refused("has id 1", [](Json& r) { r["added_tokens"][0]["id"] = 1; });
  refused("merge 0", [](Json& r) { r["model"]["merges"] = Json::array({"a c"}); });
  refused("no space", [](Json& r) { r["model"]["merges"] = Json::array({"ab"}); });
  refused("two tokens", [](Json& r) { r["model"]["merges"] = Json::array({Json::array({"a"})}); });
  refused("merges: holds 7", [](Json& r) { r["model"]["merges"] = Json::array({7}); });
  refused("too many", [](Json& r) { r["model"]["merges"] = Json::array({Json::object()}); });
  refused("id -1", [](Json& r) { r["model"]["vocab"]["a"] = -1; });
  refused("id 4000000000", [](Json& r) { r["model"]["vocab"]["a"] = 4000000000u; });
  refused("is 1.5", [](Json& r) { r["model"]["vocab"]["a"] = 1.5; });
  refused("id 2", [](Json& r) { r["model"]["vocab"]["a"] = 2; });
  refused("model", [](Json& r) { r.erase("model"); });
  refused("expected an object", [](Json& r) { r = 5; });
}

TEST_CASE("what a file says stays one line of a message") {
  const std::string evil = "a\n\x1b[31m" + std::string(5000, 'b');
  const char* const shown = "\"a\\n\\u001b[31mbbb";
  refused(shown, [&](Json& r) { r["model"]["merges"] = Json::array({evil}); });
  refused(shown, [&](Json& r) { r["model"]["merges"] = Json::array({Json::array({"a", evil})}); });
  refused(shown, [&](Json& r) { r["model"]["vocab"][evil] = -1; });
  refused(shown, [&](Json& r) { r["model"]["vocab"][evil] = true; });
  refused(shown, [&](Json& r) { r["model"]["end_of_word_suffix"] = evil; });
  refused(shown, [&](Json& r) { r["model"]["unk_token"] = evil; });
  refused(shown, [&](Json& r) {
    r["added_tokens"][0]["content"] = evil;
    r["added_tokens"][0]["single_word"] = true;
  });
  refused("a??[31mb", [&](Json& r) { r["model"]["type"] = evil; });
  refused("a??[31mb", [&](Json& r) { r["normalizer"] = {{"type", evil}}; });
  refused("a??[31mb", [&](Json& r) { r["pre_tokenizer"] = {{"type", evil}}; });
  refused("a??[31mb", [&](Json& r) { r["decoder"] = {{"type", evil}}; });
  refused("a??[31mb", [&](Json& r) {
    const Json bos = {{"SpecialToken", {{"id", evil}, {"type_id", 0}}}};
    r["post_processor"] = {{"type", "TemplateProcessing"},
                           {"single", Json::array({bos})},
                           {"special_tokens", Json::object()}};
  });
  const Folder folder;
  folder.write("tokenizer.json", formatted());
  folder.write("tokenizer_config.json", Json{{"added_tokens_decoder", {{evil, 1}}}}.dump());
  CHECK(contains(failure_of([&] { (void)load_tokenizer(folder.path()); }).message, shown));
  folder.write("tokenizer.model", lmd::read_text_file(kGolden + "/llama/tokenizer.model", 1 << 20));
  folder.write("added_tokens.json", Json{{evil, -1}}.dump());
  std::filesystem::remove(folder.path() + "/tokenizer.json");
  std::filesystem::remove(folder.path() + "/tokenizer_config.json");
  CHECK(contains(failure_of([&] { (void)load_tokenizer(folder.path()); }).message, "a??[31mb"));
}

TEST_CASE("hundreds of thousands of added tokens are no work") {
  constexpr int kFirst = 700;  // behind the vocabulary
  constexpr int kTokens = 400'000;
  const Folder folder;
  folder.write("tokenizer.model", lmd::read_text_file(kGolden + "/llama/tokenizer.model", 1 << 20));
  Json added = Json::object();
  for (int i = 0; i < kTokens; ++i)
    added["<" + std::to_string(i) + ">"] = kFirst + i;
  folder.write("added_tokens.json", added.dump());
  const double before = cpu_seconds();
  const auto tokenizer = load_tokenizer(folder.path());
  CHECK(cpu_seconds() - before < kMaxSecondsOfMillion);
  CHECK(tokenizer->vocab_size() == kFirst + kTokens);
}

TEST_CASE("a post-processor may only put one token before the text") {
  const Json text = {{"Sequence", {{"id", "A"}, {"type_id", 0}}}};
  const Json bos = {{"SpecialToken", {{"id", "<bos>"}, {"type_id", 0}}}};
  const auto with_single = [&](const Json& single) {
    return [single](Json& r) {
      r["post_processor"] = {{"type", "TemplateProcessing"},
                             {"single", single},
                             {"special_tokens", {{"<bos>", {{"id", "<bos>"}, {"ids", {0}}}}}}};
    };
  };
  CHECK_FALSE(failure_after(with_single(Json::array({text}))).has_failed);
  CHECK_FALSE(failure_after(with_single(Json::array({bos, text}))).has_failed);
  refused("single", with_single(Json::array({text, bos})));
  refused("single", with_single(Json::array({bos, bos, text})));
}

TEST_CASE("truncated, bit-flipped and deep files are read or refused, never more") {
  const std::string file = lmd::read_text_file(kGolden + "/qwen2/tokenizer.json", 1 << 20);
  for (std::size_t n = 0; n < file.size(); n += 97) {
    CHECK(failure_of([&] { (void)parsed(file.substr(0, n)); }).has_failed);
  }
  std::mt19937 random(5);
  int n_refused = 0;
  for (int i = 0; i < 400; ++i) {
    std::string damaged = file;
    for (int k = 0; k < 1 + i % 3; ++k) {
      damaged[random() % damaged.size()] ^= static_cast<char>(1 << random() % 7);
    }
    const Failure failure = failure_of([&] {
      TokenizerJson read = parsed(damaged);
      const BpeTokenizer tokenizer(std::move(read.model), std::move(read.traits));
      (void)tokenizer.decode(tokenizer.encode("the language model's 12 世界 e\u0301 <|im_start|>"));
    });
    n_refused += failure.has_failed ? 1 : 0;
  }
  CHECK(n_refused > 100);
  CHECK(n_refused < 400);
  const std::string deep =
      "{\"model\": {\"x\": " + std::string(100000, '[') + std::string(100000, ']') + "}}";
  CHECK(contains(failure_of([&] { (void)parsed(deep); }).message, "nested 100002 deep"));
}

TEST_CASE("a folder's config adds names, BOS and the chat template") {
  const Folder folder;
  CHECK(contains(failure_of([&] { (void)load_tokenizer(folder.path()); }).message,
                 "neither tokenizer.json nor tokenizer.model"));
  folder.write("tokenizer.json", formatted());
  folder.write("tokenizer_config.json", R"({
    "bos_token": {"content": "<bos>"}, "eos_token": "ab", "add_bos_token": true,
    "chat_template": [{"name": "tool", "template": "x"}, {"name": "default", "template": "y"}],
    "added_tokens_decoder": {"9": {"content": "<end>", "special": true}}})");
  const auto tokenizer = load_tokenizer(folder.path());
  CHECK(tokenizer->bos_id() == 0);
  CHECK(tokenizer->eos_id() == 4);
  CHECK(tokenizer->adds_bos());
  CHECK(tokenizer->encode("a<end>", {.add_bos = tokenizer->adds_bos()}) == std::vector{0, 1, 9});
  CHECK(read_tokenizer_config(folder.path()).chat_template == "y");
  folder.write("tokenizer_config.json", R"({"added_tokens_decoder": {"x": {"content": "y"}}})");
  CHECK(contains(failure_of([&] { (void)load_tokenizer(folder.path()); }).message, "\"x\" is no"));
}

TEST_CASE("a converted SentencePiece model is read from tokenizer.model") {
  const Folder folder;
  Json root = Json::parse(formatted());
  root["model"]["byte_fallback"] = true;
  folder.write("tokenizer.json", root.dump());
  CHECK(
      contains(failure_of([&] { (void)load_tokenizer(folder.path()); }).message, "byte_fallback"));
  folder.write("tokenizer.model", lmd::read_text_file(kGolden + "/llama/tokenizer.model", 1 << 20));
  folder.write("added_tokens.json", R"({"<img>": 1000})");
  const auto tokenizer = load_tokenizer(folder.path());
  CHECK(tokenizer->id_of("<img>") == 1000);
  CHECK(tokenizer->vocab_size() == 1001);
  CHECK(tokenizer->bos_id() == 1);
  CHECK(tokenizer->adds_bos());
}
