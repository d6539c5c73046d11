/// \file  Options whose errors say what was given and what would have been right.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/core/error.hpp>

#include <charconv>
#include <cmath>
#include <initializer_list>
#include <limits>
#include <string>
#include <string_view>
#include <vector>

#include <CLI/CLI.hpp>

namespace lmd::apps {

/// \throws Error(kConfig) naming the flag unless `text` is an integer from `min` to `max`.
template <class Integer>
[[nodiscard]] Integer parse_integer(const std::string& flag,
                                    const std::string& text,
                                    Integer min,
                                    Integer max) {
  Integer value{};
  const char* const end = text.data() + text.size();
  const auto [stop, error] = std::from_chars(text.data(), end, value);
  const bool is_ok =
      error == std::errc() && stop == end && !text.empty() && value >= min && value <= max;
  LMD_REQUIRE(is_ok, ErrorCode::kConfig,
              flag + " '" + text + "': must be an integer from " + std::to_string(min) + " to " +
                  std::to_string(max));
  return value;
}

/// "0.8", not "0.80000000000000004"
[[nodiscard]] inline std::string shortest_text(double value) {
  char text[32];
  return {text, std::to_chars(text, text + sizeof text, value).ptr};
}

/// \throws Error(kConfig) naming the flag unless `text` is a number from `min` to `max`.
[[nodiscard]] inline double parse_number(const std::string& flag,
                                         const std::string& text,
                                         double min,
                                         double max) {
  double value = 0.0;
  const char* const end = text.data() + text.size();
  const auto [stop, error] = std::from_chars(text.data(), end, value);
  const bool is_ok = error == std::errc() && stop == end && !text.empty() && std::isfinite(value) &&
                     value >= min && value <= max;
  LMD_REQUIRE(is_ok, ErrorCode::kConfig,
              flag + " '" + text + "': must be a number from " + shortest_text(min) + " to " +
                  shortest_text(max));
  return value;
}

/// \throws Error(kConfig) naming the flag unless `text` is one of `choices`.
inline void require_choice(const std::string& flag,
                           const std::string& text,
                           const std::vector<std::string>& choices) {
  std::string known;
  for (const std::string& choice : choices) {
    if (choice == text) return;
    known += ' ' + choice;
  }
  throw Error(ErrorCode::kConfig, flag + " '" + text + "' is unknown; known:" + known);
}

/// The value that `target` has now is shown as the default.
template <class Integer>
CLI::Option* add_integer(CLI::App& app,
                         const std::string& flag,
                         Integer& target,
                         Integer min,
                         Integer max,
                         const std::string& help) {
  const auto parse = [&target, flag, min, max](const std::string& text) {
    target = parse_integer<Integer>(flag, text, min, max);
  };
  return app.add_option_function<std::string>(flag, parse, help)
      ->type_name("N")
      ->default_str(std::to_string(target));
}

inline CLI::Option* add_number(CLI::App& app,
                               const std::string& flag,
                               double& target,
                               double min,
                               double max,
                               const std::string& help) {
  const auto parse = [&target, flag, min, max](const std::string& text) {
    target = parse_number(flag, text, min, max);
  };
  return app.add_option_function<std::string>(flag, parse, help)
      ->type_name("X")
      ->default_str(shortest_text(target));
}

inline CLI::Option* add_choice(CLI::App& app,
                               const std::string& flag,
                               std::string& target,
                               const std::vector<std::string>& choices,
                               const std::string& help) {
  std::string names;
  for (const std::string& choice : choices)
    names += (names.empty() ? "" : "|") + choice;
  const auto parse = [&target, flag, choices](const std::string& text) {
    require_choice(flag, text, choices);
    target = text;
  };
  return app.add_option_function<std::string>(flag, parse, help)
      ->type_name(names)
      ->default_str(target);
}

/// `type` is the word that the help shows for the value: TEXT, FILE, NAME.
inline CLI::Option* add_text(CLI::App& app,
                             const std::string& flag,
                             std::string& target,
                             const char* type,
                             const std::string& help) {
  return app.add_option(flag, target, help)->type_name(type);
}

inline CLI::Option* add_model(CLI::App& app, std::string& target) {
  return app
      .add_option("MODEL", target,
                  "a model's folder, or its name under ${LMD_HOME:-~/.cache/lmd}/models")
      ->type_name("");
}

}  // namespace lmd::apps
