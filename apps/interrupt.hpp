/// \file  Ctrl-C as something that running work asks about, so that nothing is left half done.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <csignal>

#include <unistd.h>

namespace lmd::apps {

/// Thrown by work that was interrupted; ends the program with ExitCode::kInterrupted.
struct Interrupted {};

namespace detail {

inline std::atomic<bool> is_interrupted{false};
static_assert(std::atomic<bool>::is_always_lock_free, "a signal handler writes it");

/// The second one in a row, with nobody asking in between, ends the program at once.
inline void on_interrupt(int) {
  if (is_interrupted.exchange(true)) ::_exit(130);
}

}  // namespace detail

/// Whether Ctrl-C was pressed since the last call; asking takes note of it.
[[nodiscard]] inline bool take_interrupt() {
  return detail::is_interrupted.exchange(false);
}

/// \throws Interrupted when Ctrl-C was pressed.
inline void throw_if_interrupted() {
  if (take_interrupt()) throw Interrupted{};
}

/// From here on Ctrl-C is asked about instead of ending the program. Slow calls return EINTR.
inline void catch_interrupts() {
  struct sigaction action {};
  action.sa_handler = &detail::on_interrupt;
  ::sigemptyset(&action.sa_mask);
  ::sigaction(SIGINT, &action, nullptr);
}

}  // namespace lmd::apps
