/// \file  The chat at a terminal: who may speak, what Ctrl-C means.
// SPDX-License-Identifier: Apache-2.0
#include "chat_loop.hpp"

#include <chrono>
#include <cstdio>
#include <optional>
#include <string>
#include <string_view>

#include "chat_command.hpp"
#include "interrupt.hpp"
#include "line_editor.hpp"
#include "runtime.hpp"
#include "standard_io.hpp"
#include "terminal.hpp"
#include "units.hpp"
#include <unistd.h>

namespace lmd::apps {

namespace {

void write_answer(std::string_view piece) {
  write_standard_output(without_controls(piece));
}

std::string speed_text(const ChatAnswer& answer) {
  return count_text(answer.n_tokens) + " tokens, the first after " +
         seconds_text(answer.first_token_s) + ", " + number_text(answer.tokens_per_s, 1) +
         " tokens/s";
}

/// Shows an answer's pieces, and knows whether the cursor stands behind one of them.
class Shown {
 public:
  void write(std::string_view piece) {
    if (piece.empty()) return;
    write_answer(piece);
    is_inside_line_ = !piece.ends_with('\n');
  }
  void end_line() {
    if (is_inside_line_) write_answer("\n");
    is_inside_line_ = false;
  }

 private:
  bool is_inside_line_ = false;
};

class ChatLoop {
 public:
  ChatLoop(ChatPartner& partner, const ChatLoopOptions& options)
      : partner_(&partner),
        options_(&options),
        style_(style_for(STDERR_FILENO)),
        editor_(history_path()) {}

  ExitCode run() {
    note(options_->needs_double_enter ? "an empty line ends a message; /help shows the commands"
                                      : "/help shows the commands, Ctrl-D leaves");
    for (;;) {
      const std::optional<std::string> text = read_message();
      if (!text) break;
      if (!obey(parse_chat_command(*text))) break;
    }
    return status_;
  }

 private:
  using Clock = std::chrono::steady_clock;
  static constexpr auto kTwice =
      std::chrono::seconds(2);  // between two Ctrl-C that belong together

  static std::string history_path() {
    const std::string models = models_folder();
    return models.substr(0, models.find_last_of('/')) + "/chat_history";
  }

  void note(const std::string& text) const {
    std::fprintf(stderr, "%s%s%s\n", style_.dim, text.c_str(), style_.reset);
  }

  /// Whether this Ctrl-C and the one before it ask to leave.
  bool is_second_interrupt() {
    const auto now = Clock::now();
    const bool is_second = interrupted_at_ && now - *interrupted_at_ < kTwice;
    interrupted_at_ = now;
    if (is_second) status_ = ExitCode::kInterrupted;
    return is_second;
  }

  /// One message, or nothing when the person leaves.
  std::optional<std::string> read_message() {
    const bool needs_double = options_->needs_double_enter;
    const std::string mark = needs_double ? "double enter to end input >>> " : ">>> ";
    std::string text;
    bool is_first = true;
    (void)take_interrupt();  // what was pressed before the prompt is not about the next answer
    for (;;) {
      Line line = editor_.read(is_first ? mark : needs_double ? "" : "... ");
      if (line.outcome == LineOutcome::kEnd) {
        std::fputc('\n', stderr);
        if (!text.empty()) return text;
        return std::nullopt;
      }
      if (line.outcome == LineOutcome::kInterrupted) {
        std::fputc('\n', stderr);
        if (is_second_interrupt()) return std::nullopt;
        if (!line.had_text && is_first) note("Ctrl-C again or Ctrl-D leaves");
        text.clear();
        is_first = true;
        continue;
      }
      is_first = false;
      const bool is_continued = !needs_double && line.text.ends_with('\\');
      if (is_continued) line.text.pop_back();
      if (needs_double && line.text.empty()) return remembered(text);
      text += (text.empty() ? "" : "\n") + line.text;
      if (!needs_double && !is_continued) return remembered(text);
    }
  }

