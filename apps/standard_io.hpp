/// \file  Standard input and output as a whole.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdio>
#include <string>
#include <string_view>

#include "exit_code.hpp"

namespace lmd::apps {

/// Everything up to the end.
[[nodiscard]] inline std::string read_standard_input() {
  std::string text;
  char bytes[1 << 16];
  for (std::size_t n = 0; (n = std::fread(bytes, 1, sizeof bytes, stdin)) > 0;)
    text.append(bytes, n);
  return text;
}

/// A prompt from a pipe: without the line ends at its end.
[[nodiscard]] inline std::string read_prompt() {
  std::string text = read_standard_input();
  while (text.ends_with('\n') || text.ends_with('\r'))
    text.pop_back();
  return text;
}

/// Written through, not kept back. \throws WriteError.
inline void write_standard_output(std::string_view text) {
  const bool is_written =
      std::fwrite(text.data(), 1, text.size(), stdout) == text.size() && std::fflush(stdout) == 0;
  if (!is_written) throw WriteError("standard output cannot be written");
}

}  // namespace lmd::apps
