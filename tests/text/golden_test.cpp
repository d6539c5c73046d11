/// \file  Token ids equal those of the reference packages and of the documents of the models.
// SPDX-License-Identifier: Apache-2.0
#include <lmd/text/load_tokenizer.hpp>
#include <lmd/text/sentencepiece_model_writer.hpp>
#include <lmd/text/tokenizer_json_writer.hpp>

#include "text_support.hpp"

using lmd::json::Json;
using lmd::text::load_tokenizer;
using lmd::text::Tokenizer;
using namespace text_support;

namespace {

/// Compares every case of a golden folder; returns how many there were.
int compare_cases(const std::string& name, const Tokenizer& tokenizer, bool parse_special) {
  const Json cases = lmd::json::parse_file(kGolden + "/" + name + "/cases.json");
  for (const Json& entry : cases) {
    const std::string text = from_hex(entry[0].get<std::string>());
    CAPTURE(name);
    CAPTURE(text);
    CHECK(tokenizer.encode(text, {.parse_special = parse_special}) ==
          entry[1].get<std::vector<int>>());
  }
  return static_cast<int>(cases.size());
}

int compare_folder(const std::string& name, bool parse_special) {
  return compare_cases(name, *load_tokenizer(kGolden + "/" + name), parse_special);
}

std::vector<int> ids(const Json& value) {
  return value.get<std::vector<int>>();
}

}  // namespace

TEST_CASE("byte-level BPE agrees with the tokenizers package") {
  for (const char* name : {"gpt2", "digits", "qwen2", "llama3"}) {
    CHECK(compare_folder(name, true) == 150);
  }
}

TEST_CASE("SentencePiece BPE agrees with the sentencepiece package") {
  for (const char* name : {"internlm", "prefix", "llama"})
    CHECK(compare_folder(name, false) == 180);
}

TEST_CASE("a tokenizer.model that was written from its pieces means the same") {
  for (const char* name : {"internlm", "llama"}) {
    const auto model =
        lmd::text::read_sentencepiece_model(kGolden + "/" + name + "/tokenizer.model");
    std::vector<std::string> tokens;
    for (int id = 0; id < model.pieces.size(); ++id)
      tokens.emplace_back(model.pieces[id]);
    REQUIRE_FALSE(model.remove_extra_whitespaces);
    const Folder folder;
    lmd::text::write_sentencepiece_model(folder.path() + "/tokenizer.model",
                                         {.tokens = tokens,
                                          .scores = model.scores,
                                          .types = model.types,
                                          .adds_dummy_prefix = model.add_dummy_prefix,
                                          .bos_id = 1,
                                          .eos_id = 2});
    const auto tokenizer = load_tokenizer(folder.path());
    CHECK(tokenizer->bos_id() == 1);
    CHECK(tokenizer->eos_id() == 2);
    CHECK(compare_cases(name, *tokenizer, false) == 180);
  }
}

TEST_CASE("InternLM2: plain texts") {
  if (!has_shared("models_golden.json") || !has_shared("internlm2-chat-7b")) return;
  const auto tokenizer = load_tokenizer(kShared + "/internlm2-chat-7b");
  const Json golden = lmd::json::parse_file(kShared + "/models_golden.json");
  const Json& cases = golden["internlm2_plain_encode"]["cases"];
  REQUIRE(cases.size() == 197);
  for (const Json& entry : cases) {
    const auto text = entry[0].get<std::string>();
    CAPTURE(text);
    const std::vector<int> found = tokenizer->encode(text, {.parse_special = false});
    CHECK(found == ids(entry[1]));
    if (!contains(text, "▁")) CHECK(tokenizer->decode(found, false) == text);
  }
}

TEST_CASE("InternLM2 and InternVL2: prompts with BOS") {
  if (!has_shared("models_golden.json") || !has_shared("internvl2-2b")) return;
  const auto chat = load_tokenizer(kShared + "/internlm2-chat-7b");
  const auto vision = load_tokenizer(kShared + "/internvl2-2b");
  const Json golden = lmd::json::parse_file(kShared + "/models_golden.json");
  const Json& prompts = golden["internlm2_prompts_with_bos"];
  REQUIRE(prompts.size() >= 4);
  for (const Json& prompt : prompts) {
    const auto text = prompt["text"].get<std::string>();
    CAPTURE(text);
    if (!contains(text, "<img>"))
      CHECK(chat->encode(text, {.add_bos = true}) == ids(prompt["ids"]));
    CHECK(vision->encode(text, {.add_bos = true}) == ids(prompt["ids"]));
    CHECK(vision->encode("<s>" + text, {.add_bos = true}) == ids(prompt["ids"]));
  }
}

