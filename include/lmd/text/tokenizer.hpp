/// \file  What every tokenizer offers: text to ids and back, special tokens, pieces.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/core/error.hpp>
#include <lmd/core/shown_name.hpp>
#include <lmd/text/byte_trie.hpp>
#include <lmd/text/piece_table.hpp>
#include <lmd/text/unicode.hpp>
#include <lmd/text/utf8.hpp>

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

namespace lmd::text {

/// A string that is one token wherever it stands in a text.
struct AddedToken {
  int id = -1;
  std::string content;
  bool is_special = true;      ///< skipped when decoding, if wanted; not matched in untrusted text
  bool strips_left = false;    ///< swallows white space before it
  bool strips_right = false;   ///< swallows white space after it
  bool is_normalized = false;  ///< looked for after the text is normalised, else before
};

struct EncodeOptions {
  /// false: special tokens in the text are ordinary characters (text of strangers).
  bool parse_special = true;
  /// Put bos_id() in front, unless there is none or the ids already begin with it.
  bool add_bos = false;
};

/// What the model's files say about its tokens beyond the vocabulary.
struct TokenizerTraits {
  std::vector<AddedToken> added;  ///< ids may lie inside or behind the vocabulary
  int bos_id = -1;                ///< -1: none
  int eos_id = -1;                ///< -1: none
  bool adds_bos = false;
};

/// All members are const and use no shared scratch memory: one object serves many threads.
class Tokenizer {
 public:
  virtual ~Tokenizer() = default;
  Tokenizer(const Tokenizer&) = delete;
  Tokenizer& operator=(const Tokenizer&) = delete;

  /// \throws Error(kCapacity) when `text` has 1 GiB or more.
  [[nodiscard]] std::vector<int> encode(std::string_view text, EncodeOptions options = {}) const {
    LMD_REQUIRE(text.size() < kMaxTextBytes, ErrorCode::kCapacity,
                "text to tokenize: " + std::to_string(text.size()) + " bytes, fewer than " +
                    std::to_string(kMaxTextBytes) + " are taken");
    std::vector<int> ids;
    ids.reserve(text.size() / 3 + 1);
    if (options.add_bos && bos_id_ >= 0) ids.push_back(bos_id_);
    split(raw_, text, options.parse_special, ids, [&](std::string_view part) {
      if (normalized_.empty()) return encode_plain(normalized(part), ids);
      const std::string text_form = normalized(part);
      split(normalized_, text_form, options.parse_special, ids,
            [&](std::string_view inner) { encode_plain(inner, ids); });
    });
    const bool is_doubled = options.add_bos && ids.size() > 1 && ids[1] == bos_id_ && bos_id_ >= 0;
    if (is_doubled) ids.erase(ids.begin());
    return ids;
  }

  /// The text of `ids`; what is no UTF-8 becomes U+FFFD.
  [[nodiscard]] std::string decode(std::span<const int> ids, bool skip_special = true) const {
    std::string bytes;
    for (const int id : ids)
      append_piece(id, skip_special, bytes);
    if (drops_first_space() && bytes.starts_with(' ')) bytes.erase(0, 1);
    return detail::is_utf8(bytes) ? bytes : detail::replace_invalid(bytes);
  }

  /// Appends the bytes of one token, which may be a part of a character. Special tokens give their
  /// name or, with `skip_special`, nothing; ids outside the vocabulary give nothing.
  void append_piece(int id, bool skip_special, std::string& bytes) const {
    if (id < 0 || id >= vocab_size()) return;
    const auto at = added_by_id_.find(id);
    if (at == added_by_id_.end()) return append_vocabulary_piece(id, bytes);
    if (!(skip_special && added_[at->second].is_special)) bytes += added_[at->second].content;
  }

  /// The token as the vocabulary spells it (`▁the`, `Ġthe`); empty for unused ids.
  [[nodiscard]] std::string piece(int id) const {
    const auto at = added_by_id_.find(id);
    if (at != added_by_id_.end()) return added_[at->second].content;
    if (id < 0 || id >= vocab_size()) return {};
    return vocabulary_piece(id);
  }

  /// The id of an added or special token by its whole name.
  [[nodiscard]] std::optional<int> id_of(std::string_view special) const {
    for (const AddedToken& token : added_) {
      if (token.content == special) return token.id;
    }
    return std::nullopt;
  }

  [[nodiscard]] bool is_special(int id) const {
    const auto at = added_by_id_.find(id);
    return at != added_by_id_.end() && added_[at->second].is_special;
  }

