/// \file  Names out of files, as they may stand in a message.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <string_view>

namespace lmd {

/// A name out of a file, safe in a one-line message: printable ASCII, at most 80 bytes.
[[nodiscard]] inline std::string shown_name(std::string_view name) {
  std::string text(name.substr(0, 80));
  for (char& c : text)
    if (c < 32 || c > 126) c = '?';
  if (text.empty()) text = "(empty)";
  if (name.size() > text.size() && name.size() > 80) text.replace(77, 3, "...");
  return text;
}

}  // namespace lmd
