/// \file  Hugging Face tokenizer.json with a byte-level BPE model: writing.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/core/error.hpp>
#include <lmd/core/file.hpp>
#include <lmd/json/json.hpp>
#include <lmd/text/pre_tokenizer.hpp>
#include <lmd/text/utf8.hpp>

#include <span>
#include <string>
#include <string_view>
#include <unordered_set>
#include <utility>

namespace lmd::text {

/// What a tokenizer.json is made of, as GGUF files hold it.
struct TokenizerJsonContent {
  std::span<const std::string> tokens;  ///< by id, spelled in the byte alphabet
  std::span<const std::string> merges;  ///< by rank: left, a space, right
  std::span<const int> special_ids;     ///< tokens that are matched whole and skipped in decoding
  PreTokenizer pre_tokenizer = PreTokenizer::kGpt2;
  bool is_nfc = false;
  bool ignores_merges = false;
  int bos_id = -1;  ///< put before every text by the post-processor; -1: nothing is
};

namespace detail {

[[nodiscard]] inline json::Json byte_level_json(bool uses_regex) {
  return {{"type", "ByteLevel"},
          {"add_prefix_space", false},
          {"trim_offsets", true},
          {"use_regex", uses_regex}};
}

[[nodiscard]] inline json::Json pre_tokenizer_json(PreTokenizer kind) {
  using json::Json;
  if (kind == PreTokenizer::kGpt2) return byte_level_json(true);
  Json steps = Json::array();
  if (kind == PreTokenizer::kDigitsGpt2) {
    steps.push_back({{"type", "Digits"}, {"individual_digits", true}});
  } else {
    const auto pattern = kind == PreTokenizer::kQwen2 ? kQwen2Pattern : kLlama3Pattern;
    steps.push_back({{"type", "Split"},
                     {"pattern", {{"Regex", pattern}}},
                     {"behavior", "Isolated"},
                     {"invert", false}});
  }
  steps.push_back(byte_level_json(kind == PreTokenizer::kDigitsGpt2));
  return {{"type", "Sequence"}, {"pretokenizers", std::move(steps)}};
}

[[nodiscard]] inline json::Json post_processor_json(const std::string& bos, int bos_id) {
  using json::Json;
  const Json token = {{"SpecialToken", {{"id", bos}, {"type_id", 0}}}};
  const auto text = [](const char* name, int type_id) -> Json {
    return {{"Sequence", {{"id", name}, {"type_id", type_id}}}};
  };
  const Json special = {
      {"id", bos}, {"ids", Json::array({bos_id})}, {"tokens", Json::array({bos})}};
  return {{"type", "TemplateProcessing"},
          {"single", Json::array({token, text("A", 0)})},
          {"pair", Json::array({token, text("A", 0), token, text("B", 1)})},
          {"special_tokens", {{bos, special}}}};
}

/// \throws Error(kFormat) naming token or merge `i` when it is not UTF-8.
[[nodiscard]] inline std::string quoted(std::string_view text, const char* what, std::size_t i) {
  LMD_REQUIRE(is_utf8(text), ErrorCode::kFormat,
              std::string("tokenizer: ") + what + " " + std::to_string(i) + " is not UTF-8");
  return json::Json(text).dump();
}

/// `"vocab": {...}, "merges": [...]`. Written piece by piece: the JSON library would sort the tokens
/// by name.
[[nodiscard]] inline std::string vocabulary_json(const TokenizerJsonContent& content) {
  std::string out = "\"vocab\": {";
  std::unordered_set<std::string_view> seen;
  for (std::size_t id = 0; id < content.tokens.size(); ++id) {
    const std::string& token = content.tokens[id];
    LMD_REQUIRE(seen.insert(token).second, ErrorCode::kFormat,
                "tokenizer: token " + std::to_string(id) + " " + json::shown(token) +
                    " occurs twice, which a tokenizer.json cannot hold");
    out +=
        (id == 0 ? "\n    " : ",\n    ") + quoted(token, "token", id) + ": " + std::to_string(id);
  }
  out += "},\n  \"merges\": [";
  for (std::size_t rank = 0; rank < content.merges.size(); ++rank) {
    out += (rank == 0 ? "\n    " : ",\n    ") + quoted(content.merges[rank], "merge", rank);
  }
  return out + "]";
}

}  // namespace detail

/// The text of a tokenizer.json that this reader and the `tokenizers` package understand alike.
/// \throws Error(kFormat) when a token repeats or is not UTF-8, or an id is no token's.
[[nodiscard]] inline std::string format_tokenizer_json(const TokenizerJsonContent& content) {
  using json::Json;
  const auto token = [&](int id) -> const std::string& {
    LMD_REQUIRE(id >= 0 && id < static_cast<int>(content.tokens.size()), ErrorCode::kFormat,
                "tokenizer: special token id " + std::to_string(id) + ", the vocabulary has " +
                    std::to_string(content.tokens.size()) + " tokens");
    const std::string& text = content.tokens[static_cast<std::size_t>(id)];
    LMD_REQUIRE(detail::is_utf8(text), ErrorCode::kFormat,
                "tokenizer: token " + std::to_string(id) + " is not UTF-8");
    return text;
  };
  Json added = Json::array();
  for (const int id : content.special_ids) {
    added.push_back({{"id", id},
                     {"content", token(id)},
                     {"single_word", false},
                     {"lstrip", false},
                     {"rstrip", false},
                     {"normalized", false},
                     {"special", true}});
  }
  const Json normalizer = content.is_nfc ? Json{{"type", "NFC"}} : Json();
  const Json post = content.bos_id < 0
                        ? Json()
                        : detail::post_processor_json(token(content.bos_id), content.bos_id);
  std::string out = "{\"version\": \"1.0\",\n\"truncation\": null,\n\"padding\": null";
  const auto put = [&](const char* name, const Json& value) {
    out += std::string(",\n\"") + name + "\": " + value.dump();
  };
  put("added_tokens", added);
  put("normalizer", normalizer);
  put("pre_tokenizer", detail::pre_tokenizer_json(content.pre_tokenizer));
  put("post_processor", post);
  put("decoder", detail::byte_level_json(true));
  out +=
      ",\n\"model\": {\"type\": \"BPE\", \"dropout\": null, \"unk_token\": null,\n"
      "  \"continuing_subword_prefix\": null, \"end_of_word_suffix\": null,\n"
      "  \"fuse_unk\": false, \"byte_fallback\": false, \"ignore_merges\": ";
  out += content.ignores_merges ? "true" : "false";
  return out + ",\n  " + detail::vocabulary_json(content) + "}}\n";
}

/// \throws Error(kFormat) as format_tokenizer_json, Error(kIo).
inline void write_tokenizer_json(const std::string& path, const TokenizerJsonContent& content) {
  const std::string text = format_tokenizer_json(content);
  NewFile file(path);
  file.write(text);
  file.commit();
}

}  // namespace lmd::text
