/// \file  Token ids as people type them.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/core/error.hpp>

#include <charconv>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace lmd::apps {

/// "1,2 3" -> {1, 2, 3}: numbers between commas or white space.
/// \throws Error(kConfig) naming `where` and the first word that is no id below `vocab_size`.
[[nodiscard]] inline std::vector<int> parse_token_ids(std::string_view text,
                                                      int vocab_size,
                                                      const std::string& where) {
  constexpr std::string_view kBetween = ", \t\r\n";
  std::vector<int> ids;
  for (std::size_t at = text.find_first_not_of(kBetween); at != std::string_view::npos;) {
    const std::size_t end = std::min(text.find_first_of(kBetween, at), text.size());
    const std::string_view word = text.substr(at, end - at);
    int id = -1;
    const auto [stop, error] = std::from_chars(word.data(), word.data() + word.size(), id);
    const bool is_id =
        error == std::errc() && stop == word.data() + word.size() && id >= 0 && id < vocab_size;
    LMD_REQUIRE(is_id, ErrorCode::kConfig,
                where + ": '" + std::string(word.substr(0, 40)) +
                    "' is no token id, expected 0 to " + std::to_string(vocab_size - 1));
    ids.push_back(id);
    at = text.find_first_not_of(kBetween, end);
  }
  return ids;
}

/// "1 2 3"
[[nodiscard]] inline std::string token_ids_text(std::span<const int> ids, const char* between) {
  std::string text;
  for (const int id : ids) {
    if (!text.empty()) text += between;
    text += std::to_string(id);
  }
  return text;
}

}  // namespace lmd::apps
