/// \file  Which class a character is of.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/text/unicode_tables.hpp>

#include <algorithm>
#include <cstdint>

namespace lmd::text::detail {

[[nodiscard]] constexpr CharClass class_by_search(std::uint32_t code_point) {
  const auto after =
      std::upper_bound(kClassRanges.begin(), kClassRanges.end(), code_point,
                       [](std::uint32_t c, const ClassRange& range) { return c < range.first; });
  if (after == kClassRanges.begin()) return CharClass::kOther;
  const ClassRange& range = *(after - 1);
  return code_point <= range.last ? range.cls : CharClass::kOther;
}

inline constexpr std::array<CharClass, 128> kAsciiClasses = [] {
  std::array<CharClass, 128> classes{};
  for (std::uint32_t c = 0; c < 128; ++c)
    classes[c] = class_by_search(c);
  return classes;
}();
static_assert(kAsciiClasses['a'] == CharClass::kLetter &&
                  kAsciiClasses['7'] == CharClass::kNumber &&
                  kAsciiClasses['\v'] == CharClass::kSpace &&
                  kAsciiClasses['_'] == CharClass::kOther,
              "pre-tokenizers would split ASCII text in the wrong places");

[[nodiscard]] constexpr CharClass class_of(std::uint32_t code_point) {
  return code_point < 128 ? kAsciiClasses[code_point] : class_by_search(code_point);
}

}  // namespace lmd::text::detail
