/// \file  The tokenizer inside a GGUF file -> the files of a Hugging Face folder.
// SPDX-License-Identifier: Apache-2.0
#include "gguf_tokenizer.hpp"

#include <lmd/core/file.hpp>
#include <lmd/json/json.hpp>
#include <lmd/text/tokenizer_json_writer.hpp>

#include <string>
#include <string_view>
#include <vector>

namespace lmd::apps {

namespace {

using text::PreTokenizer;

/// What a name under tokenizer.ggml.pre stands for.
struct PreName {
  std::string_view name;
  PreTokenizer kind;
};

constexpr PreName kPreNames[] = {
    {"gpt-2", PreTokenizer::kGpt2},        {"gpt2", PreTokenizer::kGpt2},
    {"smollm", PreTokenizer::kDigitsGpt2}, {"starcoder", PreTokenizer::kDigitsGpt2},
    {"refact", PreTokenizer::kDigitsGpt2}, {"qwen2", PreTokenizer::kQwen2},
    {"llama-bpe", PreTokenizer::kLlama3},  {"llama3", PreTokenizer::kLlama3},
    {"llama-v3", PreTokenizer::kLlama3},
};

PreTokenizer pre_tokenizer_named(const std::string& name) {
  std::string known;
  for (const PreName& each : kPreNames) {
    if (each.name == name) return each.kind;
    known += ' ' + std::string(each.name);
  }
  throw Error(ErrorCode::kConfig, "tokenizer.ggml.pre '" + name.substr(0, 60) +
                                      "' is not supported; supported:" + known);
}

constexpr std::int64_t kControl = 3;      // of GGUF's token types
constexpr std::int64_t kUserDefined = 4;  // matched whole, and shown

std::vector<int> ids_of_type(const model::GgufTokenizer& tokenizer, std::int64_t type) {
  std::vector<int> ids;
  for (std::size_t id = 0; id < tokenizer.types.size(); ++id) {
    if (tokenizer.types[id] == type) ids.push_back(static_cast<int>(id));
  }
  return ids;
}

json::Json added_token(const std::string& content, bool is_special) {
  return {{"content", content}, {"lstrip", false},      {"normalized", false},
          {"rstrip", false},    {"single_word", false}, {"special", is_special}};
}

/// {"bos_token": ..., ...}: the names of those that the file has.
json::Json named_tokens(const model::GgufTokenizer& tokenizer) {
  json::Json names = json::Json::object();
  const auto put = [&](const char* key, int id) {
    if (id >= 0) names[key] = tokenizer.tokens[static_cast<std::size_t>(id)];
  };
  put("bos_token", tokenizer.bos_id);
  put("eos_token", tokenizer.eos_id);
  put("pad_token", tokenizer.pad_id);
  put("unk_token", tokenizer.unk_id);
  return names;
}

json::Json config_of(const model::GgufTokenizer& tokenizer, bool adds_bos) {
  json::Json config = named_tokens(tokenizer);
  config["tokenizer_class"] = "PreTrainedTokenizerFast";
  config["add_bos_token"] = adds_bos;
  config["add_prefix_space"] = false;
  config["clean_up_tokenization_spaces"] = false;
  json::Json added = json::Json::object();
  for (const std::int64_t type : {kControl, kUserDefined}) {
    for (const int id : ids_of_type(tokenizer, type)) {
      const std::string& content = tokenizer.tokens[static_cast<std::size_t>(id)];
      added[std::to_string(id)] = added_token(content, type == kControl);
    }
  }
  config["added_tokens_decoder"] = std::move(added);
  if (!tokenizer.chat_template.empty()) config["chat_template"] = tokenizer.chat_template;
  return config;
}

void write_json(const std::string& path, const json::Json& value) {
  NewFile file(path);
  file.write(value.dump(2, ' ', false, json::Json::error_handler_t::replace) + '\n');
  file.commit();
}

}  // namespace

void write_gguf_tokenizer(const model::GgufTokenizer& tokenizer, const std::string& folder) {
  LMD_REQUIRE(tokenizer.model == "gpt2", ErrorCode::kConfig,
              "tokenizer.ggml.model '" + tokenizer.model +
                  "': SentencePiece vocabularies cannot be converted from GGUF; convert from the "
                  "original folder, which has tokenizer.model");
  const PreTokenizer kind = pre_tokenizer_named(tokenizer.pre);
  const bool is_llama3 = kind == PreTokenizer::kLlama3;
  // Files of Llama 3 may be silent about BOS, and mean it.
  const bool adds_bos = tokenizer.add_bos.value_or(is_llama3) && tokenizer.bos_id >= 0;
  const std::vector<int> special_ids = ids_of_type(tokenizer, kControl);
  text::write_tokenizer_json(folder + "/tokenizer.json",
                             {.tokens = tokenizer.tokens,
                              .merges = tokenizer.merges,
                              .special_ids = special_ids,
                              .pre_tokenizer = kind,
                              .is_nfc = kind == PreTokenizer::kQwen2,
                              .ignores_merges = is_llama3,
                              .bos_id = adds_bos ? tokenizer.bos_id : -1});
  write_json(folder + "/tokenizer_config.json", config_of(tokenizer, adds_bos));
  write_json(folder + "/special_tokens_map.json", named_tokens(tokenizer));
}

}  // namespace lmd::apps
