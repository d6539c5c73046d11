/// \file  Sizes of memory as people type them: 24G, 40GiB.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/core/error.hpp>

#include <charconv>
#include <cmath>
#include <cstdint>
#include <string>
#include <string_view>

#include <CLI/CLI.hpp>

namespace lmd::apps {

/// Bytes of one `unit`: K, M, G and T, alone or with B, are powers of 1000, with iB of 1024. 0 for
/// any other word: "Gb" would be bits, and a bare number is more likely a slip than a few bytes.
[[nodiscard]] inline double bytes_of_unit(std::string_view unit) {
  constexpr std::string_view kPrefixes = "KMGT";
  if (unit == "B") return 1.0;
  const std::size_t power = unit.empty() ? std::string_view::npos : kPrefixes.find(unit[0]);
  if (power == std::string_view::npos) return 0.0;
  const std::string_view rest = unit.substr(1);
  const double base = rest == "iB" ? 1024.0 : rest == "B" || rest.empty() ? 1000.0 : 0.0;
  return std::pow(base, static_cast<double>(power) + 1.0);
}

/// \throws Error(kConfig) naming the flag unless `text` is a positive number and its unit.
[[nodiscard]] inline std::int64_t parse_byte_size(const std::string& flag,
                                                  const std::string& text) {
  constexpr double kMost = 1e18;
  double number = 0.0;
  const char* const end = text.data() + text.size();
  const auto [stop, error] = std::from_chars(text.data(), end, number, std::chars_format::fixed);
  const double unit = error == std::errc() ? bytes_of_unit({stop, end}) : 0.0;
  const double bytes = std::floor(number * unit);
  const bool is_ok = std::isfinite(bytes) && bytes >= 1.0 && bytes <= kMost;
  LMD_REQUIRE(is_ok, ErrorCode::kConfig,
              flag + " '" + text + "': must be a size with its unit, such as 24G or 24GB (10^9 " +
                  "bytes each) or 24GiB (2^30 bytes each)");
  return static_cast<std::int64_t>(bytes);
}

/// `target` stays as it is unless the flag is given.
inline CLI::Option* add_byte_size(CLI::App& app,
                                  const std::string& flag,
                                  std::int64_t& target,
                                  const std::string& help) {
  const auto parse = [&target, flag](const std::string& text) {
    target = parse_byte_size(flag, text);
  };
  return app.add_option_function<std::string>(flag, parse, help)->type_name("SIZE");
}

}  // namespace lmd::apps
