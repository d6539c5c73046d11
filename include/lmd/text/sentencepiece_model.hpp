/// \file  Reader of SentencePiece's tokenizer.model: the part of protobuf it needs, bounds checked.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/core/error.hpp>
#include <lmd/core/file.hpp>
#include <lmd/core/shown_name.hpp>
#include <lmd/text/piece_table.hpp>

#include <cmath>
#include <cstdint>
#include <cstring>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace lmd::text {

enum class PieceType : std::uint8_t {
  kNormal = 1,
  kUnknown,
  kControl,
  kUserDefined,
  kUnused,
  kByte,
};

/// The content of a tokenizer.model with a BPE model. A piece's id is its index.
struct SentencePieceModel {
  std::string where;             ///< the file, for errors
  detail::PieceTable pieces;     ///< texts in which U+2581 stands for a space; none is indexed yet
  std::vector<float> scores;     ///< [pieces]  the pair with the highest is merged first
  std::vector<PieceType> types;  ///< [pieces]
  std::string bos_piece = "<s>";
  std::string eos_piece = "</s>";
  bool byte_fallback = false;
  bool add_dummy_prefix = true;
  bool remove_extra_whitespaces = true;
};

namespace detail {

/// One field of a protobuf message.
struct ProtoField {
  std::uint32_t number = 0;
  std::uint32_t wire_type = 0;  // 0 varint, 1 eight bytes, 2 length and bytes, 5 four bytes
  std::uint64_t value = 0;      // of wire types 0, 1, 5
  std::string_view bytes;       // of wire type 2
  std::size_t at = 0;           // where the field begins in the file
};

/// Walks the fields of a message without copying. A length never leads outside of the message.
class ProtoReader {
 public:
  /// `bytes` begins at byte `offset` of file `where`; `what` names the message in errors.
  ProtoReader(std::string_view bytes,
              std::size_t offset,
              const std::string& where,
              const char* what)
      : bytes_(bytes), offset_(offset), where_(&where), what_(what) {}

  /// The next field, none at the end. \throws Error(kFormat) naming file, message and byte.
  std::optional<ProtoField> next() {
    if (at_ == bytes_.size()) return std::nullopt;
    ProtoField field;
    field.at = offset_ + at_;
    constexpr std::uint32_t kKey = 0;  // no field has this number
    const std::uint64_t key = varint(kKey);
    if (key >> 3 == 0 || key >> 32 != 0)
      fail(field.at, "no field has the key " + std::to_string(key));
    field.number = static_cast<std::uint32_t>(key >> 3);
    field.wire_type = key & 7;
    if (field.wire_type == 0) {
      field.value = varint(field.number);
    } else if (field.wire_type == 1) {
      field.value = fixed(8, field.number);
    } else if (field.wire_type == 2) {
      field.bytes = take(varint(field.number), field.number);
    } else if (field.wire_type == 5) {
      field.value = fixed(4, field.number);
    } else {
      fail(field.at, name_of(field.number) + " has wire type " + std::to_string(field.wire_type) +
                         ", expected 0, 1, 2 or 5");
    }
    return field;
  }

  /// \throws Error(kFormat) unless the field has the wire type that its meaning demands.
  void expect_type(const ProtoField& field, std::uint32_t wire_type) const {
    if (field.wire_type == wire_type) return;
    fail(field.at, name_of(field.number) + " has wire type " + std::to_string(field.wire_type) +
                       ", expected " + std::to_string(wire_type));
  }

  /// A reader of the message that `field` holds.
  [[nodiscard]] ProtoReader message(const ProtoField& field, const char* what) const {
    expect_type(field, 2);
    const auto begin = static_cast<std::size_t>(field.bytes.data() - bytes_.data());
    return {field.bytes, offset_ + begin, *where_, what};
  }

  /// Refuses the file because of what is at byte `at`.
  [[noreturn]] void fail(std::size_t at, const std::string& problem) const {
    throw Error(ErrorCode::kFormat,
                *where_ + ": byte " + std::to_string(at) + ": " + what_ + ": " + problem);
  }

 private:
  static std::string name_of(std::uint32_t field) {
    return field == 0 ? "a field key" : "field " + std::to_string(field);
  }

  std::string_view take(std::uint64_t n, std::uint32_t field) {
    const std::size_t left = bytes_.size() - at_;
    if (n > left) {
      fail(offset_ + at_, name_of(field) + " wants " + std::to_string(n) + " bytes, " +
                              std::to_string(left) + " are left");
    }
    const std::string_view taken = bytes_.substr(at_, static_cast<std::size_t>(n));
    at_ += taken.size();
    return taken;
  }

  std::uint64_t varint(std::uint32_t field) {
    constexpr int kMaxBytes = 10;  // of a 64-bit value in groups of 7 bits
    const std::size_t begin = offset_ + at_;
    std::uint64_t value = 0;
    for (int i = 0; i < kMaxBytes && at_ < bytes_.size(); ++i) {
      const auto byte = static_cast<std::uint8_t>(bytes_[at_++]);
      value |= std::uint64_t{byte & 0x7Fu} << (7 * i);
      if (byte < 0x80) return value;
    }
    fail(begin, name_of(field) + " has a number that does not end");
  }

  std::uint64_t fixed(std::size_t n, std::uint32_t field) {
    std::uint64_t value = 0;
    const std::string_view bytes = take(n, field);
    for (std::size_t i = 0; i < n; ++i) {
      value |= std::uint64_t{static_cast<std::uint8_t>(bytes[i])} << (8 * i);
    }
    return value;
  }

