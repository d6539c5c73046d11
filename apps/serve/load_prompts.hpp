/// \file  What `lmd bench serve` asks: random words, with or without shared beginnings, or a file's
///        conversations.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/json/json.hpp>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <random>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "load_case.hpp"

namespace lmd::apps {

struct LoadPrompt {
  std::string prefix = {};  ///< what others begin with, too; empty: nothing
  std::string text = {};
  int n_output = 0;  ///< tokens at most
};

/// Short, frequent words: with a blank in front nearly every vocabulary has each as one token.
inline constexpr std::string_view kPlainWords =
    "the of and to in is that it was for on are as with his they at be this from have or by one "
    "had "
    "not but what all were when we there can an your which their said if do will each about how up "
    "out them then she many some so these would other into has more her two like him see time "
    "could "
    "no make than first been its who now people my made over did down only way find use may water "
    "long little very after words called just where most know get through back much before go good "
    "new write our used me man too any day same right look think also around another came come "
    "work "
    "three word must because does part even place well such here take why things help put years";

[[nodiscard]] inline std::vector<std::string> plain_words() {
  std::vector<std::string> words;
  for (std::size_t begin = 0; begin < kPlainWords.size();) {
    const std::size_t end = std::min(kPlainWords.find(' ', begin), kPlainWords.size());
    words.emplace_back(kPlainWords.substr(begin, end - begin));
    begin = end + 1;
  }
  return words;
}

/// `n` words, drawn by what is in `key` alone.
[[nodiscard]] inline std::string random_words(const std::vector<std::string>& words,
                                              int n,
                                              std::initializer_list<std::int64_t> key) {
  std::seed_seq seed(key);
  std::mt19937 random(seed);
  std::string text;
  for (int i = 0; i < n; ++i)
    text += (i == 0 ? "" : " ") + words[random() % words.size()];
  return text;
}

/// When requests are to be sent: seconds, in order, with gaps that are distributed exponentially.
[[nodiscard]] inline std::vector<double> arrival_times(int n, double rate, std::int64_t seed) {
  std::seed_seq key{seed, std::int64_t{1}};
  std::mt19937_64 random(key);
  std::vector<double> times(static_cast<std::size_t>(n));
  double now = 0.0;
  for (double& time : times) {
    time = now;
    const double share = static_cast<double>(random() >> 11) * 0x1p-53;  // of [0, 1)
    now -= std::log1p(-share) / rate;
  }
  return times;
}

/// The prompts of a run, each made when it is asked for, the same for the same seed.
class LoadPrompts {
 public:
  /// Random ones of `words`, of which each counts as a token.
  LoadPrompts(const LoadCase& c, std::vector<std::string> words)
      : case_(c), words_(std::move(words)) {}
  /// Those of a file, from the beginning again when they are over.
  LoadPrompts(const LoadCase& c, std::vector<LoadPrompt> items)
      : case_(c), items_(std::move(items)) {}

  /// `index`: 0 and on; below 0 those of the warm-up, which share nothing with the others.
  [[nodiscard]] LoadPrompt at(int index) const {
    if (!items_.empty()) {
      const std::size_t place = static_cast<std::size_t>(std::abs(index)) % items_.size();
      LoadPrompt item = items_[index < 0 ? items_.size() - 1 - place : place];
      if (case_.gen_len > 0) item.n_output = case_.gen_len;
      return item;
    }
    std::seed_seq key{case_.seed, std::int64_t{2}, std::int64_t{index}};
    std::mt19937 random(key);
    const int group = static_cast<int>(random() % static_cast<std::uint32_t>(case_.groups));
    LoadPrompt prompt;
    if (case_.dataset == "shared-prefix")
      prompt.prefix = random_words(words_, case_.prefix_len, {case_.seed, 3, group, index < 0});
    prompt.text = random_words(words_, spread(case_.prompt_len, random), {case_.seed, 4, index});
    prompt.n_output = spread(case_.gen_len, random);
    return prompt;
  }

 private:
  [[nodiscard]] int spread(int length, std::mt19937& random) const {
    const double share = static_cast<double>(random()) / 4294967295.0;
    const double factor = 1.0 + case_.spread * (2.0 * share - 1.0);
    return std::max(1, static_cast<int>(std::lround(factor * length)));
  }

  LoadCase case_;
  std::vector<std::string> words_;
  std::vector<LoadPrompt> items_;
};

/// Reads prompts from JSON: an array of ShareGPT's conversations, of which the first two turns count
/// ({"conversations": [{"from": "human", "value": ...}, {"from": "gpt", "value": ...}]}), or of
/// {"prompt": text, "output_len": tokens}. What has no prompt is left out. Where no length is given
/// an answer may have a token for each four bytes of the file's answer.
///
/// Errors:  \throws Error(kFormat) naming `where` when there is nothing to ask.
[[nodiscard]] inline std::vector<LoadPrompt> prompts_of_json(const json::Json& file,
                                                             const std::string& where) {
  constexpr int kUsualOutput = 128;
  constexpr int kMaxOutput = 4096;
  const auto text_of = [](const json::Json& value, const char* key) {
    const auto at = value.is_object() ? value.find(key) : value.end();
    return value.is_object() && at != value.end() && at->is_string() ? at->get<std::string>()
                                                                     : std::string();
  };
  LMD_REQUIRE(file.is_array(), ErrorCode::kFormat,
              where + ": is no array of conversations or prompts");
  std::vector<LoadPrompt> prompts;
  for (const json::Json& item : file) {
    LoadPrompt prompt{.text = text_of(item, "prompt"), .n_output = kUsualOutput};
    const auto length = item.is_object() ? item.find("output_len") : item.end();
    if (item.is_object() && length != item.end() && length->is_number_integer()) {
      prompt.n_output =
          static_cast<int>(std::clamp<std::int64_t>(length->get<std::int64_t>(), 1, kMaxOutput));
    }
    if (item.is_object() && item.contains("conversations") && item["conversations"].is_array() &&
        item["conversations"].size() >= 2) {
      const json::Json& turns = item["conversations"];
      prompt.text = text_of(turns[0], "value");
      const std::size_t n_bytes = text_of(turns[1], "value").size();
      prompt.n_output = std::clamp(static_cast<int>(n_bytes / 4), 1, kMaxOutput);
    }
    if (!prompt.text.empty()) prompts.push_back(std::move(prompt));
  }
  LMD_REQUIRE(!prompts.empty(), ErrorCode::kFormat, where + ": holds no prompt");
  return prompts;
}

/// The body of a request for `prompt`.
[[nodiscard]] inline std::string load_body(const LoadCase& c, const LoadPrompt& prompt) {
  json::Json body = {{"model", c.model},
                     {"stream", true},
                     {"stream_options", {{"include_usage", true}}},
                     {"max_tokens", prompt.n_output},
                     {"temperature", c.temperature}};
  if (c.ignores_eos) body["ignore_eos"] = true;
  if (c.endpoint == "completions") {
    body["prompt"] = prompt.prefix.empty() ? prompt.text : prompt.prefix + ' ' + prompt.text;
  } else {
    json::Json messages = json::Json::array();
    if (!prompt.prefix.empty())
      messages.push_back({{"role", "system"}, {"content", prompt.prefix}});
    messages.push_back({{"role", "user"}, {"content", prompt.text}});
    body["messages"] = std::move(messages);
  }
  return body.dump(-1, ' ', false, json::Json::error_handler_t::replace);
}

}  // namespace lmd::apps
