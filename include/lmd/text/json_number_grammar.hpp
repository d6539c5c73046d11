/// \file  Numbers of JSON between bounds as expressions of a grammar.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/json/json.hpp>
#include <lmd/text/grammar_builder.hpp>
#include <lmd/text/json_grammar.hpp>

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace lmd::text::detail {

/// One end of a range of numbers.
struct NumberBound {
  double value = 0.0;
  bool is_exclusive = false;
};

/// Numbers from `low` to `high`, either of which may be absent.
struct NumberRange {
  std::optional<NumberBound> low;
  std::optional<NumberBound> high;
};

/// Compares digit by digit, as one compares decimals by hand. Bounded numbers have no exponent, and so many digits
/// in all that two of them are never the same double.
class JsonNumberRange {
 public:
  using Expr = GrammarBuilder::Expr;

  explicit JsonNumberRange(JsonGrammar& json) : json_(&json), b_(&json.builder()) {}

  [[nodiscard]] Expr integer(const NumberRange& range) {
    std::int64_t low = -kMax;
    std::int64_t high = kMax;
    if (range.low) {
      const double least = std::ceil(range.low->value);
      if (least > kMaxDouble) return b_->nothing();
      if (least > -kMaxDouble) low = static_cast<std::int64_t>(least);
      if (range.low->is_exclusive && least == range.low->value) ++low;
    }
    if (range.high) {
      const double most = std::floor(range.high->value);
      if (most < -kMaxDouble) return b_->nothing();
      if (most < kMaxDouble) high = static_cast<std::int64_t>(most);
      if (range.high->is_exclusive && most == range.high->value) --high;
    }
    std::vector<Expr> parts;
    if (low < 0) {
      parts.push_back(b_->sequence({b_->text("-"), whole(std::max<std::int64_t>(1, -high), -low)}));
    }
    if (high >= 0) parts.push_back(whole(std::max<std::int64_t>(0, low), high));
    return b_->choice(std::move(parts));
  }

  [[nodiscard]] Expr number(const NumberRange& range) {
    const std::optional<Decimal> low = decimal(range.low);
    const std::optional<Decimal> high = decimal(range.high);
    std::vector<Expr> parts;
    const Decimal zero{};
    if (!high || (!high->is_negative && !(is_zero(*high) && high->is_exclusive))) {
      parts.push_back(magnitude(low && !low->is_negative ? *low : zero, high));
    }
    if (!low || low->is_negative) {
      Decimal least{};
      least.is_exclusive = true;  // minus nought is left to the other half
      if (high && high->is_negative) least = *high;
      parts.push_back(b_->sequence({b_->text("-"), magnitude(least, low)}));
    }
    return b_->choice(std::move(parts));
  }

 private:
  /// The absolute value of a bound in decimal.
  struct Decimal {
    bool is_negative = false;
    bool is_exclusive = false;
    std::int64_t whole = 0;
    std::string fraction;  // without zeros at the end
  };
  static constexpr std::int64_t kMax =
      999'999'999'999'999'999;  // JsonGrammar::kIntegerDigits nines
  static constexpr double kMaxDouble = 1e18;
  static constexpr std::size_t kSignificantDigits = 15;  // that always fit into a double

  [[nodiscard]] static bool is_zero(const Decimal& d) { return d.whole == 0 && d.fraction.empty(); }

  /// The shortest decimal that is this double. Beyond all numbers that are written, the largest of these.
  [[nodiscard]] static std::optional<Decimal> decimal(const std::optional<NumberBound>& bound) {
    if (!bound) return std::nullopt;
    Decimal out{bound->value < 0.0, bound->is_exclusive, 0, {}};
    const double value = std::fabs(bound->value);
    if (value >= kMaxDouble) {
      out.whole = kMax;
      out.is_exclusive = false;
      return out;
    }
    std::array<char, 400> buffer{};
    const auto end = std::to_chars(buffer.data(), buffer.data() + buffer.size(), value,
                                   std::chars_format::fixed);
    const std::string_view text(buffer.data(), static_cast<std::size_t>(end.ptr - buffer.data()));
    const std::size_t point = std::min(text.find('.'), text.size());
    out.whole = static_cast<std::int64_t>(value);
    if (point < text.size()) out.fraction = text.substr(point + 1);
    while (out.fraction.ends_with('0'))
      out.fraction.pop_back();
    return out;
  }

  /// Positive decimals from `low` to `high`.
  [[nodiscard]] Expr magnitude(const Decimal& low, const std::optional<Decimal>& high) {
    const std::int64_t most = high ? high->whole : kMax;
    if (low.whole > most) return b_->nothing();
    const std::size_t n_whole = std::to_string(high ? most : low.whole).size();
    n_fraction_ = static_cast<int>(kSignificantDigits - std::min(n_whole, kSignificantDigits));
    const Expr any = fraction_from({}, false);
    const Expr from_low = fraction_from(low.fraction, low.is_exclusive);
    if (!high) {
      return b_->choice({b_->sequence({whole(low.whole, low.whole), from_low}),
                         b_->sequence({whole(low.whole + 1, kMax), any})});
    }
    const Expr to_high = fraction_to(high->fraction, high->is_exclusive);
    if (low.whole == most) {
      auto both = std::make_shared<Dfa>(
          combine(b_->dfa_of(from_low), b_->dfa_of(to_high), false, b_->meter()));
      return b_->sequence({whole(most, most), b_->automaton(std::move(both))});
    }
    return b_->choice({b_->sequence({whole(low.whole, low.whole), from_low}),
                       b_->sequence({whole(low.whole + 1, most - 1), any}),
                       b_->sequence({whole(most, most), to_high})});
  }

  /// Natural numbers without zeros in front. \pre 0 <= low
  [[nodiscard]] Expr whole(std::int64_t low, std::int64_t high) {
    std::vector<Expr> parts;
    const std::string first = std::to_string(low);
    const std::string last = std::to_string(high);
    if (low > high) return b_->nothing();
    for (std::size_t n = first.size(); n <= last.size(); ++n) {
      const std::string from = n == first.size() ? first : "1" + std::string(n - 1, '0');
      const std::string to = n == last.size() ? last : std::string(n, '9');
      parts.push_back(between(from, to));
    }
    return b_->choice(std::move(parts));
  }

  /// Digit strings of one length.
  [[nodiscard]] Expr between(std::string_view low, std::string_view high) {
    if (low.empty()) return b_->empty();
    const bool is_free = low.find_first_not_of('0') == std::string_view::npos &&
                         high.find_first_not_of('9') == std::string_view::npos;
    if (is_free) return json_->digits(static_cast<int>(low.size()), static_cast<int>(low.size()));
    const std::string_view low_rest = low.substr(1);
    const std::string_view high_rest = high.substr(1);
    if (low[0] == high[0])
      return b_->sequence({digit(low[0], low[0]), between(low_rest, high_rest)});
    const auto n = static_cast<int>(low_rest.size());
    const std::string nines(low_rest.size(), '9');
    const std::string zeros(low_rest.size(), '0');
    return b_->choice({b_->sequence({digit(low[0], low[0]), between(low_rest, nines)}),
                       b_->sequence({digit(low[0] + 1, high[0] - 1), json_->digits(n, n)}),
                       b_->sequence({digit(high[0], high[0]), between(zeros, high_rest)})});
  }
  [[nodiscard]] Expr digit(int first, int last) {
    if (first > last) return b_->nothing();
    return b_->byte_range(static_cast<std::uint8_t>(first), static_cast<std::uint8_t>(last));
  }

  /// A point and digits, or nothing, from 0.`low` on.
  [[nodiscard]] Expr fraction_from(std::string_view low, bool is_exclusive) {
    const Expr behind_point =
        b_->sequence({b_->text("."), digits_from(low, n_fraction_, is_exclusive, true)});
    return low.empty() && !is_exclusive ? b_->optional(behind_point) : behind_point;
  }
  [[nodiscard]] Expr digits_from(std::string_view low, int n, bool is_exclusive, bool is_first) {
    if (low.empty() && !is_exclusive)
      return n > 0 ? json_->digits(is_first ? 1 : 0, n) : end(is_first);
    if (n == 0) return b_->nothing();
    const char d = low.empty() ? '0' : low[0];
    return b_->choice({b_->sequence({digit(d + 1, '9'), json_->digits(0, n - 1)}),
                       b_->sequence({digit(d, d), digits_from(low.substr(low.empty() ? 0 : 1),
                                                              n - 1, is_exclusive, false)})});
  }
  [[nodiscard]] Expr end(bool is_first) { return is_first ? b_->nothing() : b_->empty(); }

  /// A point and digits, or nothing, up to 0.`high`.
  [[nodiscard]] Expr fraction_to(std::string_view high, bool is_exclusive) {
    if (high.empty() && is_exclusive) return b_->nothing();
    return b_->optional(b_->sequence({b_->text("."), digits_to(high, n_fraction_, is_exclusive)}));
  }
  /// At least one digit.
  [[nodiscard]] Expr digits_to(std::string_view high, int n, bool is_exclusive) {
    if (n == 0) return b_->nothing();
    if (high.empty()) return is_exclusive ? b_->nothing() : b_->repeat(digit('0', '0'), 1, n);
    const std::string_view rest = high.substr(1);
    const Expr more = digits_to(rest, n - 1, is_exclusive);
    const Expr tail = rest.empty() && is_exclusive ? more : b_->optional(more);
    return b_->choice({b_->sequence({digit('0', high[0] - 1), json_->digits(0, n - 1)}),
                       b_->sequence({digit(high[0], high[0]), tail})});
  }

  JsonGrammar* json_;
  GrammarBuilder* b_;
  int n_fraction_ = 0;  // digits behind the point
};

}  // namespace lmd::text::detail
