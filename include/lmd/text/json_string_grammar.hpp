/// \file  Strings of JSON with a length, patterns and formats as expressions of a grammar.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/text/grammar_automaton.hpp>
#include <lmd/text/grammar_builder.hpp>
#include <lmd/text/json_grammar.hpp>
#include <lmd/text/regex_grammar.hpp>
#include <lmd/text/utf8.hpp>

#include <cstddef>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <tuple>
#include <utility>
#include <vector>

namespace lmd::text::detail {

/// What a string must be.
struct StringRules {
  int min_length = 0;  ///< characters
  int max_length = GrammarBuilder::kUnbounded;
  std::vector<std::string> patterns;  ///< all of them match somewhere

  /// Formats that are not known say nothing, as JSON Schema has it.
  void add_format(std::string_view format) {
    const std::string date =
        "[12][0-9]{3}-((0[13578]|1[02])-(0[1-9]|[12][0-9]|3[01])|(0[469]|11)-(0[1-9]|[12][0-9]|30)|"
        "02-(0[1-9]|1[0-9]|2["
        "0-8]))";
    const std::string time =
        "([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](\\.[0-9]{1,6})?(Z|[+-]([01][0-9]|2[0-3]):[0-5][0-"
        "9])";
    const std::string label = "[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?";
    const std::string word = "[A-Za-z0-9_+-]{1,60}";
    const std::string octet = "(25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])";
    if (format == "date") patterns.push_back("^" + date + "$");
    if (format == "time") patterns.push_back("^" + time + "$");
    if (format == "date-time") patterns.push_back("^" + date + "T" + time + "$");
    if (format == "email")
      patterns.push_back("^" + word + "(\\." + word + ")?@" + label + "(\\." + label + "){1,3}$");
    if (format == "uuid")
      patterns.emplace_back("^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$");
    if (format == "ipv4") patterns.push_back("^(" + octet + "\\.){3}" + octet + "$");
  }

  auto operator<=>(const StringRules&) const = default;
};

/// Makes them. Strings with a pattern, and keys that may not be one of a list, are spelled in the shortest way; all
/// others in any.
class JsonStringRules {
 public:
  using Expr = GrammarBuilder::Expr;

  explicit JsonStringRules(JsonGrammar& json) : json_(&json), b_(&json.builder()) {}

  [[nodiscard]] Expr string(const StringRules& rules) {
    if (rules.max_length >= 0 && rules.min_length > rules.max_length) return b_->nothing();
    if (rules.patterns.empty()) return json_->string(rules.min_length, rules.max_length);
    const auto [at, is_new] = rules_.try_emplace(rules);
    if (is_new) {
      const bool is_one = rules.patterns.size() == 1 && !has_length(rules);
      const Expr content = is_one ? pattern(rules.patterns[0]) : b_->automaton(content_of(rules));
      at->second = b_->call_of(json_->quoted(content));
    }
    return at->second;
  }

  /// Whether a string of `enum` obeys. \pre `text` is UTF-8
  [[nodiscard]] bool satisfies(const std::string& text, const StringRules& rules) {
    int length = 0;
    for (std::size_t at = 0; at < text.size(); ++length)
      at += static_cast<std::size_t>(decode_utf8(text, at).n_bytes);
    if (length < rules.min_length || (rules.max_length >= 0 && length > rules.max_length))
      return false;
    if (rules.patterns.empty()) return true;
    auto [at, is_new] = contents_.try_emplace(rules.patterns);
    if (is_new) at->second = content_of({0, GrammarBuilder::kUnbounded, rules.patterns});
    const std::string quoted = JsonGrammar::text_of(text);
    return at->second->matches(std::string_view(quoted).substr(1, quoted.size() - 2));
  }

  /// Any string but those of `texts`.
  [[nodiscard]] Expr other_than(const std::vector<std::string>& texts) {
    if (texts.empty()) return json_->string();
    std::vector<Expr> parts;
    for (const std::string& text : texts)
      parts.push_back(b_->text(JsonGrammar::text_of(text)));
    const Expr any = json_->quoted(characters(0, GrammarBuilder::kUnbounded));
    auto dfa = std::make_shared<Dfa>(
        combine(b_->dfa_of(any), b_->dfa_of(b_->choice(std::move(parts))), true, b_->meter()));
    return b_->automaton(std::move(dfa));
  }

 private:
  [[nodiscard]] static bool has_length(const StringRules& rules) {
    return rules.min_length > 0 || rules.max_length >= 0;
  }

  [[nodiscard]] Expr characters(int min, int max) {
    return b_->repeat(json_->shortest_character(CharacterSet::all()), min, max);
  }
  [[nodiscard]] Expr pattern(const std::string& text) {
    const auto spell = [&](const CharacterSet& set) { return json_->shortest_character(set); };
    return RegexReader(*b_, text, true, spell).read();
  }

  /// What stands between the quotes: all patterns and the length at once.
  [[nodiscard]] std::shared_ptr<const Dfa> content_of(const StringRules& rules) {
    const GrammarBuilder::WriteOut all_counts(*b_);
    Dfa out = b_->dfa_of(pattern(rules.patterns[0]));
    for (std::size_t i = 1; i < rules.patterns.size(); ++i)
      out = combine(out, b_->dfa_of(pattern(rules.patterns[i])), false, b_->meter());
    if (has_length(rules)) {
      out = combine(out, b_->dfa_of(characters(rules.min_length, rules.max_length)), false,
                    b_->meter());
    }
    return std::make_shared<const Dfa>(std::move(out));
  }

  JsonGrammar* json_;
  GrammarBuilder* b_;
  std::map<StringRules, Expr> rules_;
  std::map<std::vector<std::string>, std::shared_ptr<const Dfa>> contents_;
};

}  // namespace lmd::text::detail
