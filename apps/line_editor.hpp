/// \file  Lines from a person at a terminal: editing, history, pasted blocks.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <string>

namespace lmd::apps {

enum class LineOutcome {
  kLine,
  kInterrupted,  ///< Ctrl-C
  kEnd,          ///< Ctrl-D on an empty line, or the terminal is gone
};

struct Line {
  LineOutcome outcome = LineOutcome::kEnd;
  std::string text;       ///< without the line end; has inner ones where a block was pasted
  bool had_text = false;  ///< kInterrupted: whether something had been typed
};

/// Reads from standard input, which is a terminal. A bracketed paste is one line, with line ends in
/// it. With libedit there are editing and a history that lives in a file; without, what the terminal
/// itself offers.
///
/// \pre catch_interrupts() was called.
class LineEditor {
 public:
  /// `history_path` may be empty; the history is lost then. A file that cannot be read or written is
  /// no error.
  explicit LineEditor(const std::string& history_path);
  LineEditor(const LineEditor&) = delete;
  LineEditor& operator=(const LineEditor&) = delete;
  ~LineEditor();

  [[nodiscard]] Line read(const std::string& prompt);

  /// Adds a message to the history.
  void remember(const std::string& text);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace lmd::apps