TEST_CASE("InternLM2: special tokens and the pieces they replace") {
  if (!has_shared("internlm2-chat-7b")) return;
  const auto tokenizer = load_tokenizer(kShared + "/internlm2-chat-7b");
  CHECK(tokenizer->vocab_size() == 92544);
  CHECK(tokenizer->bos_id() == 1);
  CHECK(tokenizer->eos_id() == 2);
  CHECK(tokenizer->adds_bos());
  CHECK(tokenizer->id_of("<|plugin|>") == 92538);
  CHECK(tokenizer->id_of("<|im_end|>") == 92542);
  CHECK(tokenizer->id_of("<|im_start|>") == 92543);
  CHECK_FALSE(tokenizer->id_of("<|im_middle|>"));
  CHECK(tokenizer->is_special(92543));
  CHECK_FALSE(tokenizer->is_special(364));
  CHECK_FALSE(tokenizer->is_special(-1));
  CHECK(tokenizer->piece(92542) == "<|im_end|>");
  CHECK(tokenizer->piece(22190) == "▁Hello");
  CHECK(tokenizer->piece(354) == std::string(1, '\0'));

  CHECK(tokenizer->encode("<s>", {.parse_special = false}) == std::vector{43618, 330});
  CHECK(tokenizer->encode("<|im_start|>", {.parse_special = false}) ==
        std::vector{333, 352, 449, 5064, 352, 330});
  CHECK(tokenizer->encode("<|im_start|><s>") == std::vector{92543, 1});
  CHECK(tokenizer->encode("[UNUSED_TOKEN_5]") == std::vector{92402});
  // A user's text that spells an overridden piece is no control token, with specials parsed or not.
  for (const bool parse_special : {false, true}) {
    for (const int id : tokenizer->encode("[UNUSED_TOKEN_145]", {.parse_special = parse_special})) {
      CHECK(id < 92352);
    }
  }
  CHECK(tokenizer->decode(std::vector{92543, 9843, 92542}) == "Hello");
  CHECK(tokenizer->decode(std::vector{92543, 9843, 92542}, false) == "<|im_start|>Hello<|im_end|>");
  CHECK(tokenizer->decode(std::vector{243, 162, 147, 140}) == "🐉");
  CHECK(tokenizer->decode(std::vector{243, 162}) == "\uFFFD");
  CHECK(tokenizer->decode(std::vector{-1, 99999999, 22190}) == " Hello");
}

TEST_CASE("InternLM2: a folder with only tokenizer.model knows the chat tokens") {
  if (!has_shared("internlm2-chat-7b")) return;
  const Folder folder;
  folder.write("tokenizer.model",
               lmd::read_text_file(kShared + "/internlm2-chat-7b/tokenizer.model", 1 << 26));
  const auto tokenizer = load_tokenizer(folder.path());
  CHECK(tokenizer->encode("<|im_start|>user\nHello<|im_end|>\n", {.add_bos = true}) ==
        std::vector{1, 92543, 1008, 364, 9843, 92542, 364});
  CHECK(tokenizer->id_of("<|action_start|>") == 92541);
}

TEST_CASE("SmolLM2's way of cutting: digits and the space before them stand alone") {
  const auto tokenizer = load_tokenizer(kGolden + "/digits");
  const auto pieces = [&](std::string_view text) {
    std::vector<std::string> out;
    for (const int id : tokenizer->encode(text))
      out.push_back(tokenizer->piece(id));
    return out;
  };
  CHECK(pieces("the 12") == std::vector<std::string>{"th", "e", "Ġ", "1", "2"});
  CHECK(pieces(" the  the") == std::vector<std::string>{"Ġth", "e", "Ġ", "Ġth", "e"});
}
