/// \file  Ctrl-C as something that running work asks about, so that nothing is left half done.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <cerrno>
#include <csignal>

#include <fcntl.h>
#include <poll.h>
#include <unistd.h>

namespace lmd::apps {

/// Thrown by work that was interrupted; ends the program with ExitCode::kInterrupted.
struct Interrupted {};

namespace detail {

inline std::atomic<bool> is_interrupted{false};
static_assert(std::atomic<bool>::is_always_lock_free, "a signal handler writes it");

/// A pipe that gets a byte for each Ctrl-C, so that waiting for input ends whenever it comes; -1
/// before catch_interrupts().
inline int interrupt_pipe[2] = {-1, -1};

/// The second one in a row, with nobody asking in between, ends the program at once.
inline void on_interrupt(int) {
  if (is_interrupted.exchange(true)) ::_exit(130);
  const int saved = errno;
  (void)!::write(interrupt_pipe[1], "", 1);
  errno = saved;
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

enum class Input { kReady, kInterrupted };

/// Waits until standard input has something, or its end, or Ctrl-C was pressed; takes note of the
/// latter.
/// \pre catch_interrupts() was called
[[nodiscard]] inline Input wait_for_input() {
  for (;;) {
    if (take_interrupt()) return Input::kInterrupted;
    pollfd waits[2] = {{STDIN_FILENO, POLLIN, 0}, {detail::interrupt_pipe[0], POLLIN, 0}};
    if (::poll(waits, 2, -1) <= 0) continue;
    if (waits[1].revents == 0) return Input::kReady;
    char bytes[64];
    (void)!::read(detail::interrupt_pipe[0], bytes, sizeof bytes);
  }
}

/// From here on Ctrl-C is asked about instead of ending the program. May be called again.
inline void catch_interrupts() {
  const bool is_first = detail::interrupt_pipe[0] < 0;
  if (is_first && ::pipe2(detail::interrupt_pipe, O_CLOEXEC | O_NONBLOCK) != 0) return;
  struct sigaction action {};
  action.sa_handler = &detail::on_interrupt;
  ::sigemptyset(&action.sa_mask);
  ::sigaction(SIGINT, &action, nullptr);
}

}  // namespace lmd::apps
