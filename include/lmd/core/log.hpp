/// \file  One log sink with four levels. Nothing in kernels logs, nothing logs per token.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <cstdio>
#include <string_view>

namespace lmd {

enum class LogLevel { kError, kWarn, kInfo, kDebug };

/// Receives every message at or above the chosen level, one line each, without a line end.
using LogSink = void (*)(LogLevel, std::string_view);

namespace detail {

inline void log_to_stderr(LogLevel level, std::string_view text) {
  constexpr const char* kNames[] = {"error", "warn", "info", "debug"};
  std::fprintf(stderr, "lmd %s: %.*s\n", kNames[static_cast<int>(level)],
               static_cast<int>(text.size()), text.data());
}

inline std::atomic<LogSink> log_sink{&log_to_stderr};
inline std::atomic<LogLevel> log_level{LogLevel::kWarn};

}  // namespace detail

/// Replaces the sink (stderr until then). Null drops everything.
inline void set_log_sink(LogSink sink) {
  detail::log_sink.store(sink);
}

/// Messages less urgent than `level` are dropped. The default is kWarn.
inline void set_log_level(LogLevel level) {
  detail::log_level.store(level);
}

/// One event in one line, as key=value pairs where it carries values.
inline void log(LogLevel level, std::string_view text) {
  if (level > detail::log_level.load(std::memory_order_relaxed)) return;
  if (const LogSink sink = detail::log_sink.load(std::memory_order_relaxed)) sink(level, text);
}

}  // namespace lmd