  std::string remembered(const std::string& text) {
    if (!trimmed(text).empty()) editor_.remember(text);
    return text;
  }

  /// False when the person leaves.
  bool obey(const ChatCommand& command) {
    switch (command.verb) {
      case ChatVerb::kEmpty:
        return true;
      case ChatVerb::kExit:
        return false;
      case ChatVerb::kMessage:
        return answer(command.argument);
      case ChatVerb::kHelp:
        std::fputs(chat_help().c_str(), stderr);
        return true;
      case ChatVerb::kStats:
        show_stats();
        return true;
      case ChatVerb::kReset:
        partner_->reset();
        note("a new conversation");
        return true;
      case ChatVerb::kSystem:
        partner_->set_system(command.argument);
        note("a new conversation with this system text");
        return true;
      case ChatVerb::kSet:
        set(command);
        return true;
      case ChatVerb::kUnknown:
        unknown(command.argument);
        return true;
    }
    return true;
  }

  void unknown(const std::string& word) const {
    const std::string near = nearest(word, chat_command_words());
    note("unknown command " + word +
         (near.empty() ? "; /help shows all" : "; did you mean " + near + '?'));
  }

  void set(const ChatCommand& command) {
    try {
      if (!command.argument.empty()) {
        set_by_name(partner_->settings, command.argument, command.value);
      } else {
        std::fputs(settings_text(partner_->settings).c_str(), stderr);
      }
    } catch (const Error& e) {
      note(e.what());
    }
  }

  /// False when Ctrl-C was pressed twice.
  bool answer(const std::string& text) {
    bool is_stopped = false;
    Shown shown;
    try {
      last_ = partner_->ask(text, [&](std::string_view piece) {
        shown.write(piece);
        is_stopped = is_stopped || take_interrupt();
        return !is_stopped;
      });
    } catch (const WriteError&) {
      throw;
    } catch (const Error& e) {
      shown.end_line();
      if (e.code() == ErrorCode::kInternal || e.code() == ErrorCode::kCuda) throw;
      note(e.what());
      return true;
    }
    std::fputs("\n", stdout);
    std::fflush(stdout);
    is_stopped = is_stopped || take_interrupt();
    say_how_it_ended(is_stopped);
    return !is_stopped || !is_second_interrupt();
  }

  void say_how_it_ended(bool is_stopped) const {
    for (const std::string& each : partner_->notes())
      note(each);
    if (is_stopped) note("stopped; Ctrl-C again leaves");
    if (!is_stopped && last_->is_cut) note("cut after " + count_text(last_->n_tokens) + " tokens");
  }

  void show_stats() const {
    const std::string text = "  last answer     " + (last_ ? speed_text(*last_) : "none yet") +
                             '\n' + partner_->stats_text();
    std::fputs(text.c_str(), stderr);
  }

  ChatPartner* partner_;
  const ChatLoopOptions* options_;
  Style style_;
  LineEditor editor_;
  std::optional<ChatAnswer> last_;
  std::optional<Clock::time_point> interrupted_at_;
  ExitCode status_ = ExitCode::kOk;
};

}  // namespace

ExitCode run_chat_loop(ChatPartner& partner, const ChatLoopOptions& options) {
  return ChatLoop(partner, options).run();
}

void answer_once(ChatPartner& partner, const std::string& text) {
  Shown shown;
  try {
    const ChatAnswer answer = partner.ask(text, [&](std::string_view piece) {
      shown.write(piece);
      throw_if_interrupted();
      return true;
    });
    throw_if_interrupted();
    shown.end_line();
    if (answer.is_cut) {
      std::fprintf(stderr, "lmd: the answer was cut after %s tokens\n",
                   count_text(answer.n_tokens).c_str());
    }
  } catch (const Error&) {
    shown.end_line();
    throw;
  }
}

}  // namespace lmd::apps
