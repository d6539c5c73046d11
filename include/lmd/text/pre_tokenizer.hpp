/// \file  Cutting a text into the parts that byte-level BPE merges within.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/text/unicode.hpp>
#include <lmd/text/utf8.hpp>

#include <cstdint>
#include <string_view>

namespace lmd::text {

/// The regular expressions in use, each written by hand as a scanner below.
enum class PreTokenizer : std::uint8_t {
  kGpt2,        ///< kGpt2Pattern
  kDigitsGpt2,  ///< every \p{N} alone, then kGpt2Pattern on what lies between (SmolLM2)
  kQwen2,       ///< kQwen2Pattern
  kLlama3,      ///< kLlama3Pattern
};

inline constexpr std::string_view kGpt2Pattern =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";
inline constexpr std::string_view kQwen2Pattern =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|)"
    R"(\s*[\r\n]+|\s+(?!\S)|\s+)";
inline constexpr std::string_view kLlama3Pattern =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|)"
    R"(\s*[\r\n]+|\s+(?!\S)|\s+)";

namespace detail {

/// Finds where the next match of one of the patterns ends. Looks at each character a bounded number
/// of times, so that a whole text takes linear time.
class PreTokenScanner {
 public:
  /// \pre `text` is UTF-8; ill-formed bytes count as neither letter, number nor white space.
  explicit PreTokenScanner(std::string_view text) : text_(text) {}

  /// One past the last byte of the match of kGpt2Pattern at `at`. \pre at < text.size()
  [[nodiscard]] std::size_t gpt2(std::size_t at) const {
    if (const std::size_t n = contraction(at, false); n > 0) return at + n;
    const bool has_space = text_[at] == ' ';
    const Char c = char_at(has_space ? at + 1 : at);
    if (c.n_bytes > 0 && c.cls != CharClass::kSpace) return run_end(c.end(), c.cls);
    return spaces_end(at);
  }

  /// The same for kQwen2Pattern (`max_digits` 1) and kLlama3Pattern (3).
  [[nodiscard]] std::size_t qwen2(std::size_t at, int max_digits) const {
    if (const std::size_t n = contraction(at, true); n > 0) return at + n;
    const Char c = char_at(at);
    if (c.cls == CharClass::kLetter) return run_end(c.end(), CharClass::kLetter);
    if (c.cls == CharClass::kNumber) return digits_end(at, max_digits);
    const Char next = char_at(c.end());
    if (!is_newline(at) && next.n_bytes > 0 && next.cls == CharClass::kLetter) {
      return run_end(next.end(), CharClass::kLetter);
    }
    const bool has_space = text_[at] == ' ' && next.n_bytes > 0;
    const Char sign = has_space ? next : c;
    if (sign.cls == CharClass::kOther) {
      std::size_t end = run_end(sign.end(), CharClass::kOther);
      while (is_newline(end))
        ++end;
      return end;
    }
    return lines_end(at);
  }

  /// Whether a number begins at `at`; `end` is then set behind it.
  [[nodiscard]] bool is_number(std::size_t at, std::size_t& end) const {
    const Char c = char_at(at);
    end = c.end();
    return c.cls == CharClass::kNumber;
  }

 private:
  struct Char {
    CharClass cls = CharClass::kOther;
    std::size_t at = 0;
    std::size_t n_bytes = 0;  // 0 at the end of the text
    [[nodiscard]] std::size_t end() const { return at + n_bytes; }
  };

  [[nodiscard]] Char char_at(std::size_t at) const {
    if (at >= text_.size()) return {CharClass::kOther, at, 0};
    const auto byte = static_cast<unsigned char>(text_[at]);
    if (byte < 128) return {kAsciiClasses[byte], at, 1};
    const CodePoint c = decode_utf8(text_, at);
    const CharClass cls = c.is_valid ? class_by_search(c.value) : CharClass::kOther;
    return {cls, at, static_cast<std::size_t>(c.n_bytes)};
  }

