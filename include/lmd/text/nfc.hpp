/// \file  Unicode normalisation form C.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/text/composition_tables.hpp>
#include <lmd/text/decomposition_tables.hpp>
#include <lmd/text/utf8.hpp>

#include <algorithm>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace lmd::text {
namespace detail {

/// Hangul syllables are composed by a formula (Unicode 3.12): 19 leads, 21 vowels, 27 tails or none.
inline constexpr std::uint32_t kHangulFirst = 0xAC00;
inline constexpr std::uint32_t kLeadFirst = 0x1100;
inline constexpr std::uint32_t kVowelFirst = 0x1161;
inline constexpr std::uint32_t kTailNone = 0x11A7;
inline constexpr std::uint32_t kLeads = 19;
inline constexpr std::uint32_t kVowels = 21;
inline constexpr std::uint32_t kTails = 28;
inline constexpr std::uint32_t kSyllables = kLeads * kVowels * kTails;

[[nodiscard]] inline int combining_class(std::uint32_t c) {
  const auto after = std::upper_bound(
      kMarkRanges.begin(), kMarkRanges.end(), c,
      [](std::uint32_t value, const MarkRange& range) { return value < range.first; });
  if (after == kMarkRanges.begin() || c > (after - 1)->last) return 0;
  return (after - 1)->combining_class;
}

/// A character and its combining class.
struct Mark {
  std::uint32_t value;
  int combining;
};

/// Appends the full canonical decomposition of `c`.
inline void append_decomposed(std::uint32_t c, std::vector<Mark>& to) {
  if (c - kHangulFirst < kSyllables) {
    const std::uint32_t i = c - kHangulFirst;
    to.push_back({kLeadFirst + i / (kVowels * kTails), 0});
    to.push_back({kVowelFirst + i / kTails % kVowels, 0});
    if (i % kTails != 0) to.push_back({kTailNone + i % kTails, 0});
    return;
  }
  const auto by_from = [](const auto& row, std::uint32_t value) { return row.from < value; };
  const auto pair = std::lower_bound(kPairs.begin(), kPairs.end(), c, by_from);
  if (pair != kPairs.end() && pair->from == c) {
    append_decomposed(pair->first, to);  // at most 4 deep: the tables hold no cycle
    append_decomposed(pair->second, to);
    return;
  }
  const auto single = std::lower_bound(kSingles.begin(), kSingles.end(), c, by_from);
  if (single != kSingles.end() && single->from == c) return append_decomposed(single->to, to);
  to.push_back({c, combining_class(c)});
}

/// The character that `first` and `second` compose to, 0 when they do not.
[[nodiscard]] inline std::uint32_t composed(std::uint32_t first, std::uint32_t second) {
  if (first - kLeadFirst < kLeads && second - kVowelFirst < kVowels) {
    return kHangulFirst + ((first - kLeadFirst) * kVowels + (second - kVowelFirst)) * kTails;
  }
  const bool is_open_syllable =
      first - kHangulFirst < kSyllables && (first - kHangulFirst) % kTails == 0;
  if (is_open_syllable && second - kTailNone - 1 < kTails - 1) return first + second - kTailNone;
  const auto at = std::lower_bound(kComposable.begin(), kComposable.end(), std::pair(first, second),
                                   [](std::uint16_t row, const auto& wanted) {
                                     const Pair& pair = kPairs[row];
                                     return std::pair(pair.first, pair.second) < wanted;
                                   });
  if (at == kComposable.end()) return 0;
  const Pair& pair = kPairs[*at];
  return pair.first == first && pair.second == second ? pair.from : 0;
}

/// Composes decomposed and ordered characters in place.
inline void compose(std::vector<Mark>& marks) {
  std::size_t n = 0;
  std::size_t starter = marks.size();  // index of the last starter written; size() before the first
  bool is_adjacent = false;            // nothing was written after the starter
  for (std::size_t i = 0; i < marks.size(); ++i) {
    const Mark mark = marks[i];
    const bool is_blocked = !is_adjacent && (n == 0 || marks[n - 1].combining >= mark.combining);
    if (starter < n && !is_blocked) {
      if (const std::uint32_t c = composed(marks[starter].value, mark.value); c != 0) {
        marks[starter].value = c;
        continue;
      }
    }
    is_adjacent = mark.combining == 0;
    if (is_adjacent) starter = n;
    marks[n++] = mark;
  }
  marks.resize(n);
}

}  // namespace detail

/// `text` in normalisation form C. Ill-formed bytes become U+FFFD.
///
/// Source:  Unicode Standard Annex 15, with the tables of Unicode 9: marks assigned later are not
///          reordered, as in the package that vocabularies are trained with.
/// Oracle:  normalizers.NFC() of the package `tokenizers`
[[nodiscard]] inline std::string nfc(std::string_view text) {
  using namespace detail;
  // U+0300 (CC 80) is the first character that normalisation can change or reorder.
  const auto is_below_cc = [](char c) { return static_cast<unsigned char>(c) < 0xCC; };
  if (std::all_of(text.begin(), text.end(), is_below_cc) && is_utf8(text)) return std::string(text);
  std::vector<Mark> marks;
  marks.reserve(text.size());
  for (std::size_t at = 0; at < text.size();) {
    const CodePoint c = decode_utf8(text, at);
    append_decomposed(c.value, marks);
    at += static_cast<std::size_t>(c.n_bytes);
  }
  const auto is_starter = [](const Mark& mark) { return mark.combining == 0; };
  for (auto at = marks.begin(); at != marks.end();) {
    at = std::find_if_not(at, marks.end(), is_starter);
    const auto end = std::find_if(at, marks.end(), is_starter);
    std::stable_sort(at, end,
                     [](const Mark& a, const Mark& b) { return a.combining < b.combining; });
    at = end;
  }
  compose(marks);
  std::string out;
  out.reserve(text.size());
  for (const Mark& mark : marks)
    append_utf8(mark.value, out);
  return out;
}

}  // namespace lmd::text
