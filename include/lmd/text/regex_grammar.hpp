/// \file  Regular expressions as grammars.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/core/error.hpp>
#include <lmd/text/character_set.hpp>
#include <lmd/text/grammar.hpp>
#include <lmd/text/grammar_budget.hpp>
#include <lmd/text/grammar_builder.hpp>
#include <lmd/text/utf8.hpp>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace lmd::text {
namespace detail {

/// Reads a pattern of ECMA-262 without what is not regular. Where Python's `re` means more or less by a
/// class, the smaller meaning is taken, so that both accept what the grammar makes:
///
///   literals  .  [a-z] [^a-z]  \d \w \s \D \W \S  \t \n \r \f \v \0 \xHH \uHHHH \u{H}  (...) (?:...) (?<name>...)
///   |  * + ? {m} {m,} {m,n}, lazy ones too  ^ and $ at the ends of the alternatives of the whole pattern
///
/// Refused by name: backreferences, lookaround, word boundaries, flags, Unicode properties, anchors elsewhere.
class RegexReader {
 public:
  using Expr = GrammarBuilder::Expr;
  /// How a character of the text is spelled: in UTF-8, or as in a JSON string.
  using Spell = std::function<Expr(const CharacterSet&)>;

  /// \param is_search  the pattern may match anywhere in the text, as JSON schemas want it
  RegexReader(GrammarBuilder& builder, std::string_view pattern, bool is_search, Spell spell)
      : builder_(&builder), pattern_(pattern), is_search_(is_search), spell_(std::move(spell)) {
    refuse_if(pattern.size() > builder.meter().budget().text_bytes, "a pattern of so many bytes");
    refuse_if(!is_utf8(pattern), "a pattern that is no UTF-8");
  }

  /// \throws Error(kConfig) naming what is not supported or not well formed.
  [[nodiscard]] Expr read() {
    const Expr out = alternatives(0);
    refuse_if(at_ < pattern_.size(), "a closing parenthesis without an opening one");
    return out;
  }

 private:
  struct Counts {
    int min;
    int max;  // GrammarBuilder::kUnbounded
  };

  static void refuse_if(bool is_bad, const char* what) {
    LMD_REQUIRE(!is_bad, ErrorCode::kConfig,
                "grammar: " + std::string(what) + " in a regular expression is not supported");
  }

  [[nodiscard]] bool is_at(char c) const { return at_ < pattern_.size() && pattern_[at_] == c; }
  [[nodiscard]] bool take(std::string_view text) {
    if (!pattern_.substr(at_).starts_with(text)) return false;
    at_ += text.size();
    return true;
  }
  [[nodiscard]] std::uint32_t take_character() {
    builder_->meter().spend(1);
    const CodePoint c = decode_utf8(pattern_, at_);
    at_ += static_cast<std::size_t>(c.n_bytes);
    return c.value;
  }

  [[nodiscard]] Expr alternatives(int depth) {
    refuse_if(depth > builder_->meter().budget().pattern_depth, "so many groups inside each other");
    std::vector<Expr> parts;
    do {
      parts.push_back(branch(depth));
    } while (take("|"));
    return builder_->choice(std::move(parts));
  }

  /// A sequence up to `|`, `)` or the end. Of the whole pattern it may be anchored.
  [[nodiscard]] Expr branch(int depth) {
    std::vector<Expr> parts;
    const bool is_outer = depth == 0;
    const bool begins = is_outer && take("^");
    if (is_search_ && is_outer && !begins) parts.push_back(any_text());
    bool ends = false;
    while (at_ < pattern_.size() && !is_at('|') && !is_at(')')) {
      if (take("$")) {
        const bool is_last = at_ == pattern_.size() || is_at('|');
        refuse_if(!is_outer || !is_last, "an anchor that is not at the end of the whole pattern");
        ends = true;
        break;
      }
      parts.push_back(term(depth));
    }
    if (is_search_ && is_outer && !ends) parts.push_back(any_text());
    return builder_->sequence(std::move(parts));
  }

  [[nodiscard]] Expr any_text() {
    return builder_->repeat(spell_(CharacterSet::all()), 0, GrammarBuilder::kUnbounded);
  }

  [[nodiscard]] Expr term(int depth) {
    const Expr part = atom(depth);
    const std::optional<Counts> counts = quantifier();
    if (!counts) return part;
    refuse_if(is_at('+') || is_at('*') || is_at('?') || is_at('{'), "a quantifier of a quantifier");
    return builder_->repeat(part, counts->min, counts->max);
  }