  [[nodiscard]] bool is_newline(std::size_t at) const {
    return at < text_.size() && (text_[at] == '\n' || text_[at] == '\r');
  }

  [[nodiscard]] std::size_t run_end(std::size_t at, CharClass cls) const {
    Char c = char_at(at);
    while (c.n_bytes > 0 && c.cls == cls)
      c = char_at(c.end());
    return c.at;
  }

  [[nodiscard]] std::size_t digits_end(std::size_t at, int max_digits) const {
    Char c = char_at(at);
    for (int i = 0; i < max_digits && c.n_bytes > 0 && c.cls == CharClass::kNumber; ++i) {
      c = char_at(c.end());
    }
    return c.at;
  }

  /// Bytes of 's 't 're 've 'm 'll 'd at `at`, 0 when none is there.
  [[nodiscard]] std::size_t contraction(std::size_t at, bool ignores_case) const {
    if (text_[at] != '\'') return 0;
    // U+017F, the long s, is another case of s.
    if (ignores_case && text_.substr(at + 1).starts_with("\xC5\xBF")) return 3;
    const auto lower = [&](std::size_t i) -> char {
      if (i >= text_.size()) return '\0';
      const char c = text_[i];
      return ignores_case && c >= 'A' && c <= 'Z' ? static_cast<char>(c + ('a' - 'A')) : c;
    };
    const char first = lower(at + 1);
    const char second = lower(at + 2);
    if (first == 's' || first == 't' || first == 'm' || first == 'd') return 2;
    const bool is_long = (first == 'r' && second == 'e') || (first == 'v' && second == 'e') ||
                         (first == 'l' && second == 'l');
    return is_long ? 3 : 0;
  }

  /// `\s+(?!\S)|\s+`: white space up to the text's end, else all but its last character, which the
  /// next word takes. \pre white space at `at`
  [[nodiscard]] std::size_t spaces_end(std::size_t at) const {
    std::size_t last = at;
    Char c = char_at(at);
    while (c.n_bytes > 0 && c.cls == CharClass::kSpace) {
      last = c.at;
      c = char_at(c.end());
    }
    return c.n_bytes == 0 || last == at ? c.at : last;
  }

  /// `\s*[\r\n]+|\s+(?!\S)|\s+`: white space up to its last newline, if it has one.
  [[nodiscard]] std::size_t lines_end(std::size_t at) const {
    std::size_t after_newline = at;
    for (Char c = char_at(at); c.n_bytes > 0 && c.cls == CharClass::kSpace; c = char_at(c.end())) {
      if (is_newline(c.at)) after_newline = c.end();
    }
    return after_newline > at ? after_newline : spaces_end(at);
  }

  std::string_view text_;
};

}  // namespace detail

/// Calls `emit(part)` for the parts of `text`, in order and without gaps.
/// Oracle:  pre_tokenizers of the package `tokenizers` (tests/text/compare_with_reference.py)
template <class Emit>
void pre_tokenize(PreTokenizer kind, std::string_view text, const Emit& emit) {
  const detail::PreTokenScanner scanner(text);
  if (kind == PreTokenizer::kDigitsGpt2) {
    std::size_t begin =
        0;  // of what lies between two digits; the pattern sees its end as the text's
    for (std::size_t at = 0; at < text.size();) {
      std::size_t end = 0;
      if (scanner.is_number(at, end)) {
        if (at > begin) pre_tokenize(PreTokenizer::kGpt2, text.substr(begin, at - begin), emit);
        emit(text.substr(at, end - at));
        begin = end;
      }
      at = end;
    }
    if (begin < text.size()) pre_tokenize(PreTokenizer::kGpt2, text.substr(begin), emit);
    return;
  }
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t end = kind == PreTokenizer::kGpt2
                                ? scanner.gpt2(at)
                                : scanner.qwen2(at, kind == PreTokenizer::kQwen2 ? 1 : 3);
    emit(text.substr(at, end - at));
    at = end;
  }
}

}  // namespace lmd::text
