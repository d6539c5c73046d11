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
#include "standard_io.hpp"
#include "terminal.hpp"
#include "units.hpp"
#include <unistd.h>

namespace lmd::apps {

namespace {

void write_answer(std::string_view piece) {
  write_standard_output(without_controls(piece));
}

std::string speed_text(const serve::Answer& answer) {
  return count_text(std::ssize(answer.ids)) + " tokens, the first after " +
         seconds_text(answer.first_token_s) + ", " + number_text(answer.decode_tokens_per_s(), 1) +
         " tokens/s";
}

class ChatLoop {
 public:
  ChatLoop(ChatSession& session, const Runtime& runtime, const ChatLoopOptions& options)
      : session_(&session),
        runtime_(&runtime),
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
        session_->reset();
        note("a new conversation");
        return true;
      case ChatVerb::kSystem:
        session_->set_system(command.argument);
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
        set_by_name(session_->settings, command.argument, command.value);
      } else {
        std::fputs(settings_text(session_->settings).c_str(), stderr);
      }
    } catch (const Error& e) {
      note(e.what());
    }
  }

  /// False when Ctrl-C was pressed twice.
  bool answer(const std::string& text) {
    bool is_stopped = false;
    try {
      last_ = session_->ask(text, [&](std::string_view piece) {
        write_answer(piece);
        is_stopped = take_interrupt();
        return !is_stopped;
      });
    } catch (const WriteError&) {
      throw;
    } catch (const Error& e) {
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
    if (session_->n_dropped() > 0) {
      note("the oldest " + std::to_string(session_->n_dropped()) +
           " turns were dropped: the conversation had outgrown " +
           count_text(session_->session_len()) + " tokens");
    }
    if (is_stopped) note("stopped; Ctrl-C again leaves");
    if (!is_stopped && last_->finish == engine::FinishReason::kLength)
      note("cut after " + count_text(std::ssize(last_->ids)) + " tokens");
  }

  void show_stats() const {
    const engine::EngineStats& stats = runtime_->engine->stats();
    std::string text = "  last answer     " + (last_ ? speed_text(*last_) : "none yet") + '\n';
    text += "  context         " + count_text(session_->n_context()) + " of " +
            count_text(session_->session_len()) + " tokens\n";
    text += "  prompts         " + count_text(stats.prompt_tokens) + " tokens, " +
            count_text(stats.reused_tokens) + " of them from the prefix cache\n";
    text += "  answers         " + count_text(stats.generated_tokens) + " tokens\n";
    std::fputs(text.c_str(), stderr);
  }

  ChatSession* session_;
  const Runtime* runtime_;
  const ChatLoopOptions* options_;
  Style style_;
  LineEditor editor_;
  std::optional<serve::Answer> last_;
  std::optional<Clock::time_point> interrupted_at_;
  ExitCode status_ = ExitCode::kOk;
};

}  // namespace

ExitCode run_chat_loop(ChatSession& session,
                       const Runtime& runtime,
                       const ChatLoopOptions& options) {
  return ChatLoop(session, runtime, options).run();
}

void answer_once(ChatSession& session, const std::string& text) {
  bool ends_line = false;
  const serve::Answer answer = session.ask(text, [&](std::string_view piece) {
    write_answer(piece);
    throw_if_interrupted();
    ends_line = piece.ends_with('\n');
    return true;
  });
  throw_if_interrupted();
  if (!ends_line) write_answer("\n");
  if (answer.finish == engine::FinishReason::kLength) {
    std::fprintf(stderr, "lmd: the answer was cut after %s tokens\n",
                 count_text(std::ssize(answer.ids)).c_str());
  }
}

}  // namespace lmd::apps