  [[nodiscard]] Expr atom(int depth) {
    refuse_if(is_at('*') || is_at('+') || is_at('?'), "a quantifier that has nothing to repeat");
    refuse_if(is_at('{'), "a brace that is no quantifier and has no backslash");
    refuse_if(is_at('^'), "an anchor that is not at the beginning of the whole pattern");
    if (take("(")) return group(depth);
    if (take("[")) return spell_(bracketed());
    if (take("\\")) return spell_(escape(false));
    if (take(".")) return spell_(line_ends().complement());
    const std::uint32_t c = take_character();
    return spell_(CharacterSet({{c, c}}));
  }

  [[nodiscard]] Expr group(int depth) {
    if (take("?")) {
      const bool is_look = is_at('=') || is_at('!') || pattern_.substr(at_).starts_with("<=") ||
                           pattern_.substr(at_).starts_with("<!");
      refuse_if(is_look, "lookaround");
      (void)take("P");
      if (take("<")) {
        while (at_ < pattern_.size() && !is_at('>'))
          (void)take_character();
        refuse_if(!take(">"), "a group's name that does not end");
      } else {
        refuse_if(!take(":"), "a group with flags");
      }
    }
    const Expr out = alternatives(depth + 1);
    refuse_if(!take(")"), "a group that does not end");
    return out;
  }

  [[nodiscard]] std::optional<Counts> quantifier() {
    std::optional<Counts> counts;
    if (take("*"))
      counts = {0, GrammarBuilder::kUnbounded};
    else if (take("+"))
      counts = {1, GrammarBuilder::kUnbounded};
    else if (take("?"))
      counts = {0, 1};
    else if (take("{"))
      counts = braces();
    if (counts) (void)take("?");  // a lazy one matches the same texts
    return counts;
  }

  [[nodiscard]] Counts braces() {
    const int min = count();
    int max = min;
    if (take(",")) max = is_at('}') ? GrammarBuilder::kUnbounded : count();
    refuse_if(!take("}"), "a quantifier that is not well formed");
    refuse_if(max != GrammarBuilder::kUnbounded && max < min,
              "a quantifier with its bounds exchanged");
    return {min, max};
  }

  [[nodiscard]] int count() {
    const int limit = builder_->meter().budget().repeat;
    refuse_if(!is_digit(), "a quantifier that is not well formed");
    int value = 0;
    while (is_digit()) {
      value = value * 10 + (pattern_[at_++] - '0');
      LMD_REQUIRE(value <= limit, ErrorCode::kConfig,
                  "grammar: a quantifier in a regular expression has a count above " +
                      std::to_string(limit));
    }
    return value;
  }
  [[nodiscard]] bool is_digit() const {
    return at_ < pattern_.size() && pattern_[at_] >= '0' && pattern_[at_] <= '9';
  }

  [[nodiscard]] static CharacterSet digits() { return CharacterSet({{'0', '9'}}); }
  [[nodiscard]] static CharacterSet words() {
    return CharacterSet({{'0', '9'}, {'A', 'Z'}, {'_', '_'}, {'a', 'z'}});
  }
  [[nodiscard]] static CharacterSet ascii_spaces() {
    return CharacterSet({{'\t', '\r'}, {' ', ' '}});
  }
  /// White space of ECMA-262 and of Python together.
  [[nodiscard]] static CharacterSet all_spaces() {
    return CharacterSet({{'\t', '\r'},
                         {0x1C, ' '},
                         {0x85, 0x85},
                         {0xA0, 0xA0},
                         {0x1680, 0x1680},
                         {0x2000, 0x200A},
                         {0x2028, 0x2029},
                         {0x202F, 0x202F},
                         {0x205F, 0x205F},
                         {0x3000, 0x3000},
                         {0xFEFF, 0xFEFF}});
  }
  [[nodiscard]] static CharacterSet line_ends() {
    return CharacterSet({{'\n', '\n'}, {'\r', '\r'}, {0x2028, 0x2029}});
  }

  /// What stands behind a backslash. `is_negated`: the set will be turned round, so the larger meaning is taken.
  [[nodiscard]] CharacterSet escape(bool is_negated) {
    refuse_if(at_ == pattern_.size(), "a backslash at the end");
    const std::uint32_t c = take_character();
    switch (c) {
      case 'd':
        return digits();
      case 'D':
        return digits().complement();
      case 'w':
        return words();
      case 'W':
        return words().complement();
      case 's':
        return is_negated ? all_spaces() : ascii_spaces();
      case 'S':
        return (is_negated ? ascii_spaces() : all_spaces()).complement();
      default:
        break;
    }
    const std::uint32_t code = character_escape(c);
    return CharacterSet({{code, code}});
  }

