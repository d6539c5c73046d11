/// \file  What the server writes about itself: a line an event, text or JSON, written by a thread of
///        its own.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/core/log.hpp>
#include <lmd/serve/json_text.hpp>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdio>
#include <ctime>
#include <mutex>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include <unistd.h>

namespace lmd::serve {

/// A value beside a log line's message. Text values are escaped when they are written.
struct LogField {
  LogField(const char* field, std::string_view text) : name(field), value(text) {}
  template <class Number>
    requires std::is_arithmetic_v<Number> LogField(const char* field, Number number)
        : name(field), value(std::to_string(number)), is_number(true) {}

    const char* name;
    std::string value;
    bool is_number = false;
};

namespace detail {

/// "2026-11-28T05:22:04.123Z"
[[nodiscard]] inline std::string utc_text(std::chrono::system_clock::time_point time) {
  const auto ms = std::chrono::duration_cast<std::chrono::milliseconds>(time.time_since_epoch());
  const std::time_t seconds = ms.count() / 1000;
  std::tm utc{};
  ::gmtime_r(&seconds, &utc);
  char text[40];
  const std::size_t n = std::strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%S", &utc);
  std::snprintf(text + n, sizeof text - n, ".%03dZ", static_cast<int>(ms.count() % 1000));
  return text;
}

[[nodiscard]] inline std::string json_line(std::string_view time,
                                           const char* level,
                                           std::string_view message,
                                           const std::vector<LogField>& fields) {
  std::string line = R"({"time":")" + std::string(time) + R"(","level":")" + level +
                     R"(","message":)" + json_string(message);
  for (const LogField& field : fields) {
    line += std::string(",\"") + field.name + "\":";
    line += field.is_number ? field.value : json_string(field.value);
  }
  return line + "}\n";
}

/// Values with spaces, quotes or control characters are quoted as JSON strings: no client can begin a
/// line of its own.
[[nodiscard]] inline std::string text_line(std::string_view time,
                                           const char* level,
                                           std::string_view message,
                                           const std::vector<LogField>& fields) {
  std::string line = std::string(time) + ' ' + level + ' ';
  const std::string quoted = json_string(message);
  line += std::string_view(quoted).substr(1, quoted.size() - 2);
  for (const LogField& field : fields) {
    const bool is_plain = field.value.find_first_not_of(
                              "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
                              "-_./:+[]") == std::string::npos &&
                          !field.value.empty();
    line += std::string(" ") + field.name + '=';
    line += is_plain ? field.value : json_string(field.value);
  }
  return line + '\n';
}

}  // namespace detail

/// Lines go to a file descriptor by way of a bounded queue: nobody who logs waits for a disk or a pipe.
/// When the queue is full, lines are dropped and counted.
class ServerLog {
 public:
  explicit ServerLog(int fd = STDERR_FILENO, bool is_json = false)
      : fd_(fd), is_json_(is_json), thread_([this] { run(); }) {}
  ServerLog(const ServerLog&) = delete;
  ServerLog& operator=(const ServerLog&) = delete;
  ~ServerLog() {
    {
      const std::lock_guard lock(mutex_);
      is_stopping_ = true;
    }
    filled_.notify_one();
    thread_.join();
  }

  void set_level(LogLevel level) { level_ = level; }
  [[nodiscard]] LogLevel level() const { return level_; }
  [[nodiscard]] bool takes(LogLevel level) const { return level <= level_.load(); }

  void write(LogLevel level, std::string_view message, const std::vector<LogField>& fields = {}) {
    if (!takes(level)) return;
    const std::string line = line_of(level, message, fields);
    {
      const std::lock_guard lock(mutex_);
      if (lines_.size() + line.size() > kMaxQueuedBytes) {
        ++n_dropped_;
        return;
      }
      lines_ += line;
    }
    filled_.notify_one();
  }

 private:
  static constexpr std::size_t kMaxQueuedBytes = std::size_t{4} << 20;

  [[nodiscard]] std::string line_of(LogLevel level,
                                    std::string_view message,
                                    const std::vector<LogField>& fields) const {
    constexpr const char* kNames[] = {"error", "warn", "info", "debug"};
    const char* const name = kNames[static_cast<int>(level)];
    const std::string time = detail::utc_text(std::chrono::system_clock::now());
    return is_json_ ? detail::json_line(time, name, message, fields)
                    : detail::text_line(time, name, message, fields);
  }

  void run() {
    std::unique_lock lock(mutex_);
    while (!is_stopping_ || !lines_.empty()) {
      filled_.wait(lock, [this] { return is_stopping_ || !lines_.empty(); });
      std::string lines = std::exchange(lines_, {});
      const std::int64_t n_dropped = std::exchange(n_dropped_, 0);
      lock.unlock();
      if (n_dropped > 0)
        lines += line_of(LogLevel::kWarn, "log lines were dropped, as they came too fast",
                         {{"lines", n_dropped}});
      put(lines);
      lock.lock();
    }
  }

  /// A log that cannot be written stops nothing.
  void put(std::string_view bytes) const {
    while (!bytes.empty()) {
      const ssize_t n = ::write(fd_, bytes.data(), bytes.size());
      if (n <= 0) return;
      bytes.remove_prefix(static_cast<std::size_t>(n));
    }
  }

  const int fd_;
  const bool is_json_;
  std::atomic<LogLevel> level_{LogLevel::kInfo};
  std::mutex mutex_;
  std::condition_variable filled_;
  std::string lines_;
  std::int64_t n_dropped_ = 0;
  bool is_stopping_ = false;
  std::thread thread_;  // last: it uses everything above
};

}  // namespace lmd::serve
