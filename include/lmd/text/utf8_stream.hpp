/// \file  Text from tokens one at a time, never half a character.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/text/tokenizer.hpp>
#include <lmd/text/utf8.hpp>

#include <string>
#include <string_view>
#include <utility>

namespace lmd::text {

/// Makes valid UTF-8 of a stream of bytes. An incomplete character at the end is held back, at most
/// 3 bytes; each ill-formed maximal subpart becomes U+FFFD. How the bytes are cut into calls does
/// not change the text.
class Utf8Stream {
 public:
  /// The text that is certain now.
  [[nodiscard]] std::string feed(std::string_view bytes) {
    pending_ += bytes;
    std::string text;
    std::size_t at = 0;
    while (at < pending_.size()) {
      const detail::CodePoint c = detail::decode_utf8(pending_, at);
      if (c.is_cut_short) break;
      const auto n = static_cast<std::size_t>(c.n_bytes);
      text += c.is_valid ? std::string_view(pending_).substr(at, n) : detail::kReplacement;
      at += n;
    }
    pending_.erase(0, at);
    return text;
  }

  /// What is left at the end: nothing, or U+FFFD for the character that never became complete.
  [[nodiscard]] std::string flush() {
    const bool is_cut = !pending_.empty();
    pending_.clear();
    return is_cut ? std::string(detail::kReplacement) : std::string();
  }

 private:
  std::string pending_;
};

/// The text of a growing sequence of tokens. All pieces together, with flush(), are
/// `tokenizer.decode(ids, skip_special)`.
/// \pre the tokenizer outlives the object
class TokenStream {
 public:
  TokenStream(const Tokenizer& tokenizer, bool skip_special)
      : tokenizer_(&tokenizer),
        skips_special_(skip_special),
        drops_space_(tokenizer.drops_first_space()) {}

  /// The text that `id` completes; often empty.
  [[nodiscard]] std::string feed(int id) {
    std::string bytes;
    tokenizer_->append_piece(id, skips_special_, bytes);
    if (bytes.empty()) return bytes;
    if (std::exchange(drops_space_, false) && bytes.front() == ' ') bytes.erase(0, 1);
    return utf8_.feed(bytes);
  }

  [[nodiscard]] std::string flush() { return utf8_.flush(); }

 private:
  const Tokenizer* tokenizer_;
  bool skips_special_;
  bool drops_space_;  // until the first byte came
  Utf8Stream utf8_;
};

}  // namespace lmd::text
