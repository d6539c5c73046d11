/// \file  How long this process has been running, its loading by the system included.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <fstream>
#include <optional>
#include <sstream>
#include <string>

#include <time.h>
#include <unistd.h>

namespace lmd::apps {

/// Seconds since the process was started, in steps of the system's clock tick (10 ms); empty where
/// the system does not say.
[[nodiscard]] inline std::optional<double> process_age_s() {
  constexpr int kStartTime = 22;  // the field's number in proc(5), in ticks since the boot
  std::ifstream file("/proc/self/stat");
  std::string line;
  std::getline(file, line);
  const std::size_t name_end = line.rfind(')');  // the name before it may hold anything
  if (name_end == std::string::npos) return std::nullopt;
  std::istringstream fields(line.substr(name_end + 1));
  std::string skipped;
  for (int field = 3; field < kStartTime; ++field)
    fields >> skipped;
  double ticks = 0.0;
  timespec now{};
  const auto ticks_per_s = static_cast<double>(::sysconf(_SC_CLK_TCK));
  const bool is_known = (fields >> ticks) && ticks > 0.0 && ticks_per_s > 0.0 &&
                        ::clock_gettime(CLOCK_BOOTTIME, &now) == 0;
  if (!is_known) return std::nullopt;
  const double age = static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec) -
                     ticks / ticks_per_s;
  if (age < 0.0) return std::nullopt;
  return age;
}

}  // namespace lmd::apps
