/// \file  The command line before it is parsed: spellings made equal, unknown words answered.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/core/error.hpp>

#include <algorithm>
#include <cctype>
#include <string>
#include <vector>

#include "nearest.hpp"
#include "refused.hpp"
#include <CLI/CLI.hpp>

namespace lmd::apps {

/// "--max_batch_size=4" -> "--max-batch-size=4"; only the name changes.
[[nodiscard]] inline std::string with_dashes(std::string argument) {
  const std::size_t end = std::min(argument.find('='), argument.size());
  std::replace(argument.begin(), argument.begin() + static_cast<std::ptrdiff_t>(end), '_', '-');
  return argument;
}

namespace detail {

[[nodiscard]] inline std::vector<const CLI::App*> subcommands_of(const CLI::App& app) {
  return app.get_subcommands([](const CLI::App*) { return true; });
}

[[noreturn]] inline void throw_unknown(const std::string& what,
                                       const std::string& word,
                                       const std::vector<std::string>& known,
                                       const std::string& command) {
  const std::string near = nearest(word, known);
  const std::string hint =
      near.empty() ? "; see `" + command + " --help`" : "; did you mean " + near + '?';
  throw Error(ErrorCode::kConfig, "unknown " + what + ' ' + word + hint);
}

/// The subcommand of `app` that `word` names. `next` is the word behind it.
inline const CLI::App& known_subcommand(const CLI::App& app,
                                        const std::string& word,
                                        const std::string& next,
                                        const std::string& command) {
  std::vector<std::string> names;
  for (const CLI::App* sub : subcommands_of(app)) {
    if (sub->check_name(word)) return *sub;
    names.push_back(sub->get_name());
  }
  const std::size_t space = command.find(' ');  // behind the program's own name
  const std::string above = space == std::string::npos ? "" : command.substr(space + 1) + ' ';
  const std::string full = above + word;
  const std::string longer = full + ' ' + next;
  if (const char* answer = refusal_of(kRefusedCommands, longer))
    throw Error(ErrorCode::kConfig, longer + ": " + answer);
  if (const char* answer = refusal_of(kRefusedCommands, full))
    throw Error(ErrorCode::kConfig, full + ": " + answer);
  throw_unknown("command", word, names, command);
}

[[nodiscard]] inline const CLI::Option& known_flag(const CLI::App& app,
                                                   const std::string& argument,
                                                   const std::string& command) {
  const std::string name = argument.substr(0, argument.find('='));
  const CLI::Option* const option = app.get_option_no_throw(name);
  if (option != nullptr && !option->nonpositional()) throw_unknown("flag", name, {}, command);
  if (option != nullptr) return *option;
  if (const char* answer = refusal_of(kRefusedFlags, name))
    throw Error(ErrorCode::kConfig, name + ": " + answer);
  std::vector<std::string> names;
  for (const CLI::Option* known : app.get_options()) {
    for (const std::string& each : known->get_lnames())
      names.push_back("--" + each);
  }
  throw_unknown("flag", name, names, command);
}

/// Values of this option may be left out: an empty one, as of a variable that is not set, is a mistake.
inline void refuse_empty_value(const CLI::Option& option,
                               const std::string& argument,
                               const std::string* next) {
  const bool is_optional =
      option.get_items_expected_min() == 0 && option.get_items_expected_max() > 0;
  const bool is_empty = argument.ends_with('=') || (next != nullptr && next->empty());
  const std::string name = argument.substr(0, argument.find('='));
  LMD_REQUIRE(!is_optional || !is_empty, ErrorCode::kConfig, name + " '': the value is empty");
}

[[nodiscard]] inline bool is_flag(const std::string& argument) {
  if (argument.size() < 2 || argument[0] != '-') return false;
  return std::isdigit(static_cast<unsigned char>(argument[1])) == 0 && argument[1] != '.';
}

}  // namespace detail

/// Walks the command line beside the parser's tree, so that the first word nobody knows is answered
/// in one line with the nearest known one, before anything else is complained about. Returns the
/// arguments with dashes for underscores in the names of long flags.
///
/// Errors:  \throws Error(kConfig).
[[nodiscard]] inline std::vector<std::string> checked_arguments(
    const CLI::App& root, std::vector<std::string> arguments) {
  const CLI::App* app = &root;
  std::string command = root.get_name();
  const auto n = arguments.size();
  for (std::size_t i = 0; i < n; ++i) {
    std::string& argument = arguments[i];
    if (argument == "--") break;
    if (detail::is_flag(argument)) {
      if (argument.starts_with("--")) argument = with_dashes(argument);
      const CLI::Option& option = detail::known_flag(*app, argument, command);
      detail::refuse_empty_value(option, argument, i + 1 < n ? &arguments[i + 1] : nullptr);
      const bool has_value = argument.find('=') != std::string::npos;
      if (!has_value) i += static_cast<std::size_t>(std::max(option.get_items_expected_min(), 0));
    } else if (!detail::subcommands_of(*app).empty()) {
      const std::string next = i + 1 < n ? arguments[i + 1] : std::string();
      app = &detail::known_subcommand(*app, argument, next, command);
      command += ' ' + app->get_name();
    }
  }
  return arguments;
}

}  // namespace lmd::apps
