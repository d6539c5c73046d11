/// \file  Flags whose value is one integer or several between commas: 1024,8192.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/core/error.hpp>

#include <charconv>
#include <string>
#include <vector>

#include <CLI/CLI.hpp>

namespace lmd::apps {

/// \throws Error(kConfig) naming the flag unless `text` is integers from `min` to `max`, one comma
///         between two.
[[nodiscard]] inline std::vector<int> parse_integers(const std::string& flag,
                                                     const std::string& text,
                                                     int min,
                                                     int max) {
  std::vector<int> values;
  const char* at = text.data();
  const char* const end = at + text.size();
  for (bool goes_on = true; goes_on; ++at) {
    int value = 0;
    const auto [stop, error] = std::from_chars(at, end, value);
    goes_on = stop != end && *stop == ',';
    const bool is_ok =
        error == std::errc() && value >= min && value <= max && (goes_on || stop == end);
    LMD_REQUIRE(is_ok, ErrorCode::kConfig,
                flag + " '" + text + "': must be an integer from " + std::to_string(min) + " to " +
                    std::to_string(max) + ", or several with commas between");
    values.push_back(value);
    at = stop;
  }
  return values;
}

/// The values that `target` has now are shown as the default.
inline CLI::Option* add_integers(CLI::App& app,
                                 const std::string& flag,
                                 std::vector<int>& target,
                                 int min,
                                 int max,
                                 const std::string& help) {
  std::string now;
  for (const int value : target)
    now += (now.empty() ? "" : ",") + std::to_string(value);
  const auto parse = [&target, flag, min, max](const std::string& text) {
    target = parse_integers(flag, text, min, max);
  };
  return app.add_option_function<std::string>(flag, parse, help)
      ->type_name("N[,N...]")
      ->default_str(now);
}

}  // namespace lmd::apps
