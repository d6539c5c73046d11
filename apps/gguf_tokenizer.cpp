/// \file  The tokenizer inside a GGUF file -> the files of a Hugging Face folder.
// SPDX-License-Identifier: Apache-2.0
#include "gguf_tokenizer.hpp"

#include <lmd/core/file.hpp>
#include <lmd/json/json.hpp>
#include <lmd/text/sentencepiece_model_writer.hpp>
#include <lmd/text/tokenizer_json_writer.hpp>

#include <initializer_list>
#include <string>
#include <string_view>
#include <utility>
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

// GGUF's token types are those of SentencePiece.
constexpr auto kUnknown = static_cast<std::int64_t>(text::PieceType::kUnknown);
constexpr auto kControl = static_cast<std::int64_t>(text::PieceType::kControl);
constexpr auto kUserDefined = static_cast<std::int64_t>(text::PieceType::kUserDefined);
constexpr auto kByte = static_cast<std::int64_t>(text::PieceType::kByte);

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

/// What tokenizer_config.json says beyond the names.
struct TokenizerClass {
  const char* name;
  bool adds_bos;
  bool adds_prefix_space;
};

json::Json config_of(const model::GgufTokenizer& tokenizer,
                     const TokenizerClass& kind,
                     json::Json added_tokens) {
  json::Json config = named_tokens(tokenizer);
  config["tokenizer_class"] = kind.name;
  config["add_bos_token"] = kind.adds_bos;
  config["add_prefix_space"] = kind.adds_prefix_space;
  config["clean_up_tokenization_spaces"] = false;
  if (!added_tokens.empty()) config["added_tokens_decoder"] = std::move(added_tokens);
  if (!tokenizer.chat_template.empty()) config["chat_template"] = tokenizer.chat_template;
  return config;
}

void write_json(const std::string& path, const json::Json& value) {
  NewFile file(path);
  file.write(value.dump(2, ' ', false, json::Json::error_handler_t::replace) + '\n');
  file.commit();
}

/// {"id": {...}} of all tokens of these types.
json::Json added_tokens_of(const model::GgufTokenizer& tokenizer,
                           std::initializer_list<std::int64_t> types) {
  json::Json added = json::Json::object();
  for (const std::int64_t type : types) {
    for (const int id : ids_of_type(tokenizer, type)) {
      const std::string& content = tokenizer.tokens[static_cast<std::size_t>(id)];
      added[std::to_string(id)] = added_token(content, type == kControl);
    }
  }
  return added;
}

void write_byte_level(const model::GgufTokenizer& tokenizer, const std::string& folder) {
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
  write_json(folder + "/tokenizer_config.json",
             config_of(tokenizer, {"PreTrainedTokenizerFast", adds_bos, false},
                       added_tokens_of(tokenizer, {kControl, kUserDefined})));
}

/// The types as tokenizer.model has them. Some converters call the unknown token a control token.
std::vector<text::PieceType> piece_types(const model::GgufTokenizer& tokenizer) {
  std::vector<text::PieceType> types;
  const bool has_unknown = !ids_of_type(tokenizer, kUnknown).empty();
  for (std::size_t id = 0; id < tokenizer.types.size(); ++id) {
    const std::int64_t type = tokenizer.types[id];
    LMD_REQUIRE(type >= 1 && type <= kByte, ErrorCode::kFormat,
                "tokenizer.ggml.token_type: token " + std::to_string(id) + " has type " +
                    std::to_string(type) + ", expected 1 to 6");
    const bool is_unknown = !has_unknown && static_cast<int>(id) == tokenizer.unk_id;
    types.push_back(is_unknown ? text::PieceType::kUnknown : static_cast<text::PieceType>(type));
  }
  return types;
}

/// Control tokens without a role of their own. User-defined ones are pieces of the model, and stay
/// so: as added tokens they would get a dummy prefix after them.
json::Json added_control_tokens(const model::GgufTokenizer& tokenizer) {
  json::Json added = added_tokens_of(tokenizer, {kControl});
  for (const int id : {tokenizer.bos_id, tokenizer.eos_id, tokenizer.unk_id, tokenizer.pad_id}) {
    if (id >= 0) added.erase(std::to_string(id));
  }
  return added;
}

void write_sentencepiece(const model::GgufTokenizer& tokenizer, const std::string& folder) {
  for (const auto& [key, is_there] : {std::pair{"scores", !tokenizer.scores.empty()},
                                      std::pair{"token_type", !tokenizer.types.empty()}}) {
    LMD_REQUIRE(is_there, ErrorCode::kFormat,
                std::string("tokenizer.ggml.") + key +
                    " is missing, which a SentencePiece vocabulary needs");
  }
  const std::vector<float> scores(tokenizer.scores.begin(), tokenizer.scores.end());
  const std::vector<text::PieceType> types = piece_types(tokenizer);
  // Both are true where files are silent, as for llama.cpp.
  const bool adds_prefix = tokenizer.add_space_prefix.value_or(true);
  const bool adds_bos = tokenizer.add_bos.value_or(true) && tokenizer.bos_id >= 0;
  text::write_sentencepiece_model(folder + "/tokenizer.model", {.tokens = tokenizer.tokens,
                                                                .scores = scores,
                                                                .types = types,
                                                                .adds_dummy_prefix = adds_prefix,
                                                                .bos_id = tokenizer.bos_id,
                                                                .eos_id = tokenizer.eos_id,
                                                                .pad_id = tokenizer.pad_id});
  write_json(folder + "/tokenizer_config.json",
             config_of(tokenizer, {"LlamaTokenizer", adds_bos, adds_prefix},
                       added_control_tokens(tokenizer)));
}

}  // namespace

void write_gguf_tokenizer(const model::GgufTokenizer& tokenizer, const std::string& folder) {
  if (tokenizer.model == "llama") {
    write_sentencepiece(tokenizer, folder);
  } else {
    write_byte_level(tokenizer, folder);
  }
  write_json(folder + "/special_tokens_map.json", named_tokens(tokenizer));
}

}  // namespace lmd::apps
