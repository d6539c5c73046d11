/// \file  A tokenizer.json as text: vocabulary and merges go straight into tables, the small rest
///        becomes JSON values.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/core/error.hpp>
#include <lmd/core/file.hpp>
#include <lmd/json/json.hpp>
#include <lmd/text/piece_table.hpp>

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace lmd::text::detail {

/// A tokenizer.json that is valid JSON; its meaning is not checked yet.
struct TokenizerJsonText {
  std::string where;
  json::Json root;                  ///< without model.vocab and model.merges
  PieceTable vocabulary;            ///< in the file's order
  std::vector<int> vocabulary_ids;  ///< [vocabulary]
  PieceTable merge_halves;          ///< [2 * merges]  left and right by turns
};

/// Receives the JSON parser's events. Building 100 thousand JSON values for vocabulary and merges
/// instead takes three times as long (49 Ki tokens: 90 ms against 30 ms on 2 cores).
class TokenizerJsonSax {
 public:
  using Json = json::Json;

  explicit TokenizerJsonSax(TokenizerJsonText& out) : out_(&out) {}

  bool null() { return value(Json()); }
  bool boolean(bool v) { return value(Json(v)); }
  bool number_float(double v, const std::string&) { return value(Json(v)); }
  bool number_integer(std::int64_t v) {
    if (place_ == Place::kVocabulary) refuse_id(std::to_string(v));
    return value(Json(v));
  }
  bool number_unsigned(std::uint64_t v) {
    if (place_ != Place::kVocabulary) return value(Json(v));
    if (v >= std::uint64_t{kMaxPieces}) refuse_id(std::to_string(v));
    out_->vocabulary.add(key_);
    out_->vocabulary_ids.push_back(static_cast<int>(v));
    return true;
  }
  bool string(std::string& v) {
    if (place_ == Place::kMergePair) {
      out_->merge_halves.add(v);
      return true;
    }
    if (place_ != Place::kMerges) return value(Json(std::move(v)));
    const std::size_t space = v.find(' ');
    if (space == std::string::npos)
      refuse("merges: " + json::shown(v) + " has no space between two tokens");
    out_->merge_halves.add(std::string_view(v).substr(0, space));
    out_->merge_halves.add(std::string_view(v).substr(space + 1));
    return true;
  }
  bool binary(std::vector<std::uint8_t>&) { return false; }  // never met in text

  bool key(std::string& k) {
    std::swap(key_, k);
    return true;
  }
  bool start_object(std::size_t) {
    if (is_model_key("vocab")) {
      place_ = Place::kVocabulary;
      return true;
    }
    return open(Json::object());
  }
  bool end_object() { return close(); }
  bool start_array(std::size_t) {
    if (place_ == Place::kMerges) {
      place_ = Place::kMergePair;
      return true;
    }
    if (is_model_key("merges")) {
      place_ = Place::kMerges;
      return true;
    }
    return open(Json::array());
  }
  bool end_array() {
    if (place_ != Place::kMergePair) return close();
    place_ = Place::kMerges;
    if (out_->merge_halves.size() % 2 != 0) refuse("merges: a merge has not two tokens");
    return true;
  }

  template <class ParseError>
  bool parse_error(std::size_t byte, const std::string&, const ParseError&) {
    throw Error(ErrorCode::kFormat,
                out_->where + ": not valid JSON at byte " + std::to_string(byte));
  }

 private:
  enum class Place { kElsewhere, kVocabulary, kMerges, kMergePair };

  [[noreturn]] void refuse(const std::string& problem) const {
    throw Error(ErrorCode::kFormat, out_->where + ": model: " + problem);
  }
  [[noreturn]] void refuse_id(const std::string& id) const {
    refuse("vocab: " + json::shown(key_) + " has the id " + id + ", expected 0 to " +
           std::to_string(kMaxPieces - 1));
  }

  /// Whether the value that now begins is root.model.<name>.
  [[nodiscard]] bool is_model_key(std::string_view name) const {
    return place_ == Place::kElsewhere && open_.size() == 2 && is_in_model_ && key_ == name;
  }

  /// Stores a finished or beginning value; returns where it is.
  Json* place(Json&& v) {
    if (open_.empty()) {
      out_->root = std::move(v);
      return &out_->root;
    }
    Json& parent = *open_.back();
    if (parent.is_array()) {
      parent.push_back(std::move(v));
      return &parent.back();
    }
    return &(parent[key_] = std::move(v));
  }

  bool value(Json&& v) {
    if (place_ == Place::kVocabulary)
      refuse("vocab: " + json::shown(key_) + " is " + json::shown(v));
    if (place_ != Place::kElsewhere) refuse("merges: holds " + json::shown(v));
    place(std::move(v));
    return true;
  }

  bool open(Json&& v) {
    if (place_ != Place::kElsewhere) refuse("vocab or merges: holds an array or object too many");
    if (open_.size() == 1) is_in_model_ = key_ == "model" && v.is_object();
    open_.push_back(place(std::move(v)));
    return true;
  }

  bool close() {
    if (place_ == Place::kElsewhere) {
      open_.pop_back();
    } else {
      place_ = Place::kElsewhere;
    }
    return true;
  }

  TokenizerJsonText* out_;
  std::vector<Json*> open_;  // from the root to the innermost open value; parents do not move
  std::string key_;
  Place place_ = Place::kElsewhere;
  bool is_in_model_ = false;
};

/// \throws Error(kFormat) naming `where` and the byte, when `text` is not JSON.
[[nodiscard]] inline TokenizerJsonText parse_tokenizer_json_text(std::string_view text,
                                                                 const std::string& where) {
  const int depth = json::depth_of(text);
  LMD_REQUIRE(depth <= json::kMaxDepth, ErrorCode::kFormat,
              where + ": nested " + std::to_string(depth) + " deep, at most " +
                  std::to_string(json::kMaxDepth) + " is read");
  TokenizerJsonText out;
  out.where = where;
  TokenizerJsonSax sax(out);
  json::Json::sax_parse(text, &sax);
  return out;
}

/// \throws Error(kIo), Error(kFormat).
[[nodiscard]] inline TokenizerJsonText read_tokenizer_json_text(const std::string& path) {
  constexpr std::int64_t kMaxFileBytes = 100 << 20;  // 6 times the largest known (256 Ki tokens)
  return parse_tokenizer_json_text(read_text_file(path, kMaxFileBytes), path);
}

}  // namespace lmd::text::detail
