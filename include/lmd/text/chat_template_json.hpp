/// \file  Chat templates from a user's JSON file.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/core/error.hpp>
#include <lmd/core/file.hpp>
#include <lmd/json/json.hpp>
#include <lmd/text/chat_template.hpp>
#include <lmd/text/chat_templates.hpp>

#include <algorithm>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <sys/stat.h>

namespace lmd::text {
namespace detail {

/// Insertions, deletions and replacements that turn `a` into `b`.
[[nodiscard]] inline int edit_distance(std::string_view a, std::string_view b) {
  std::vector<int> row(b.size() + 1);
  for (std::size_t j = 0; j <= b.size(); ++j)
    row[j] = static_cast<int>(j);
  for (std::size_t i = 0; i < a.size(); ++i) {
    int diagonal = std::exchange(row[0], static_cast<int>(i) + 1);
    for (std::size_t j = 0; j < b.size(); ++j) {
      const int replaced = diagonal + (a[i] == b[j] ? 0 : 1);
      diagonal = row[j + 1];
      row[j + 1] = std::min({replaced, row[j] + 1, row[j + 1] + 1});
    }
  }
  return row[b.size()];
}

/// The three of `known` that are most like `word`, joined by commas.
[[nodiscard]] inline std::string nearest(std::string_view word, std::vector<std::string> known) {
  constexpr std::size_t kShown = 3;
  constexpr std::size_t kMaxWord = 64;  // a longer one is like none of them, and costs time
  word = word.substr(0, kMaxWord);
  std::stable_sort(known.begin(), known.end(), [&](const std::string& a, const std::string& b) {
    return edit_distance(word, a) < edit_distance(word, b);
  });
  std::string out;
  for (std::size_t i = 0; i < std::min(kShown, known.size()); ++i) {
    out += (i == 0 ? "" : ", ") + known[i];
  }
  return out;
}

/// JSON keys and the members they set.
struct TemplateKey {
  const char* name;
  std::string ChatTemplate::*member;
};
inline constexpr TemplateKey kTemplateKeys[] = {
    {"system", &ChatTemplate::system},       {"eosys", &ChatTemplate::eosys},
    {"user", &ChatTemplate::user},           {"eoh", &ChatTemplate::eoh},
    {"assistant", &ChatTemplate::assistant}, {"eoa", &ChatTemplate::eoa},
    {"separator", &ChatTemplate::separator}, {"eotool", &ChatTemplate::eoenv},
};

[[nodiscard]] inline std::vector<std::string> template_key_names() {
  std::vector<std::string> names = {"model_name", "meta_instruction", "capability", "stop_words",
                                    "tool",       "model_path"};
  for (const TemplateKey& key : kTemplateKeys)
    names.emplace_back(key.name);
  return names;
}

[[nodiscard]] inline Capability capability_of(const json::Object& node) {
  const std::string text = node.string_or("capability", "chat");
  LMD_REQUIRE(text == "chat" || text == "completion", ErrorCode::kConfig,
              node.where() + ": capability is " + json::shown(text) + "; known: chat, completion");
  return text == "chat" ? Capability::kChat : Capability::kCompletion;
}

[[nodiscard]] inline ChatTemplate template_of(const json::Object& node) {
  const std::vector<std::string> known = template_key_names();
  for (const auto& [key, value] : node.value().items()) {
    LMD_REQUIRE(std::find(known.begin(), known.end(), key) != known.end(), ErrorCode::kConfig,
                node.where() + ": key " + json::shown(key) +
                    " is unknown; nearest: " + nearest(key, known));
  }
  ChatTemplate tmpl = builtin_template("base");
  const std::string name = node.string_or("model_name", "custom");
  for (ChatTemplate& builtin : builtin_templates()) {
    if (builtin.name == name) tmpl = std::move(builtin);
  }
  tmpl.name = name;
  for (const TemplateKey& key : kTemplateKeys) {
    if (node.has(key.name)) tmpl.*key.member = node.string(key.name);
  }
  if (node.has("meta_instruction")) tmpl.meta_instruction = node.string("meta_instruction");
  if (node.has("tool")) tmpl.environment = node.string("tool");
  if (node.has("capability")) tmpl.capability = capability_of(node);
  if (node.has("stop_words")) {
    tmpl.stop_words.clear();
    for (const json::Json& word : node.array("stop_words")) {
      LMD_REQUIRE(word.is_string() && !word.get_ref<const std::string&>().empty(),
                  ErrorCode::kConfig,
                  node.where() + ": stop_words holds " + json::shown(word) +
                      ", expected texts that are not empty");
      tmpl.stop_words.push_back(word.get<std::string>());
    }
  }
  return tmpl;
}

}  // namespace detail

/// A template from a JSON file or, when there is no such file, from JSON text itself.
///
/// `model_name` of a built-in template: that one, with the given keys replaced. Another name, or
/// none: the given keys, the rest empty. Null counts as absent; `model_path` is allowed and unused.
/// \throws Error(kConfig) for an unknown key (naming the nearest ones) or value, Error(kFormat) when
///         it is not JSON, Error(kIo).
[[nodiscard]] inline ChatTemplate template_from_json(const std::string& path_or_text) {
  constexpr std::int64_t kMaxFileBytes = 1 << 20;
  struct stat st {};
  const bool is_file = ::stat(path_or_text.c_str(), &st) == 0 && S_ISREG(st.st_mode);
  const bool is_text = path_or_text.find('{') != std::string::npos;
  LMD_REQUIRE(is_file || is_text, ErrorCode::kIo,
              "chat template " + path_or_text + ": neither a file nor JSON text");
  const std::string where = is_file ? path_or_text : "chat template";
  const json::Json root =
      is_file ? json::parse_file(path_or_text, kMaxFileBytes) : json::parse(path_or_text, where);
  return detail::template_of(json::Object(root, where));
}

}  // namespace lmd::text
