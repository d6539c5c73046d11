/// \file  SentencePiece's tokenizer.model: writing. The reader is sentencepiece_model.hpp.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/core/error.hpp>
#include <lmd/core/file.hpp>
#include <lmd/text/sentencepiece.hpp>
#include <lmd/text/sentencepiece_model.hpp>
#include <lmd/text/utf8.hpp>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

namespace lmd::text {

/// What a tokenizer.model with a BPE model is made of, as GGUF files hold it.
struct SentencePieceContent {
  std::span<const std::string> tokens;  ///< [n] by id; U+2581 stands for a space
  std::span<const float> scores;        ///< [n] the pair with the highest is merged first
  std::span<const PieceType> types;     ///< [n] one is kUnknown; of kByte there are 256 or none
  bool adds_dummy_prefix = true;        ///< a space goes before every text
  int bos_id = -1;                      ///< -1: none, as for the following
  int eos_id = -1;
  int pad_id = -1;
};

namespace detail {

/// A protobuf message, field by field.
class ProtoWriter {
 public:
  /// Wire type 0. Negative numbers take ten bytes, as int32 does there.
  ProtoWriter& number(std::uint32_t field, std::int64_t value) {
    varint(std::uint64_t{field} << 3);
    varint(static_cast<std::uint64_t>(value));
    return *this;
  }
  /// Wire type 2.
  ProtoWriter& bytes(std::uint32_t field, std::string_view content) {
    varint(std::uint64_t{field} << 3 | 2);
    varint(content.size());
    bytes_ += content;
    return *this;
  }
  /// Wire type 5.
  ProtoWriter& real(std::uint32_t field, float value) {
    varint(std::uint64_t{field} << 3 | 5);
    const auto bits = std::bit_cast<std::uint32_t>(value);
    for (int shift = 0; shift < 32; shift += 8)
      bytes_.push_back(static_cast<char>(bits >> shift & 0xFFu));
    return *this;
  }
  [[nodiscard]] const std::string& text() const { return bytes_; }

 private:
  void varint(std::uint64_t value) {
    for (; value >= 0x80; value >>= 7)
      bytes_.push_back(static_cast<char>((value & 0x7Fu) | 0x80u));
    bytes_.push_back(static_cast<char>(value));
  }

  std::string bytes_;
};

inline void check_piece(const std::string& token, float score, std::size_t id) {
  const std::string where = "tokenizer: token " + std::to_string(id);
  LMD_REQUIRE(!token.empty(), ErrorCode::kFormat, where + " has no text");
  LMD_REQUIRE(is_utf8(token), ErrorCode::kFormat, where + " is not UTF-8");
  LMD_REQUIRE(std::isfinite(score), ErrorCode::kFormat,
              where + ": the score is " + std::to_string(score) + ", expected a finite number");
}

/// The text of a token that has a role of its own, or what sentencepiece calls it by default.
[[nodiscard]] inline std::string_view role_text(const SentencePieceContent& content,
                                                int id,
                                                std::string_view otherwise) {
  const bool is_there = id >= 0 && id < static_cast<int>(content.tokens.size());
  return is_there ? std::string_view(content.tokens[static_cast<std::size_t>(id)]) : otherwise;
}

[[nodiscard]] inline std::string trainer_spec(const SentencePieceContent& content, bool has_bytes) {
  constexpr int kBpe = 2;
  const auto unknown = std::find(content.types.begin(), content.types.end(), PieceType::kUnknown);
  const int unk_id = static_cast<int>(unknown - content.types.begin());
  return ProtoWriter()
      .number(3, kBpe)
      .number(4, static_cast<std::int64_t>(content.tokens.size()))
      .number(35, has_bytes ? 1 : 0)
      .number(40, unk_id)
      .number(41, content.bos_id)
      .number(42, content.eos_id)
      .number(43, content.pad_id)
      .bytes(45, role_text(content, unk_id, "<unk>"))
      .bytes(46, role_text(content, content.bos_id, "<s>"))
      .bytes(47, role_text(content, content.eos_id, "</s>"))
      .bytes(48, role_text(content, content.pad_id, "<pad>"))
      .text();
}

}  // namespace detail

/// The bytes of a tokenizer.model that this reader and the `sentencepiece` package understand alike:
/// identity normaliser, no white space removed, byte fallback where there are byte tokens.
///
/// Errors:  \throws Error(kFormat) when a token is empty, repeats or is not UTF-8, when a score is
///          not finite, when there is no unknown token or only some of the 256 byte tokens.
/// Source:  sentencepiece_model.proto of google/sentencepiece (field numbers)
[[nodiscard]] inline std::string format_sentencepiece_model(const SentencePieceContent& content) {
  const std::size_t n = content.tokens.size();
  LMD_REQUIRE(content.scores.size() == n && content.types.size() == n, ErrorCode::kFormat,
              "tokenizer: " + std::to_string(n) + " tokens, " +
                  std::to_string(content.scores.size()) + " scores and " +
                  std::to_string(content.types.size()) + " types, expected as many of each");
  detail::ProtoWriter model;
  bool has_bytes = false;
  for (std::size_t id = 0; id < n; ++id) {
    detail::check_piece(content.tokens[id], content.scores[id], id);
    has_bytes = has_bytes || content.types[id] == PieceType::kByte;
    model.bytes(1, detail::ProtoWriter()
                       .bytes(1, content.tokens[id])
                       .real(2, content.scores[id])
                       .number(3, static_cast<std::int64_t>(content.types[id]))
                       .text());
  }
  model.bytes(2, detail::trainer_spec(content, has_bytes));
  model.bytes(3, detail::ProtoWriter()
                     .bytes(1, "identity")
                     .number(3, content.adds_dummy_prefix ? 1 : 0)
                     .number(4, 0)
                     .number(5, 1)
                     .text());
  // What no single token shows (one that repeats, a byte that lacks) is what the reader refuses.
  (void)SentencePieceTokenizer(parse_sentencepiece_model(model.text(), "tokenizer"), {});
  return model.text();
}

/// \throws Error(kFormat) as format_sentencepiece_model, Error(kIo).
inline void write_sentencepiece_model(const std::string& path,
                                      const SentencePieceContent& content) {
  const std::string bytes = format_sentencepiece_model(content);
  NewFile file(path);
  file.write(bytes);
  file.commit();
}

}  // namespace lmd::text