  [[nodiscard]] std::uint32_t character_escape(std::uint32_t c) {
    switch (c) {
      case 't':
        return '\t';
      case 'n':
        return '\n';
      case 'r':
        return '\r';
      case 'f':
        return '\f';
      case 'v':
        return '\v';
      case 'x':
        return hexadecimal(2);
      case 'u':
        return take("{") ? braced_hexadecimal() : hexadecimal(4);
      case '0':
        refuse_if(is_digit(), "an octal escape");
        return 0;
      default:
        break;
    }
    refuse_if(c >= '1' && c <= '9', "a backreference");
    refuse_if(c == 'k', "a backreference");
    refuse_if(c == 'b' || c == 'B', "a word boundary");
    refuse_if(c == 'p' || c == 'P', "a Unicode property");
    refuse_if((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'), "an unknown escape");
    return c;
  }

  [[nodiscard]] std::uint32_t hexadecimal(int n_digits) {
    std::uint32_t value = 0;
    for (int i = 0; i < n_digits; ++i) {
      const int digit = at_ < pattern_.size() ? hex_digit(pattern_[at_]) : -1;
      refuse_if(digit < 0, "a hexadecimal escape that is not well formed");
      value = value * 16 + static_cast<std::uint32_t>(digit);
      ++at_;
    }
    refuse_if(value >= 0xD800 && value < 0xE000, "a surrogate");
    return value;
  }
  [[nodiscard]] std::uint32_t braced_hexadecimal() {
    std::uint32_t value = 0;
    int n_digits = 0;
    while (!is_at('}')) {
      value = value * 16 + hexadecimal(1);
      refuse_if(++n_digits > 6 || value > CharacterSet::kLast, "a character above U+10FFFF");
    }
    ++at_;
    refuse_if(n_digits == 0 || (value >= 0xD800 && value < 0xE000), "a surrogate");
    return value;
  }
  [[nodiscard]] static int hex_digit(char c) {
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    if (c >= 'A' && c <= 'F') return c - 'A' + 10;
    return -1;
  }

  /// A class up to its closing bracket.
  [[nodiscard]] CharacterSet bracketed() {
    const bool is_negated = take("^");
    refuse_if(is_at(']'), "an empty class");
    std::vector<CharacterSet::Range> ranges;
    while (!take("]")) {
      refuse_if(at_ == pattern_.size(), "a class that does not end");
      refuse_if(is_at('['), "an opening bracket in a class without a backslash");
      const CharacterSet first = class_member(is_negated);
      const bool is_range = is_at('-') && at_ + 1 < pattern_.size() && pattern_[at_ + 1] != ']';
      if (!is_range) {
        ranges.insert(ranges.end(), first.ranges().begin(), first.ranges().end());
        continue;
      }
      ++at_;
      const CharacterSet last = class_member(is_negated);
      refuse_if(!is_single(first) || !is_single(last), "a range from or to a class");
      refuse_if(last.ranges()[0].first < first.ranges()[0].first,
                "a range with its bounds exchanged");
      ranges.push_back({first.ranges()[0].first, last.ranges()[0].first});
    }
    builder_->meter().spend(ranges.size());
    const CharacterSet set(std::move(ranges));
    return is_negated ? set.complement() : set;
  }
  [[nodiscard]] static bool is_single(const CharacterSet& set) {
    return set.ranges().size() == 1 && set.ranges()[0].first == set.ranges()[0].last;
  }

  [[nodiscard]] CharacterSet class_member(bool is_negated) {
    refuse_if(at_ == pattern_.size(), "a class that does not end");
    if (take("\\")) {
      if (is_at('b')) {
        ++at_;
        return CharacterSet({{'\b', '\b'}});
      }
      return is_at('-') ? (++at_, CharacterSet({{'-', '-'}})) : escape(is_negated);
    }
    const std::uint32_t c = take_character();
    return CharacterSet({{c, c}});
  }

  GrammarBuilder* builder_;
  std::string_view pattern_;
  bool is_search_;
  Spell spell_;
  std::size_t at_ = 0;
};

}  // namespace detail

/// The texts that match `pattern` as a whole.
///
/// Errors:  \throws Error(kConfig) naming what is not supported or not well formed, never the pattern.
[[nodiscard]] inline std::shared_ptr<const Grammar> compile_regex(
    std::string_view pattern, const GrammarBudget& budget = {}) {
  detail::GrammarMeter meter(budget);
  detail::GrammarBuilder builder(meter);
  const auto spell = [&](const detail::CharacterSet& set) { return detail::utf8_of(builder, set); };
  return builder.finish(detail::RegexReader(builder, pattern, false, spell).read());
}

}  // namespace lmd::text
