/// \file  The parts of JSON as expressions of a grammar.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/json/json.hpp>
#include <lmd/text/character_set.hpp>
#include <lmd/text/grammar.hpp>
#include <lmd/text/grammar_budget.hpp>
#include <lmd/text/grammar_builder.hpp>

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace lmd::text::detail {

/// JSON as models may write it. White space is one optional space behind each comma and colon that separates, and
/// none elsewhere: both `{"a":1,"b":2}` and Python's `{"a": 1, "b": 2}`, and no way to go on with spaces
/// for ever. Numbers are bounded in length, so that every reader can hold them: 18 digits before the point,
/// 17 behind it, 2 of the exponent.
class JsonGrammar {
 public:
  using Expr = GrammarBuilder::Expr;

  explicit JsonGrammar(GrammarBuilder& builder) : b_(&builder) {}

  [[nodiscard]] GrammarBuilder& builder() { return *b_; }

  [[nodiscard]] Expr comma() { return b_->sequence({b_->text(","), b_->optional(b_->text(" "))}); }
  [[nodiscard]] Expr colon() { return b_->sequence({b_->text(":"), b_->optional(b_->text(" "))}); }

  /// A character in a string in any of its spellings. A surrogate pair is one character, half of one is none.
  [[nodiscard]] Expr character() {
    const Expr hex = hex_digit("");
    const Expr plain =
        b_->choice({b_->sequence({hex_digit("dD"), hex, hex, hex}),
                    b_->sequence({one_of("dD"), b_->byte_range('0', '7'), hex, hex})});
    const Expr high = b_->sequence({one_of("dD"), one_of("89abAB"), hex, hex});
    const Expr low = b_->sequence({one_of("dD"), one_of("cdefCDEF"), hex, hex});
    const Expr pair = b_->sequence({high, b_->text("\\u"), low});
    const Expr escaped = b_->choice(
        {one_of("\"\\/bfnrt"), b_->sequence({b_->text("u"), b_->choice({plain, pair})})});
    return b_->choice({utf8_of(*b_, unescaped()), b_->sequence({b_->text("\\"), escaped})});
  }

  /// A character of `set` as a string spells it at its shortest.
  [[nodiscard]] Expr shortest_character(const CharacterSet& set) {
    std::vector<Expr> parts = {utf8_of(*b_, set.without(unescaped().complement()))};
    for (std::uint32_t c = 0; c <= '\\'; ++c) {
      if (!unescaped().contains(c) && set.contains(c)) parts.push_back(b_->text(escape_of(c)));
    }
    return b_->choice(std::move(parts));
  }

  /// A string of `min` to `max` characters.
  [[nodiscard]] Expr string(int min = 0, int max = GrammarBuilder::kUnbounded) {
    const auto [at, is_new] = strings_.try_emplace({min, max});
    if (is_new) {
      const Expr rest = b_->repeat_until(character(), min, max, "\"");
      at->second = b_->call_of(b_->sequence({b_->text("\""), rest}));
    }
    return at->second;
  }
  [[nodiscard]] Expr quoted(Expr content) {
    return b_->sequence({b_->text("\""), content, b_->text("\"")});
  }

  [[nodiscard]] Expr digits(int min, int max) {
    return b_->repeat(b_->byte_range('0', '9'), min, max);
  }
  /// Without a sign.
  [[nodiscard]] Expr natural() {
    return b_->choice(
        {b_->text("0"), b_->sequence({b_->byte_range('1', '9'), digits(0, kIntegerDigits - 1)})});
  }
  [[nodiscard]] Expr integer() { return b_->sequence({b_->optional(b_->text("-")), natural()}); }
  [[nodiscard]] Expr number() {
    const Expr fraction = b_->sequence({b_->text("."), digits(1, kFractionDigits)});
    const Expr exponent = b_->sequence({one_of("eE"), b_->optional(one_of("+-")), digits(1, 2)});
    return b_->sequence({integer(), b_->optional(fraction), b_->optional(exponent)});
  }

  /// Any value; objects and arrays in it nest as deep as an answer may.
  [[nodiscard]] Expr value() {
    if (!has_value_) {
      has_value_ = true;
      value_ = b_->rule(false);
      object_ = b_->rule(true);
      array_ = b_->rule(true);
      const Expr any = b_->call(value_);
      b_->define(value_, b_->choice({string(), number(), b_->text("true"), b_->text("false"),
                                     b_->text("null"), b_->call(object_), b_->call(array_)}));
      b_->define(object_, braced("{", b_->sequence({string(), colon(), any}), "}"));
      b_->define(array_, braced("[", any, "]"));
    }
    return b_->call(value_);
  }
  [[nodiscard]] Expr object() {
    (void)value();
    return b_->call(object_);
  }
  [[nodiscard]] Expr array() {
    (void)value();
    return b_->call(array_);
  }

  /// Any number of `member`, separated by commas.
  [[nodiscard]] Expr braced(std::string_view open, Expr member, std::string_view close) {
    const Expr more = b_->repeat(b_->sequence({comma(), member}), 0, GrammarBuilder::kUnbounded);
    return b_->sequence(
        {b_->text(open), b_->optional(b_->sequence({member, more})), b_->text(close)});
  }

  /// This value and no other, its keys in this order.
  [[nodiscard]] Expr literal(const json::OrderedJson& value) {
    if (!value.is_structured()) return b_->text(text_of(value));
    std::vector<Expr> parts = {b_->text(value.is_object() ? "{" : "[")};
    for (auto at = value.begin(); at != value.end(); ++at) {
      if (at != value.begin()) parts.push_back(comma());
      if (value.is_object()) {
        parts.push_back(b_->text(text_of(at.key())));
        parts.push_back(colon());
      }
      parts.push_back(literal(*at));
    }
    parts.push_back(b_->text(value.is_object() ? "}" : "]"));
    return b_->sequence(std::move(parts));
  }

  /// The shortest text of a value. \pre its strings are UTF-8
  [[nodiscard]] static std::string text_of(const json::OrderedJson& value) { return value.dump(); }

  /// The characters that stand in strings as they are.
  [[nodiscard]] static CharacterSet unescaped() {
    return CharacterSet({{0x20, 0x21}, {0x23, 0x5B}, {0x5D, CharacterSet::kLast}});
  }

  static constexpr int kIntegerDigits = 18;
  static constexpr int kFractionDigits = 17;

 private:
  [[nodiscard]] Expr one_of(std::string_view bytes) {
    std::vector<Expr> parts;
    for (const char c : bytes)
      parts.push_back(b_->text({&c, 1}));
    return b_->choice(std::move(parts));
  }
  /// A hexadecimal digit but those of `without`.
  [[nodiscard]] Expr hex_digit(std::string_view without) {
    std::string digits;
    for (const char c : std::string_view("0123456789abcdefABCDEF")) {
      if (without.find(c) == std::string_view::npos) digits += c;
    }
    return one_of(digits);
  }
  [[nodiscard]] static std::string escape_of(std::uint32_t c) {
    const std::string quoted = text_of(std::string(1, static_cast<char>(c)));
    return quoted.substr(1, quoted.size() - 2);
  }

  GrammarBuilder* b_;
  std::map<std::pair<int, int>, Expr> strings_;  // by their bounds
  GrammarBuilder::Rule value_, object_, array_;
  bool has_value_ = false;
};

}  // namespace lmd::text::detail

namespace lmd::text {

/// Any JSON object, nested at most `budget.answer_depth` deep.
[[nodiscard]] inline std::shared_ptr<const Grammar> compile_json_object(
    const GrammarBudget& budget = {}) {
  detail::GrammarMeter meter(budget);
  detail::GrammarBuilder builder(meter);
  return builder.finish(detail::JsonGrammar(builder).object());
}

}  // namespace lmd::text
