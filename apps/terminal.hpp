/// \file  What may be written to a terminal, and what is known about it.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdlib>
#include <string>
#include <string_view>

#include <sys/ioctl.h>
#include <unistd.h>

namespace lmd::apps {

[[nodiscard]] inline bool is_terminal(int fd) {
  return ::isatty(fd) == 1;
}

/// Columns of the terminal on `fd`; 80 where it does not say.
[[nodiscard]] inline int terminal_width(int fd) {
  constexpr int kUsual = 80;
  winsize size{};
  const bool is_known = ::ioctl(fd, TIOCGWINSZ, &size) == 0 && size.ws_col > 0;
  return is_known ? size.ws_col : kUsual;
}

[[nodiscard]] inline std::string environment(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? std::string() : std::string(value);
}

/// Whether escape codes for colour may go to `fd`: a terminal that knows them, and nobody set
/// NO_COLOR.
[[nodiscard]] inline bool takes_colour(int fd) {
  const std::string term = environment("TERM");
  return is_terminal(fd) && environment("NO_COLOR").empty() && !term.empty() && term != "dumb";
}

/// Escape codes, or empty strings where they are not wanted.
struct Style {
  const char* dim = "";
  const char* bold = "";
  const char* reset = "";
};

[[nodiscard]] inline Style style_for(int fd) {
  if (!takes_colour(fd)) return {};
  return {"\033[2m", "\033[1m", "\033[0m"};
}

/// `text` without control characters but line feed and tab: nothing that a model or a file says can
/// move the cursor, rename the window or answer for the user.
///
/// Removed: U+0000..U+001F, U+007F, and U+0080..U+009F, which are C2 80..9F in UTF-8.
/// \pre `text` is UTF-8 and begins and ends between characters.
[[nodiscard]] inline std::string without_controls(std::string_view text) {
  std::string kept;
  kept.reserve(text.size());
  for (std::size_t i = 0; i < text.size(); ++i) {
    const auto c = static_cast<unsigned char>(text[i]);
    const auto next = i + 1 < text.size() ? static_cast<unsigned char>(text[i + 1]) : 0u;
    if (c == 0xC2 && next >= 0x80 && next <= 0x9F) {
      ++i;
    } else if ((c >= 0x20 && c != 0x7F) || c == '\n' || c == '\t') {
      kept += text[i];
    }
  }
  return kept;
}

}  // namespace lmd::apps
