/// \file  Numbers written into JSON by appending.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <charconv>
#include <cmath>
#include <concepts>
#include <span>
#include <string>
#include <string_view>

namespace lmd::serve {

template <std::integral T>
void append_json_integer(std::string& out, T value) {
  std::array<char, 24> digits;
  const auto end = std::to_chars(digits.data(), digits.data() + digits.size(), value).ptr;
  out.append(digits.data(), end);
}

/// `[1,2,3]`
inline void append_json_integers(std::string& out, std::span<const int> values) {
  out += '[';
  for (std::size_t i = 0; i < values.size(); ++i) {
    if (i > 0) out += ',';
    append_json_integer(out, values[i]);
  }
  out += ']';
}

/// The shortest text that reads back as the same number, as Python's repr() writes it: `1.0`, never `1`,
/// and `nan` and `inf`, which are no JSON.
template <std::floating_point T>
void append_json_real(std::string& out, T value) {
  std::array<char, 40> digits;
  const double size = std::fabs(static_cast<double>(value));
  const bool is_plain = size == 0.0 || (size >= 1e-4 && size < 1e16);
  const auto form = is_plain ? std::chars_format::fixed : std::chars_format::scientific;
  const auto end = std::to_chars(digits.data(), digits.data() + digits.size(), value, form).ptr;
  const std::string_view text(digits.data(), static_cast<std::size_t>(end - digits.data()));
  out += text;
  if (is_plain && text.find('.') == std::string_view::npos) out += ".0";
}

/// A log probability. JSON has no -inf; -9999.0 is what clients know for it.
inline void append_json_logprob(std::string& out, float value) {
  append_json_real(out, std::isfinite(value) ? value : -9999.0f);
}

}  // namespace lmd::serve