  std::string_view bytes_;
  std::size_t at_ = 0;
  std::size_t offset_;
  const std::string* where_;
  const char* what_;
};

inline void read_piece(ProtoReader reader, SentencePieceModel& model) {
  std::string_view text;
  float score = 0;
  std::uint64_t type = 1;
  std::size_t at = 0;
  while (const auto field = reader.next()) {
    at = field->at;
    if (field->number == 1) {
      reader.expect_type(*field, 2);
      text = field->bytes;
    } else if (field->number == 2) {
      reader.expect_type(*field, 5);
      const auto bits = static_cast<std::uint32_t>(field->value);
      std::memcpy(&score, &bits, sizeof score);
      if (!std::isfinite(score)) reader.fail(at, "field 2: the score is not a finite number");
    } else if (field->number == 3) {
      reader.expect_type(*field, 0);
      type = field->value;
      if (type < 1 || type > 6) {
        reader.fail(at, "field 3: the type is " + std::to_string(type) + ", expected 1 to 6");
      }
    }
  }
  if (text.empty()) reader.fail(at, "field 1: the piece has no text");
  model.pieces.add(text);
  model.scores.push_back(score);
  model.types.push_back(static_cast<PieceType>(type));
}

inline void read_trainer_spec(ProtoReader reader, SentencePieceModel& model) {
  std::uint64_t model_type = 1;
  while (const auto field = reader.next()) {
    if (field->number == 3) {
      reader.expect_type(*field, 0);
      model_type = field->value;
    } else if (field->number == 24) {
      reader.expect_type(*field, 0);
      if (field->value != 0) {
        reader.fail(field->at, "treat_whitespace_as_suffix is true, only false is supported");
      }
    } else if (field->number == 35) {
      reader.expect_type(*field, 0);
      model.byte_fallback = field->value != 0;
    } else if (field->number == 46 || field->number == 47) {
      reader.expect_type(*field, 2);
      (field->number == 46 ? model.bos_piece : model.eos_piece) = field->bytes;
    }
  }
  constexpr const char* kNames[] = {"unknown", "unigram", "bpe", "word", "char"};
  LMD_REQUIRE(model_type == 2, ErrorCode::kFormat,
              model.where + ": model type is " + kNames[model_type < 5 ? model_type : 0] + " (" +
                  std::to_string(model_type) + "), only bpe (2) is supported");
}

inline void read_normalizer_spec(ProtoReader reader, SentencePieceModel& model) {
  std::string name = "without a name";
  while (const auto field = reader.next()) {
    if (field->number == 1) {
      reader.expect_type(*field, 2);
      name = field->bytes;
    } else if (field->number == 2) {
      reader.expect_type(*field, 2);
      if (!field->bytes.empty()) {
        reader.fail(field->at,
                    "normalizer " + shown_name(name) + " is not supported, only identity is");
      }
    } else if (field->number == 3) {
      reader.expect_type(*field, 0);
      model.add_dummy_prefix = field->value != 0;
    } else if (field->number == 4) {
      reader.expect_type(*field, 0);
      model.remove_extra_whitespaces = field->value != 0;
    } else if (field->number == 5) {
      reader.expect_type(*field, 0);
      if (field->value == 0) {
        reader.fail(field->at, "escape_whitespaces is false, only true is supported");
      }
    }
  }
}

inline void read_denormalizer_spec(ProtoReader reader) {
  while (const auto field = reader.next()) {
    if (field->number == 2 && !field->bytes.empty()) {
      reader.fail(field->at, "a denormalizer is not supported");
    }
  }
}

}  // namespace detail

/// Reads the bytes of a tokenizer.model. Memory is proportional to them whatever they claim.
/// \throws Error(kFormat) naming `where` and the byte when the bytes are damaged, or when the model
///         is not BPE or normalises text.
/// Source:  sentencepiece_model.proto of google/sentencepiece (field numbers)
[[nodiscard]] inline SentencePieceModel parse_sentencepiece_model(std::string_view bytes,
                                                                  const std::string& where) {
  SentencePieceModel model;
  model.where = where;
  bool has_trainer_spec = false;
  detail::ProtoReader reader(bytes, 0, model.where, "model");
  while (const auto field = reader.next()) {
    if (field->number == 1) {
      detail::read_piece(reader.message(*field, "piece"), model);
    } else if (field->number == 2) {
      detail::read_trainer_spec(reader.message(*field, "trainer_spec"), model);
      has_trainer_spec = true;
    } else if (field->number == 3) {
      detail::read_normalizer_spec(reader.message(*field, "normalizer_spec"), model);
    } else if (field->number == 5) {
      detail::read_denormalizer_spec(reader.message(*field, "denormalizer_spec"));
    }
  }
  LMD_REQUIRE(model.pieces.size() > 0 && has_trainer_spec, ErrorCode::kFormat,
              where + ": byte " + std::to_string(bytes.size()) + ": ends with " +
                  std::to_string(model.pieces.size()) + " pieces and " +
                  (has_trainer_spec ? "a" : "no") +
                  " trainer_spec (field 2), expected a SentencePiece model");
  return model;
}

/// \throws Error(kIo), Error(kFormat).
[[nodiscard]] inline SentencePieceModel read_sentencepiece_model(const std::string& path) {
  constexpr std::int64_t kMaxFileBytes = 64 << 20;  // 15 times the largest known (256 Ki pieces)
  return parse_sentencepiece_model(read_text_file(path, kMaxFileBytes), path);
}

}  // namespace lmd::text