  /// One more than the largest id. A model's embedding may have more rows.
  [[nodiscard]] int vocab_size() const { return vocab_size_; }
  [[nodiscard]] int bos_id() const { return bos_id_; }  ///< -1: none
  [[nodiscard]] int eos_id() const { return eos_id_; }  ///< -1: none
  [[nodiscard]] bool adds_bos() const {
    return adds_bos_;
  }  ///< prompts of this model begin with BOS
  [[nodiscard]] std::span<const AddedToken> added_tokens() const { return added_; }

  /// Whether the first space of a decoded text belongs to the tokenizer, not to the text.
  [[nodiscard]] virtual bool drops_first_space() const { return false; }

 protected:
  /// \throws Error(kFormat) naming `where` when an added token cannot be used.
  Tokenizer(TokenizerTraits traits, int n_vocabulary, const std::string& where)
      : added_(std::move(traits.added)),
        bos_id_(traits.bos_id),
        eos_id_(traits.eos_id),
        adds_bos_(traits.adds_bos && traits.bos_id >= 0),
        vocab_size_(n_vocabulary) {
    for (std::size_t i = 0; i < added_.size(); ++i) {
      const AddedToken& token = added_[i];
      LMD_REQUIRE(token.id >= 0 && token.id < detail::kMaxPieces && !token.content.empty(),
                  ErrorCode::kFormat,
                  where + ": added token \"" + shown_name(token.content) + "\" has id " +
                      std::to_string(token.id) + ", expected a name and an id from 0 to " +
                      std::to_string(detail::kMaxPieces - 1));
      vocab_size_ = std::max(vocab_size_, token.id + 1);
      added_by_id_[token.id] = i;
      (token.is_normalized ? normalized_ : raw_).add(token.content, static_cast<int>(i));
    }
  }

 private:
  static constexpr std::size_t kMaxTextBytes = std::size_t{1} << 30;

  /// Appends the ids of `text`, which has no added tokens in it.
  virtual void encode_plain(std::string_view text, std::vector<int>& ids) const = 0;
  virtual void append_vocabulary_piece(int id, std::string& bytes) const = 0;
  [[nodiscard]] virtual std::string vocabulary_piece(int id) const = 0;
  /// The form of `text` that normalized added tokens are looked for in, and encode_plain gets.
  [[nodiscard]] virtual std::string normalized(std::string_view text) const {
    return std::string(text);
  }

  /// Appends the tokens of `trie` found in `text`, leftmost first and then longest, and gives what
  /// lies between them to `encode_part`.
  template <class EncodePart>
  void split(const detail::ByteTrie& trie,
             std::string_view text,
             bool parse_special,
             std::vector<int>& ids,
             const EncodePart& encode_part) const {
    std::size_t begin = 0;
    for (std::size_t at = 0; at < text.size() && !trie.empty();) {
      const detail::ByteTrie::Match match = trie.longest(text.substr(at));
      if (match.n_bytes == 0) {
        ++at;
        continue;
      }
      const AddedToken& token = added_[static_cast<std::size_t>(match.value)];
      const std::size_t end = at + match.n_bytes;
      if (token.is_special && !parse_special) {
        at = end;
        continue;
      }
      const std::size_t left = token.strips_left ? spaces_begin(text, begin, at) : at;
      if (left > begin) encode_part(text.substr(begin, left - begin));
      ids.push_back(token.id);
      begin = token.strips_right ? spaces_end(text, end) : end;
      at = begin;
    }
    if (begin < text.size()) encode_part(text.substr(begin));
  }

  /// Where the white space that ends at `end` begins, but not before `from`.
  static std::size_t spaces_begin(std::string_view text, std::size_t from, std::size_t end) {
    const auto is_tail = [&](std::size_t i) { return (text[i] & 0xC0) == 0x80; };
    while (end > from) {
      std::size_t at = end - 1;
      while (at > from && is_tail(at))
        --at;
      const detail::CodePoint c = detail::decode_utf8(text, at);
      const bool is_whole = c.is_valid && at + static_cast<std::size_t>(c.n_bytes) == end;
      if (!is_whole || detail::class_of(c.value) != detail::CharClass::kSpace) break;
      end = at;
    }
    return end;
  }
  static std::size_t spaces_end(std::string_view text, std::size_t at) {
    while (at < text.size()) {
      const detail::CodePoint c = detail::decode_utf8(text, at);
      if (!c.is_valid || detail::class_of(c.value) != detail::CharClass::kSpace) break;
      at += static_cast<std::size_t>(c.n_bytes);
    }
    return at;
  }

  std::vector<AddedToken> added_;
  std::unordered_map<int, std::size_t> added_by_id_;  // id -> index in added_
  detail::ByteTrie raw_;
  detail::ByteTrie normalized_;
  int bos_id_;
  int eos_id_;
  bool adds_bos_;
  int vocab_size_;
};

}  // namespace lmd::text
