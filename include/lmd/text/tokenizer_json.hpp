/// \file  Hugging Face tokenizer.json with a byte-level BPE model: reading.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/core/error.hpp>
#include <lmd/core/file.hpp>
#include <lmd/core/shown_name.hpp>
#include <lmd/json/json.hpp>
#include <lmd/text/bpe.hpp>
#include <lmd/text/tokenizer_json_sax.hpp>

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace lmd::text {

/// What a tokenizer.json says; load_tokenizer may still change the traits.
struct TokenizerJson {
  BpeModel model;
  TokenizerTraits traits;
};

namespace detail {

[[nodiscard]] inline std::string type_of(const json::Json& value) {
  if (value.is_object() && value.contains("type") && value["type"].is_string()) {
    return shown_name(value["type"].get_ref<const std::string&>());
  }
  return json::shown(value);
}

/// Whether the flag `key` of a step is `expected`; the format's default stands for an absent one.
[[nodiscard]] inline bool is_flag(const json::Json& step,
                                  const char* key,
                                  bool by_default,
                                  bool expected) {
  const auto at = step.find(key);
  if (at == step.end() || at->is_null()) return by_default == expected;
  return at->is_boolean() && at->get<bool>() == expected;
}

/// Whether a step of the pre-tokenizer is ByteLevel, without a prefix space, and with GPT-2's
/// pattern or not.
[[nodiscard]] inline bool is_byte_level(const json::Json& step, bool uses_regex) {
  return step.is_object() && type_of(step) == "ByteLevel" &&
         is_flag(step, "add_prefix_space", true, false) &&
         is_flag(step, "use_regex", true, uses_regex);
}

[[nodiscard]] inline bool is_split(const json::Json& step, std::string_view pattern) {
  return step.is_object() && type_of(step) == "Split" && step.contains("pattern") &&
         step["pattern"] == json::Json{{"Regex", pattern}} &&
         is_flag(step, "invert", false, false) && step.contains("behavior") &&
         step["behavior"] == "Isolated";
}

/// \throws Error(kFormat) when the steps are none of the supported ones.
[[nodiscard]] inline PreTokenizer pre_tokenizer_of(const json::Json& root,
                                                   const std::string& where) {
  const json::Json node = root.value("pre_tokenizer", json::Json());
  json::Json steps = json::Json::array({node});
  if (node.is_object() && type_of(node) == "Sequence") {
    steps = json::Object(node, where + ": pre_tokenizer").array("pretokenizers");
  }
  if (steps.size() == 1 && is_byte_level(steps[0], true)) return PreTokenizer::kGpt2;
  if (steps.size() == 2) {
    const bool is_digits = steps[0].is_object() && type_of(steps[0]) == "Digits" &&
                           is_flag(steps[0], "individual_digits", false, true);
    if (is_digits && is_byte_level(steps[1], true)) return PreTokenizer::kDigitsGpt2;
    if (is_byte_level(steps[1], false)) {
      if (is_split(steps[0], kQwen2Pattern)) return PreTokenizer::kQwen2;
      if (is_split(steps[0], kLlama3Pattern)) return PreTokenizer::kLlama3;
    }
  }
  std::string names;
  for (const json::Json& step : steps)
    names += (names.empty() ? "" : ", ") + type_of(step);
  throw Error(
      ErrorCode::kFormat,
      where + ": pre_tokenizer " + names +
          " is not supported; known: ByteLevel | Digits(individual), ByteLevel | "
          "Split(the pattern of Qwen2 or Llama 3), ByteLevel(no regex); without prefix space");
}

/// The id that a TemplateProcessing puts before the text, -1 when it puts none.
/// \throws Error(kFormat) when it does anything else.
[[nodiscard]] inline int bos_of_template(const json::Object& node) {
  int bos_id = -1;
  bool is_text_seen = false;
  for (const json::Json& item : node.array("single")) {
    const bool is_text = item.is_object() && item.contains("Sequence");
    LMD_REQUIRE(!is_text_seen && (is_text || bos_id < 0), ErrorCode::kFormat,
                node.where() + ": single is " + json::shown(node.at("single")) +
                    ", expected at most one token, then the text");
    is_text_seen = is_text;
    if (is_text) continue;
    const std::string name = json::Object(item, node.where()).object("SpecialToken").string("id");
    const json::Object special = node.object("special_tokens").object(name.c_str());
    const json::Json& ids = special.array("ids");
    const bool is_one =
        ids.size() == 1 && ids[0].is_number_integer() && ids[0] >= 0 && ids[0] < kMaxPieces;
    LMD_REQUIRE(is_one, ErrorCode::kFormat,
                special.where() + ": ids is " + json::shown(ids) + ", expected one id");
    bos_id = ids[0].get<int>();
  }
  return bos_id;
}

/// \throws Error(kFormat) for post-processors that would add anything but a BOS token.
[[nodiscard]] inline int bos_of_post_processor(const json::Json& node, const std::string& where) {
  if (node.is_null()) return -1;
  const std::string type = type_of(node);
  if (type == "ByteLevel") return -1;  // trims offsets only
  const json::Object object(node, where + ": post_processor");
  if (type == "TemplateProcessing") return bos_of_template(object);
  LMD_REQUIRE(
      type == "Sequence", ErrorCode::kFormat,
      where + ": post_processor " + type +
          " is not supported; known: null, ByteLevel, TemplateProcessing, Sequence of them");
  int bos_id = -1;
  for (const json::Json& step : object.array("processors")) {
    LMD_REQUIRE(type_of(step) != "Sequence", ErrorCode::kFormat,
                where + ": post_processor: a Sequence in a Sequence is not supported");
    const int id = bos_of_post_processor(step, where);
    if (id >= 0) bos_id = id;
  }
  return bos_id;
}

[[nodiscard]] inline AddedToken added_token_of(const json::Object& node, int id) {
  AddedToken token;
  token.id = id;
  token.content = node.string("content");
  token.is_special = node.boolean_or("special", false);
  token.strips_left = node.boolean_or("lstrip", false);
  token.strips_right = node.boolean_or("rstrip", false);
  token.is_normalized = node.boolean_or("normalized", !token.is_special);
  LMD_REQUIRE(!node.boolean_or("single_word", false), ErrorCode::kFormat,
              node.where() + ": " + json::shown(token.content) +
                  ": single_word is true, only false is supported");
  return token;
}

/// Everything of the model but vocabulary and merges. \throws Error(kFormat) naming what is not
/// supported.
inline void check_model(const json::Object& node) {
  const std::string type = node.string_or("type", "BPE");
  LMD_REQUIRE(type == "BPE", ErrorCode::kFormat,
              node.where() + ": type " + shown_name(type) + " is not supported; known: BPE");
  for (const char* key : {"continuing_subword_prefix", "end_of_word_suffix"}) {
    LMD_REQUIRE(node.string_or(key, "").empty(), ErrorCode::kFormat,
                node.where() + ": " + key + " is " + json::shown(node.at(key)) +
                    ", only null is supported");
  }
  for (const char* key : {"byte_fallback", "fuse_unk"}) {
    LMD_REQUIRE(!node.boolean_or(key, false), ErrorCode::kFormat,
                node.where() + ": " + key + " is true, only false is supported");
  }
  LMD_REQUIRE(node.number_or("dropout", 0, 1, 0) == 0, ErrorCode::kFormat,
              node.where() + ": dropout is " + json::shown(node.at("dropout")) +
                  ", only null is supported");
}

[[nodiscard]] inline bool is_nfc_of(const json::Json& root, const std::string& where) {
  const json::Json node = root.value("normalizer", json::Json());
  LMD_REQUIRE(node.is_null() || type_of(node) == "NFC", ErrorCode::kFormat,
              where + ": normalizer " + type_of(node) + " is not supported; known: null, NFC");
  return !node.is_null();
}

/// Token ids as positions of a table. \throws Error(kFormat) when two tokens have one id.
[[nodiscard]] inline PieceTable tokens_by_id(const TokenizerJsonText& file) {
  std::vector<int> entry_of;  // [largest id + 1]  -1: no token has this id
  for (std::size_t i = 0; i < file.vocabulary_ids.size(); ++i) {
    const auto id = static_cast<std::size_t>(file.vocabulary_ids[i]);
    if (id >= entry_of.size()) entry_of.resize(id + 1, -1);
    LMD_REQUIRE(entry_of[id] < 0, ErrorCode::kFormat,
                file.where + ": model: vocab: two tokens have the id " + std::to_string(id));
    entry_of[id] = static_cast<int>(i);
  }
  PieceTable tokens;
  tokens.reserve(entry_of.size(), file.vocabulary.n_bytes());
  tokens.reserve_index(entry_of.size());
  for (std::size_t id = 0; id < entry_of.size(); ++id) {
    tokens.add(entry_of[id] < 0 ? std::string_view() : file.vocabulary[entry_of[id]]);
    if (entry_of[id] >= 0) tokens.index(static_cast<int>(id));
  }
  return tokens;
}

/// \throws Error(kFormat) when a merge names a token that the vocabulary has not.
[[nodiscard]] inline MergeTable merges_of(const TokenizerJsonText& file, const PieceTable& tokens) {
  const int n = file.merge_halves.size() / 2;
  MergeTable merges(static_cast<std::size_t>(n));
  std::string both;
  for (int rank = 0; rank < n; ++rank) {
    const std::string_view left = file.merge_halves[2 * rank];
    const std::string_view right = file.merge_halves[2 * rank + 1];
    both.assign(left).append(right);
    const MergeTable::Merge merge = {tokens.find(left), tokens.find(right), rank,
                                     tokens.find(both)};
    LMD_REQUIRE(merge.left >= 0 && merge.right >= 0 && merge.merged >= 0, ErrorCode::kFormat,
                file.where + ": model: merge " + std::to_string(rank) + " is " + json::shown(left) +
                    " and " + json::shown(right) +
                    ", expected both and their concatenation in the vocabulary");
    merges.add(merge);
  }
  return merges;
}

}  // namespace detail

/// Turns a read tokenizer.json into a model. \throws Error(kFormat) naming what is not supported.
[[nodiscard]] inline TokenizerJson interpret_tokenizer_json(const detail::TokenizerJsonText& file) {
  using namespace detail;
  const json::Object root(file.root, file.where);
  const json::Object model = root.object("model");
  check_model(model);
  TokenizerJson out;
  out.model.where = file.where;
  out.model.is_nfc = is_nfc_of(file.root, file.where);
  out.model.pre_tokenizer = pre_tokenizer_of(file.root, file.where);
  out.model.ignores_merges = model.boolean_or("ignore_merges", false);
  LMD_REQUIRE(type_of(root.at("decoder")) == "ByteLevel", ErrorCode::kFormat,
              file.where + ": decoder " + type_of(root.at("decoder")) +
                  " is not supported; known: ByteLevel");
  out.model.tokens = tokens_by_id(file);
  out.model.merges = merges_of(file, out.model.tokens);
  if (const std::string unk = model.string_or("unk_token", ""); !unk.empty()) {
    out.model.unk_id = out.model.tokens.find(unk);
    LMD_REQUIRE(out.model.unk_id >= 0, ErrorCode::kFormat,
                model.where() + ": unk_token " + json::shown(unk) + " is not in the vocabulary");
  }
  if (root.has("added_tokens")) {
    for (const json::Json& item : root.array("added_tokens")) {
      const json::Object node(item, file.where + ": added_tokens");
      const auto id = static_cast<int>(node.integer("id", 0, kMaxPieces - 1));
      out.traits.added.push_back(added_token_of(node, id));
      const std::string& content = out.traits.added.back().content;
      const int known = out.model.tokens.find(content);
      LMD_REQUIRE(known < 0 || known == id, ErrorCode::kFormat,
                  node.where() + ": " + json::shown(content) + " has id " + std::to_string(id) +
                      ", the vocabulary gives it " + std::to_string(known));
    }
  }
  out.traits.bos_id =
      bos_of_post_processor(file.root.value("post_processor", json::Json()), file.where);
  out.traits.adds_bos = out.traits.bos_id >= 0;
  return out;
}

/// \throws Error(kIo), Error(kFormat) naming file and key, or file and byte.
[[nodiscard]] inline TokenizerJson read_tokenizer_json(const std::string& path) {
  return interpret_tokenizer_json(detail::read_tokenizer_json_text(path));
}

}  // namespace lmd::text
