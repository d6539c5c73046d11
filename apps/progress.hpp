/// \file  How far a long step has come: a bar on a terminal, a line now and then elsewhere.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <string>
#include <utility>

#include "interrupt.hpp"
#include "terminal.hpp"
#include "units.hpp"

namespace lmd::apps {

enum class ProgressUnit { kBytes, kTokens, kRequests };

struct ProgressState {
  std::string what;  ///< "loading"
  ProgressUnit unit = ProgressUnit::kBytes;
  std::int64_t done = 0;
  std::int64_t total = 0;
  double seconds = 0.0;  ///< since the beginning

  [[nodiscard]] double fraction() const {
    if (total <= 0) return 0.0;
    return std::clamp(static_cast<double>(done) / static_cast<double>(total), 0.0, 1.0);
  }
  /// Units per second so far.
  [[nodiscard]] double rate() const {
    return seconds > 0.0 ? static_cast<double>(done) / seconds : 0.0;
  }
  [[nodiscard]] double seconds_left() const {
    return rate() > 0.0 ? static_cast<double>(total - done) / rate() : 0.0;
  }
};

[[nodiscard]] inline std::string amount_text(ProgressUnit unit, double amount) {
  if (unit == ProgressUnit::kBytes) return bytes_text(amount);
  return count_text(static_cast<std::int64_t>(amount)) +
         (unit == ProgressUnit::kTokens ? " tokens" : " requests");
}

/// "46 %, 112 MB/s, 3.2 s left"
[[nodiscard]] inline std::string progress_text(const ProgressState& s) {
  std::string text = number_text(100.0 * s.fraction(), 0) + " %";
  if (s.rate() > 0.0) {
    text +=
        ", " + amount_text(s.unit, s.rate()) + "/s, " + seconds_text(s.seconds_left()) + " left";
  }
  return text;
}

/// One line of at most `width` - 1 columns (the last one would wrap): what, bar, numbers. The bar
/// goes first where there is no room.
[[nodiscard]] inline std::string progress_bar(const ProgressState& s, int width) {
  constexpr int kMaxBar = 40;
  constexpr int kMinBar = 5;
  const std::string numbers = progress_text(s);
  const int room = width - 1 - static_cast<int>(s.what.size() + numbers.size()) - 4;
  const int bar = std::min(room, kMaxBar);
  if (bar < kMinBar) {
    return (s.what + ' ' + numbers).substr(0, static_cast<std::size_t>(std::max(width - 1, 0)));
  }
  const auto filled = static_cast<std::size_t>(s.fraction() * bar);
  const auto rest = static_cast<std::size_t>(bar) - filled;
  return s.what + " [" + std::string(filled, '#') + std::string(rest, '.') + "] " + numbers;
}

/// "loading: 96.6 MB in 2.1 s, 46 MB/s"
[[nodiscard]] inline std::string finished_text(const ProgressState& s) {
  return s.what + ": " + amount_text(s.unit, static_cast<double>(s.done)) + " in " +
         seconds_text(s.seconds) + ", " + amount_text(s.unit, s.rate()) + "/s";
}

/// Shows one step on standard error. Neither form uses escape codes, so NO_COLOR has nothing to
/// turn off. Steps shorter than a moment show nothing at all.
class Progress {
 public:
  Progress(std::string what, ProgressUnit unit)
      : state_{.what = std::move(what), .unit = unit}, is_bar_(is_terminal(STDERR_FILENO)) {}
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;
  ~Progress() { clear(); }

  /// \throws Interrupted when Ctrl-C was pressed.
  void update(std::int64_t done, std::int64_t total) {
    throw_if_interrupted();
    state_.done = done;
    state_.total = total;
    state_.seconds = elapsed();
    if (state_.seconds < next_s_) return;
    if (is_bar_) {
      draw();
      next_s_ = state_.seconds + kBarPeriod;
    } else {
      std::fprintf(stderr, "%s: %s\n", state_.what.c_str(), progress_text(state_).c_str());
      next_s_ = state_.seconds + kLinePeriod;
    }
  }

  /// Takes the bar away and, after a step of more than a second, leaves one line.
  void finish() {
    state_.seconds = elapsed();
    clear();
    if (state_.seconds >= kLongStep) std::fprintf(stderr, "%s\n", finished_text(state_).c_str());
  }

  [[nodiscard]] const ProgressState& state() const { return state_; }

 private:
  using Clock = std::chrono::steady_clock;
  static constexpr double kLongStep = 1.0;    // seconds; shorter ones leave no line
  static constexpr double kBarPeriod = 0.1;   // seconds
  static constexpr double kLinePeriod = 5.0;  // seconds

  [[nodiscard]] double elapsed() const {
    return std::chrono::duration<double>(Clock::now() - start_).count();
  }

  void draw() {
    std::string line = progress_bar(state_, terminal_width(STDERR_FILENO));
    const std::size_t length = line.size();
    if (length < drawn_) line.append(drawn_ - length, ' ');
    drawn_ = length;
    std::fprintf(stderr, "\r%s", line.c_str());
    std::fflush(stderr);
  }

  void clear() {
    if (drawn_ == 0) return;
    std::fprintf(stderr, "\r%s\r", std::string(drawn_, ' ').c_str());
    std::fflush(stderr);
    drawn_ = 0;
  }

  ProgressState state_;
  bool is_bar_;
  double next_s_ = kLongStep;  // nothing before: most steps are over by then
  std::size_t drawn_ = 0;      // columns of the bar on the screen
  Clock::time_point start_ = Clock::now();
};

}  // namespace lmd::apps
