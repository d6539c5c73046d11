/// \file  What a line typed into the chat asks for.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <string>
#include <string_view>
#include <vector>

namespace lmd::apps {

enum class ChatVerb {
  kMessage,  ///< not a command: for the model
  kEmpty,
  kReset,
  kSystem,
  kSet,
  kStats,
  kHelp,
  kExit,
  kUnknown,  ///< begins with / and is none of the above
};

struct ChatCommand {
  ChatVerb verb = ChatVerb::kMessage;
  std::string argument;  ///< the message, the system text, the key of /set, or the unknown word
  std::string value;     ///< of /set
};

struct ChatCommandText {
  const char* word;
  ChatVerb verb;
  const char* form;
  const char* meaning;
};

inline constexpr std::array<ChatCommandText, 9> kChatCommands{{
    {"/reset", ChatVerb::kReset, "/reset", "forget the conversation, keep the system text"},
    {"/system", ChatVerb::kSystem, "/system TEXT", "set the system text and start over"},
    {"/set", ChatVerb::kSet, "/set KEY VALUE", "change a setting; /set alone shows them"},
    {"/stats", ChatVerb::kStats, "/stats", "speed and memory of the conversation so far"},
    {"/help", ChatVerb::kHelp, "/help", "this list"},
    {"/exit", ChatVerb::kExit, "/exit", "leave, as Ctrl-D does"},
    {"/quit", ChatVerb::kExit, "/quit", "the same"},
    {"end", ChatVerb::kReset, "end", "the same as /reset"},
    {"exit", ChatVerb::kExit, "exit", "the same as /exit"},
}};

[[nodiscard]] inline std::string_view trimmed(std::string_view text) {
  constexpr std::string_view kSpace = " \t\r\n";
  const std::size_t begin = text.find_first_not_of(kSpace);
  if (begin == std::string_view::npos) return {};
  return text.substr(begin, text.find_last_not_of(kSpace) + 1 - begin);
}

/// A command is one line; `end` and `exit` count only alone. Text of several lines, or with a second
/// slash in its first word (a path), is always a message.
[[nodiscard]] inline ChatCommand parse_chat_command(std::string_view text) {
  const std::string_view line = trimmed(text);
  if (line.empty()) return {ChatVerb::kEmpty, {}, {}};
  const std::size_t end = line.find_first_of(" \t\n");
  const std::string_view word = line.substr(0, end);
  const std::string_view rest =
      end == std::string_view::npos ? std::string_view() : trimmed(line.substr(end));
  const bool has_slash = word.front() == '/';
  const bool is_path = has_slash && word.find('/', 1) != std::string_view::npos;
  const ChatCommand message{ChatVerb::kMessage, std::string(text), {}};
  if (is_path || (line.find('\n') != std::string_view::npos && word != "/system")) return message;
  for (const ChatCommandText& command : kChatCommands) {
    if (word != command.word) continue;
    if (!has_slash && !rest.empty()) return message;
    if (command.verb != ChatVerb::kSet) return {command.verb, std::string(rest), {}};
    const std::size_t key_end = std::min(rest.find_first_of(" \t="), rest.size());
    const std::string_view key = rest.substr(0, key_end);
    const std::size_t value = rest.find_first_not_of(" \t=", key_end);
    return {ChatVerb::kSet, std::string(key),
            std::string(value == std::string_view::npos ? std::string_view() : rest.substr(value))};
  }
  if (has_slash) return {ChatVerb::kUnknown, std::string(word), {}};
  return message;
}

[[nodiscard]] inline std::vector<std::string> chat_command_words() {
  std::vector<std::string> words;
  for (const ChatCommandText& command : kChatCommands)
    words.emplace_back(command.word);
  return words;
}

[[nodiscard]] inline std::string chat_help() {
  std::string text;
  for (const ChatCommandText& command : kChatCommands) {
    std::string form = command.form;
    form.resize(18, ' ');
    text += "  " + form + command.meaning + '\n';
  }
  return text +
         "  Ctrl-C            stops the answer; twice leaves\n"
         "  \\ at a line's end continues on the next one; a pasted text of many lines is one "
         "message\n";
}

}  // namespace lmd::apps
