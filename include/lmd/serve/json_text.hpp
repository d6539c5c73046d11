/// \file  JSON written by appending: what the server says often does not need a tree of values.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/text/utf8.hpp>

#include <string>
#include <string_view>

namespace lmd::serve {

/// Appends `text` between quotes, on one line. Quotes, backslashes, control characters and U+2028,
/// U+2029 (line ends to JavaScript) are escaped; bytes that are no UTF-8 become U+FFFD.
inline void append_json_string(std::string& out, std::string_view text) {
  constexpr const char* kHex = "0123456789abcdef";
  if (!text::detail::is_utf8(text)) {
    append_json_string(out, text::detail::replace_invalid(text));
    return;
  }
  out += '"';
  for (std::size_t i = 0; i < text.size(); ++i) {
    const auto c = static_cast<unsigned char>(text[i]);
    if (c == '"' || c == '\\') {
      out += {'\\', text[i]};
    } else if (c == '\n') {
      out += "\\n";
    } else if (c < 0x20 || c == 0x7F) {
      out += {'\\', 'u', '0', '0', kHex[c >> 4], kHex[c & 15]};
    } else if (text.substr(i, 2) == "\xE2\x80" && i + 2 < text.size() &&
               (text[i + 2] == '\xA8' || text[i + 2] == '\xA9')) {
      out += text[i + 2] == '\xA8' ? "\\u2028" : "\\u2029";
      i += 2;
    } else {
      out += text[i];
    }
  }
  out += '"';
}

[[nodiscard]] inline std::string json_string(std::string_view text) {
  std::string out;
  append_json_string(out, text);
  return out;
}

}  // namespace lmd::serve
