/// \file  Sets of characters, and their UTF-8 as parts of a grammar.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/text/grammar_builder.hpp>
#include <lmd/text/utf8.hpp>

#include <algorithm>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

namespace lmd::text::detail {

/// Code points without surrogates: what UTF-8 can spell.
class CharacterSet {
 public:
  struct Range {
    std::uint32_t first, last;  // both included
    bool operator==(const Range&) const = default;
  };
  static constexpr std::uint32_t kLast = 0x10FFFF;

  CharacterSet() = default;
  explicit CharacterSet(std::vector<Range> ranges) : ranges_(std::move(ranges)) { tidy(); }

  [[nodiscard]] static CharacterSet all() { return CharacterSet({{0, kLast}}); }

  [[nodiscard]] const std::vector<Range>& ranges() const { return ranges_; }  ///< ascending, apart
  [[nodiscard]] bool empty() const { return ranges_.empty(); }
  [[nodiscard]] bool contains(std::uint32_t c) const {
    return std::any_of(ranges_.begin(), ranges_.end(),
                       [&](const Range& r) { return c >= r.first && c <= r.last; });
  }

  void add(const CharacterSet& other) {
    ranges_.insert(ranges_.end(), other.ranges_.begin(), other.ranges_.end());
    tidy();
  }
  [[nodiscard]] CharacterSet complement() const {
    CharacterSet out;
    std::uint32_t next = 0;
    for (const Range& range : ranges_) {
      if (range.first > next) out.ranges_.push_back({next, range.first - 1});
      next = range.last + 1;
    }
    if (next <= kLast) out.ranges_.push_back({next, kLast});
    out.tidy();
    return out;
  }
  [[nodiscard]] CharacterSet without(const CharacterSet& other) const {
    CharacterSet out = complement();
    out.add(other);
    return out.complement();
  }

 private:
  /// Sorts, joins what touches, and takes surrogates out.
  void tidy() {
    std::sort(ranges_.begin(), ranges_.end(),
              [](const Range& a, const Range& b) { return a.first < b.first; });
    std::vector<Range> out;
    const auto put = [&](std::uint32_t first, std::uint32_t last) {
      if (first > last) return;
      if (!out.empty() && first <= out.back().last + 1) {
        out.back().last = std::max(out.back().last, last);
      } else {
        out.push_back({first, last});
      }
    };
    for (const Range& range : ranges_) {
      put(range.first, std::min(range.last, 0xD7FFu));
      put(std::max(range.first, 0xE000u), range.last);
    }
    ranges_ = std::move(out);
  }

  std::vector<Range> ranges_;
};

/// Code points whose UTF-8 has one length as sequences of byte ranges: split where a byte before the last would not
/// take all of its following bytes.
inline void add_utf8_range(GrammarBuilder& builder,
                           std::uint32_t first,
                           std::uint32_t last,
                           std::vector<GrammarBuilder::Expr>& out) {
  constexpr std::uint32_t kLastOfLength[] = {0x7F, 0x7FF, 0xFFFF};
  for (const std::uint32_t end : kLastOfLength) {
    if (first > end || last <= end) continue;
    add_utf8_range(builder, first, end, out);
    return add_utf8_range(builder, end + 1, last, out);
  }
  std::string low, high;
  append_utf8(first, low);
  append_utf8(last, high);
  for (std::size_t i = 1; i < low.size(); ++i) {
    const std::uint32_t tail = (1u << (6 * i)) - 1;  // bits of the last i bytes
    if ((first & ~tail) == (last & ~tail)) continue;
    if ((first & tail) != 0) {
      add_utf8_range(builder, first, first | tail, out);
      return add_utf8_range(builder, (first | tail) + 1, last, out);
    }
    if ((last & tail) != tail) {
      add_utf8_range(builder, first, (last & ~tail) - 1, out);
      return add_utf8_range(builder, last & ~tail, last, out);
    }
  }
  std::vector<GrammarBuilder::Expr> bytes;
  for (std::size_t i = 0; i < low.size(); ++i) {
    bytes.push_back(
        builder.byte_range(static_cast<std::uint8_t>(low[i]), static_cast<std::uint8_t>(high[i])));
  }
  out.push_back(builder.sequence(std::move(bytes)));
}

/// One character of `set` in UTF-8.
[[nodiscard]] inline GrammarBuilder::Expr utf8_of(GrammarBuilder& builder,
                                                  const CharacterSet& set) {
  std::vector<GrammarBuilder::Expr> parts;
  for (const CharacterSet::Range& range : set.ranges())
    add_utf8_range(builder, range.first, range.last, parts);
  return builder.choice(std::move(parts));
}

}  // namespace lmd::text::detail
