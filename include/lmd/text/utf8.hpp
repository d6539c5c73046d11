/// \file  UTF-8: decoding with the ill-formed parts found, and encoding.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace lmd::text::detail {

/// What stands for bytes that are not UTF-8.
inline constexpr std::string_view kReplacement = "\xEF\xBF\xBD";

/// One step through a text.
struct CodePoint {
  std::uint32_t value = 0xFFFD;  ///< U+FFFD when ill-formed
  int n_bytes = 0;               ///< when ill-formed: length of the maximal subpart, at least 1
  bool is_valid = false;
  bool is_cut_short = false;  ///< ill-formed only because the text ends here
};

/// The smallest and largest second byte allowed after `lead` (Unicode table 3-7): they exclude
/// overlong forms, surrogates and what lies above U+10FFFF.
struct SecondByte {
  std::uint8_t min, max;
};
[[nodiscard]] constexpr SecondByte second_byte_of(std::uint8_t lead) {
  if (lead == 0xE0) return {0xA0, 0xBF};
  if (lead == 0xED) return {0x80, 0x9F};
  if (lead == 0xF0) return {0x90, 0xBF};
  if (lead == 0xF4) return {0x80, 0x8F};
  return {0x80, 0xBF};
}

/// Bytes of a character that begins with `lead`; 0 when none does.
[[nodiscard]] constexpr int length_by_lead(std::uint8_t lead) {
  if (lead < 0x80) return 1;
  if (lead >= 0xC2 && lead <= 0xDF) return 2;
  if (lead >= 0xE0 && lead <= 0xEF) return 3;
  if (lead >= 0xF0 && lead <= 0xF4) return 4;
  return 0;
}

/// The code point at `at`. \pre at < text.size()
[[nodiscard]] inline CodePoint decode_utf8(std::string_view text, std::size_t at) {
  const auto byte = [&](std::size_t i) { return static_cast<std::uint8_t>(text[at + i]); };
  const std::uint8_t lead = byte(0);
  if (lead < 0x80) return {lead, 1, true, false};
  const int length = length_by_lead(lead);
  if (length == 0) return {0xFFFD, 1, false, false};
  constexpr std::uint8_t kLeadBits[5] = {0, 0, 0x1F, 0x0F, 0x07};
  std::uint32_t value = lead & kLeadBits[length];
  SecondByte allowed = second_byte_of(lead);
  for (int i = 1; i < length; ++i) {
    if (at + static_cast<std::size_t>(i) >= text.size()) return {0xFFFD, i, false, true};
    const std::uint8_t next = byte(static_cast<std::size_t>(i));
    if (next < allowed.min || next > allowed.max) return {0xFFFD, i, false, false};
    value = value << 6 | (next & 0x3Fu);
    allowed = {0x80, 0xBF};
  }
  return {value, length, true, false};
}

inline void append_utf8(std::uint32_t code_point, std::string& to) {
  const auto put = [&](std::uint32_t byte) { to.push_back(static_cast<char>(byte)); };
  if (code_point < 0x80) {
    put(code_point);
  } else if (code_point < 0x800) {
    put(0xC0 | code_point >> 6);
    put(0x80 | (code_point & 0x3F));
  } else if (code_point < 0x10000) {
    put(0xE0 | code_point >> 12);
    put(0x80 | (code_point >> 6 & 0x3F));
    put(0x80 | (code_point & 0x3F));
  } else {
    put(0xF0 | code_point >> 18);
    put(0x80 | (code_point >> 12 & 0x3F));
    put(0x80 | (code_point >> 6 & 0x3F));
    put(0x80 | (code_point & 0x3F));
  }
}

[[nodiscard]] inline bool is_ascii(std::string_view text) {
  unsigned char bits = 0;
  for (const char c : text)
    bits |= static_cast<unsigned char>(c);
  return bits < 0x80;
}

[[nodiscard]] inline bool is_utf8(std::string_view text) {
  for (std::size_t at = 0; at < text.size();) {
    const CodePoint c = decode_utf8(text, at);
    if (!c.is_valid) return false;
    at += static_cast<std::size_t>(c.n_bytes);
  }
  return true;
}

/// The text with every ill-formed maximal subpart replaced by U+FFFD, as Unicode recommends and
/// Python's errors="replace" does.
[[nodiscard]] inline std::string replace_invalid(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  for (std::size_t at = 0; at < text.size();) {
    const CodePoint c = decode_utf8(text, at);
    const auto n = static_cast<std::size_t>(c.n_bytes);
    out += c.is_valid ? text.substr(at, n) : kReplacement;
    at += n;
  }
  return out;
}

}  // namespace lmd::text::detail
