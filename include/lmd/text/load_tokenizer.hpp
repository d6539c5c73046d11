/// \file  The tokenizer of a model folder, from whichever files are in it.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/core/error.hpp>
#include <lmd/core/file.hpp>
#include <lmd/core/shown_name.hpp>
#include <lmd/json/json.hpp>
#include <lmd/text/bpe.hpp>
#include <lmd/text/sentencepiece.hpp>
#include <lmd/text/tokenizer.hpp>
#include <lmd/text/tokenizer_json.hpp>

#include <charconv>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

namespace lmd::text {

/// The part of tokenizer_config.json that matters here.
struct TokenizerConfig {
  bool is_present = false;
  std::vector<AddedToken> added;  ///< added_tokens_decoder
  std::optional<bool> add_bos_token;
  std::string bos_token;  ///< empty: not named
  std::string eos_token;
  std::string chat_template;  ///< Jinja text, only to recognise a template by; empty: none
};

namespace detail {

/// A token that may be given as text or as an object with `content`.
[[nodiscard]] inline std::string token_text(const json::Object& node, const char* key) {
  if (!node.has(key)) return {};
  return node.at(key).is_object() ? node.object(key).string("content") : node.string(key);
}

/// `chat_template` is a text, or a list of {name, template} of which "default" counts.
[[nodiscard]] inline std::string chat_template_text(const json::Object& node) {
  if (!node.has("chat_template")) return {};
  if (!node.at("chat_template").is_array()) return node.string("chat_template");
  for (const json::Json& item : node.array("chat_template")) {
    const json::Object choice(item, node.where() + ": chat_template");
    if (choice.string("name") == "default") return choice.string("template");
  }
  return {};
}

/// Each of `added` replaces the token that has its id, or is appended.
inline void put_tokens(const std::vector<AddedToken>& added, std::vector<AddedToken>& tokens) {
  std::unordered_map<int, std::size_t> index_of;  // by id
  for (std::size_t i = 0; i < tokens.size(); ++i)
    index_of.emplace(tokens[i].id, i);
  for (const AddedToken& token : added) {
    const auto [at, is_new] = index_of.emplace(token.id, tokens.size());
    if (is_new) {
      tokens.push_back(token);
    } else {
      tokens[at->second] = token;
    }
  }
}

/// The six names that every InternLM2 chat model gives to the last pieces of its vocabulary, for
/// folders that hold only a tokenizer.model.
[[nodiscard]] inline std::vector<AddedToken> internlm2_tokens(const SentencePieceModel& model) {
  constexpr int kPieces = 92544;
  const bool is_internlm2 =
      model.pieces.size() == kPieces && model.pieces[kPieces - 1] == "[UNUSED_TOKEN_146]";
  if (!is_internlm2) return {};
  constexpr const char* kNames[] = {"<|plugin|>",       "<|interpreter|>", "<|action_end|>",
                                    "<|action_start|>", "<|im_end|>",      "<|im_start|>"};
  std::vector<AddedToken> tokens;
  int id = kPieces - static_cast<int>(std::size(kNames));
  for (const char* name : kNames)
    tokens.push_back({.id = id++, .content = name});
  return tokens;
}

[[nodiscard]] inline int id_named(std::string_view name, const TokenizerTraits& traits) {
  for (const AddedToken& token : traits.added) {
    if (token.content == name) return token.id;
  }
  return -1;
}

/// added_tokens.json: {"name": id}. All of them are special, as `tokenizer.model` knows none.
[[nodiscard]] inline std::vector<AddedToken> read_added_tokens(const std::string& path) {
  const json::Json root = json::parse_file(path);
  const json::Object names(root, path);
  std::vector<AddedToken> added;
  for (const auto& [name, id] : root.items()) {
    const auto value = static_cast<int>(names.integer(name.c_str(), 0, kMaxPieces - 1));
    added.push_back({.id = value, .content = name});
  }
  return added;
}

[[nodiscard]] inline std::unique_ptr<Tokenizer> load_sentencepiece(const std::string& folder,
                                                                   const TokenizerConfig& config) {
  SentencePieceModel model = read_sentencepiece_model(folder + "/tokenizer.model");
  TokenizerTraits traits;
  for (int id = 0; id < model.pieces.size(); ++id) {
    const PieceType type = model.types[static_cast<std::size_t>(id)];
    if (type != PieceType::kControl && type != PieceType::kUnknown) continue;
    traits.added.push_back({.id = id, .content = std::string(model.pieces[id])});
  }
  const std::string added_path = folder + "/added_tokens.json";
  const bool has_added = is_there(added_path);
  if (!has_added && config.added.empty()) {
    for (AddedToken& token : internlm2_tokens(model))
      traits.added.push_back(std::move(token));
  }
  if (has_added) put_tokens(read_added_tokens(added_path), traits.added);
  put_tokens(config.added, traits.added);
  traits.bos_id = id_named(config.bos_token.empty() ? model.bos_piece : config.bos_token, traits);
  traits.eos_id = id_named(config.eos_token.empty() ? model.eos_piece : config.eos_token, traits);
  traits.adds_bos = config.add_bos_token.value_or(true);
  return std::make_unique<SentencePieceTokenizer>(std::move(model), traits);
}

[[nodiscard]] inline std::unique_ptr<Tokenizer> load_bpe(const TokenizerJsonText& file,
                                                         const TokenizerConfig& config) {
  TokenizerJson parsed = interpret_tokenizer_json(file);
  TokenizerTraits& traits = parsed.traits;
  put_tokens(config.added, traits.added);
  const auto id_of = [&](const std::string& name) {
    const int id = id_named(name, traits);
    return id >= 0 || name.empty() ? id : parsed.model.tokens.find(name);
  };
  if (!config.bos_token.empty() && traits.bos_id < 0) traits.bos_id = id_of(config.bos_token);
  traits.eos_id = id_of(config.eos_token);
  traits.adds_bos = config.add_bos_token.value_or(traits.adds_bos);
  return std::make_unique<BpeTokenizer>(std::move(parsed.model), std::move(traits));
}

/// SentencePiece models converted to tokenizer.json spell unknown characters as byte pieces.
[[nodiscard]] inline bool is_converted_sentencepiece(const TokenizerJsonText& file) {
  if (!file.root.is_object() || !file.root.contains("model")) return false;
  const json::Json& model = file.root["model"];
  return model.is_object() && is_flag(model, "byte_fallback", false, true);
}

}  // namespace detail

/// Reads `folder`/tokenizer_config.json; all empty when there is none. \throws Error(kFormat).
[[nodiscard]] inline TokenizerConfig read_tokenizer_config(const std::string& folder) {
  const std::string path = folder + "/tokenizer_config.json";
  TokenizerConfig config;
  if (!is_there(path)) return config;
  const json::Json root = json::parse_file(path);
  const json::Object node(root, path);
  config.is_present = true;
  config.bos_token = detail::token_text(node, "bos_token");
  config.eos_token = detail::token_text(node, "eos_token");
  config.chat_template = detail::chat_template_text(node);
  if (node.has("add_bos_token")) config.add_bos_token = node.boolean("add_bos_token");
  if (!node.has("added_tokens_decoder")) return config;
  const json::Object added = node.object("added_tokens_decoder");
  for (const auto& [key, value] : added.value().items()) {
    int id = -1;
    const auto [end, error] = std::from_chars(key.data(), key.data() + key.size(), id);
    LMD_REQUIRE(error == std::errc() && end == key.data() + key.size() && id >= 0,
                ErrorCode::kFormat, added.where() + ": " + json::shown(key) + " is no token id");
    config.added.push_back(
        detail::added_token_of(json::Object(value, added.where() + ": " + shown_name(key)), id));
  }
  return config;
}

/// The tokenizer of the model in `folder`.
///
/// tokenizer.json is read if it is there and holds a byte-level BPE model, else tokenizer.model.
/// tokenizer_config.json and added_tokens.json add names and say whether prompts begin with BOS.
/// \throws Error(kIo) when there is neither file, Error(kFormat) naming file and cause.
[[nodiscard]] inline std::unique_ptr<Tokenizer> load_tokenizer(const std::string& folder) {
  const std::string json_path = folder + "/tokenizer.json";
  const bool has_model = is_there(folder + "/tokenizer.model");
  const bool has_json = is_there(json_path);
  LMD_REQUIRE(has_model || has_json, ErrorCode::kIo,
              folder + ": has neither tokenizer.json nor tokenizer.model");
  const TokenizerConfig config = read_tokenizer_config(folder);
  if (!has_json) return detail::load_sentencepiece(folder, config);
  const detail::TokenizerJsonText file = detail::read_tokenizer_json_text(json_path);
  if (has_model && detail::is_converted_sentencepiece(file)) {
    return detail::load_sentencepiece(folder, config);
  }
  return detail::load_bpe(file, config);
}

}  // namespace lmd::text
