/// \file  JSON as Python's json.dumps(..., ensure_ascii=False) writes it: models were trained on it.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/core/error.hpp>
#include <lmd/json/json.hpp>

#include <string>
#include <string_view>

namespace lmd::text::detail {

/// A text quoted like Python does it: only quotes, backslashes and control characters escaped.
[[nodiscard]] inline std::string python_string(std::string_view text) {
  return json::Json(text).dump(-1, ' ', false, json::Json::error_handler_t::replace);
}

/// One past the closing quote of the string that begins at `at`. \pre valid JSON
[[nodiscard]] inline std::size_t string_end(std::string_view text, std::size_t at) {
  std::size_t end = at + 1;
  while (text[end] != '"')
    end += text[end] == '\\' ? 2 : 1;
  return end + 1;
}

/// Rewrites a JSON text with `, ` and `: ` and without other white space. The order of keys stays,
/// numbers stay as written.
/// \throws Error(kFormat) naming `where` when it is not JSON.
[[nodiscard]] inline std::string python_json(std::string_view text, const std::string& where) {
  (void)json::parse(text, where);
  std::string out;
  for (std::size_t at = 0; at < text.size();) {
    const char c = text[at];
    if (c == '"') {
      const std::size_t end = string_end(text, at);
      const json::Json value = json::parse(text.substr(at, end - at), where);
      out += python_string(value.get_ref<const std::string&>());
      at = end;
      continue;
    }
    const bool is_space = c == ' ' || c == '\t' || c == '\n' || c == '\r';
    if (!is_space) out += c;
    if (c == ',' || c == ':') out += ' ';
    ++at;
  }
  return out;
}

}  // namespace lmd::text::detail
