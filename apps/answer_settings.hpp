/// \file  How answers are drawn: the settings that flags and the chat's /set share.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <set>
#include <string>
#include <vector>

#include "flags.hpp"
#include "nearest.hpp"

namespace lmd::apps {

/// Defaults are those of LMDeploy's chat.
struct AnswerSettings {
  double temperature = 0.8;  ///< 0: always the most likely token
  double top_p = 0.8;
  double min_p = 0.0;
  double repetition_penalty = 1.0;
  double presence_penalty = 0.0;
  double frequency_penalty = 0.0;
  std::int64_t top_k = 40;  ///< 0: all
  std::int64_t max_new_tokens = 1024;
  std::int64_t seed = -1;  ///< -1: another one each time
  std::vector<std::string> stop = {};
  std::set<std::string> given = {};  ///< keys that a person has set
};

struct Setting {
  const char* key;
  double AnswerSettings::*number;         ///< null: an integer
  std::int64_t AnswerSettings::*integer;  ///< null: a number
  double min;
  double max;
  const char* help;
};

inline constexpr Setting kSettings[] = {
    {"temperature", &AnswerSettings::temperature, nullptr, 0, 2, "0: always the most likely token"},
    {"top_p", &AnswerSettings::top_p, nullptr, 1e-6, 1,
     "draw from the most likely tokens that have this share"},
    {"top_k", nullptr, &AnswerSettings::top_k, 0, 1'000'000,
     "draw from this many most likely tokens; 0: from all"},
    {"min_p", &AnswerSettings::min_p, nullptr, 0, 1,
     "drop tokens less likely than this share of the most likely one"},
    {"repetition_penalty", &AnswerSettings::repetition_penalty, nullptr, 0.01, 1000,
     "over 1: tokens that were there are less likely"},
    {"presence_penalty", &AnswerSettings::presence_penalty, nullptr, -2, 2,
     "taken from the logits of tokens that were there"},
    {"frequency_penalty", &AnswerSettings::frequency_penalty, nullptr, -2, 2,
     "the same for each time that they were there"},
    {"max_new_tokens", nullptr, &AnswerSettings::max_new_tokens, 1, 1 << 24,
     "longest answer in tokens"},
    {"seed", nullptr, &AnswerSettings::seed, -1, 9e15,
     "the same seed gives the same answer; -1: another one each time"},
};

/// \throws Error(kConfig) that names `flag`, the value and the range.
inline void assign(AnswerSettings& settings,
                   const Setting& setting,
                   const std::string& flag,
                   const std::string& value) {
  if (setting.number != nullptr) {
    settings.*setting.number = parse_number(flag, value, setting.min, setting.max);
  } else {
    settings.*setting.integer =
        parse_integer<std::int64_t>(flag, value, static_cast<std::int64_t>(setting.min),
                                    static_cast<std::int64_t>(setting.max));
  }
  settings.given.insert(setting.key);
}

[[nodiscard]] inline std::string value_text(const AnswerSettings& settings,
                                            const Setting& setting) {
  return setting.number != nullptr ? shortest_text(settings.*setting.number)
                                   : std::to_string(settings.*setting.integer);
}

/// What `/set KEY VALUE` does; dashes count as underscores. `stop` is set to one string, or to none
/// by an empty value. \throws Error(kConfig), for an unknown key with the nearest one.
inline void set_by_name(AnswerSettings& settings, std::string key, const std::string& value) {
  for (char& c : key)
    if (c == '-') c = '_';
  if (key == "stop") {
    settings.stop = value.empty() ? std::vector<std::string>() : std::vector{value};
    return;
  }
  std::vector<std::string> known = {"stop"};
  for (const Setting& setting : kSettings) {
    if (key == setting.key) return assign(settings, setting, key, value);
    known.emplace_back(setting.key);
  }
  const std::string near = nearest(key, known);
  std::string all;
  for (const std::string& each : known)
    all += ' ' + each;
  throw Error(ErrorCode::kConfig,
              "unknown setting " + key +
                  (near.empty() ? "; known:" + all : "; did you mean " + near + '?'));
}

/// One line for each setting.
[[nodiscard]] inline std::string settings_text(const AnswerSettings& settings) {
  std::string text;
  const auto add = [&](std::string key, const std::string& value, const std::string& help) {
    key.resize(20, ' ');
    text += "  " + key + value + std::string(value.size() < 8 ? 8 - value.size() : 1, ' ') + help +
            '\n';
  };
  for (const Setting& setting : kSettings)
    add(setting.key, value_text(settings, setting), setting.help);
  std::string stops;
  for (const std::string& stop : settings.stop)
    stops += '"' + stop + "\" ";
  add("stop", stops.empty() ? "none" : stops, "text that ends the answer");
  return text;
}

/// A flag for each setting, under its name with dashes.
inline void add_answer_flags(CLI::App& app, AnswerSettings& settings) {
  for (const Setting& setting : kSettings) {
    const std::string flag = "--" + std::string(setting.key);
    std::string dashed = flag;
    for (char& c : dashed)
      if (c == '_') c = '-';
    const auto parse = [&settings, &setting, dashed](const std::string& value) {
      assign(settings, setting, dashed, value);
    };
    app.add_option_function<std::string>(dashed, parse, setting.help)
        ->type_name(setting.number != nullptr ? "X" : "N")
        ->default_str(value_text(settings, setting))
        ->group("How answers are drawn");
  }
  app.add_option("--stop", settings.stop, "text that ends the answer; may be given several times")
      ->type_name("TEXT")
      ->allow_extra_args(false)
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll)
      ->group("How answers are drawn");
}

}  // namespace lmd::apps
