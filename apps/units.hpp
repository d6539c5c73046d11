/// \file  Sizes, rates and times as people read them.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <cstdio>
#include <string>

namespace lmd::apps {

/// "96.6 MB" with 1 MB = 1e6 bytes.
[[nodiscard]] inline std::string bytes_text(double bytes) {
  const char* unit = "B";
  for (const char* next : {"KB", "MB", "GB", "TB"}) {
    if (bytes < 1000.0) break;
    bytes /= 1000.0;
    unit = next;
  }
  char text[32];
  const bool is_whole = *unit == 'B' || bytes >= 100.0;
  std::snprintf(text, sizeof text, is_whole ? "%.0f %s" : "%.1f %s", bytes, unit);
  return text;
}

/// "0.8 s", "12 s", "3:05", "2:03:09".
[[nodiscard]] inline std::string seconds_text(double seconds) {
  char text[32];
  if (seconds < 59.5) {
    std::snprintf(text, sizeof text, seconds < 9.95 ? "%.1f s" : "%.0f s", seconds);
    return text;
  }
  const auto whole = static_cast<long long>(seconds < 1e9 ? seconds + 0.5 : 1e9);
  const int s = static_cast<int>(whole % 60);
  const int m = static_cast<int>(whole / 60 % 60);
  if (whole < 3600) {
    std::snprintf(text, sizeof text, "%d:%02d", m, s);
  } else {
    std::snprintf(text, sizeof text, "%lld:%02d:%02d", whole / 3600, m, s);
  }
  return text;
}

/// `digits` behind the point.
[[nodiscard]] inline std::string number_text(double value, int digits) {
  char text[64];
  std::snprintf(text, sizeof text, "%.*f", digits, value);
  return text;
}

/// "190,263"
[[nodiscard]] inline std::string count_text(std::int64_t n) {
  std::string text = std::to_string(n);
  const std::size_t first = n < 0 ? 1 : 0;
  for (std::size_t at = text.size(); at > first + 3;) {
    at -= 3;
    text.insert(at, ",");
  }
  return text;
}

}  // namespace lmd::apps
