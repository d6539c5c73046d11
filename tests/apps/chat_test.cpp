/// \file  Tests of the chat's parts that need no model: commands, settings, trimming, progress.
// SPDX-License-Identifier: Apache-2.0
#include <lmd/core/error.hpp>

#include <string>
#include <vector>

#include "../../apps/answer_settings.hpp"
#include "../../apps/chat_command.hpp"
#include "../../apps/conversation.hpp"
#include "../../apps/progress.hpp"
#include <doctest/doctest.h>

using namespace lmd;
using namespace lmd::apps;

namespace {

struct Said {
  std::string role;
  std::string content;
};

/// Roles' first letters and contents: "s:x u:1 a:2".
std::string shown(const std::vector<Said>& messages) {
  std::string text;
  for (const Said& m : messages) {
    if (!text.empty()) text += ' ';
    text += std::string(1, m.role[0]) + ':' + m.content;
  }
  return text;
}

std::vector<Said> conversation(bool has_system, int n_turns) {
  std::vector<Said> messages;
  if (has_system) messages.push_back({"system", "x"});
  for (int i = 1; i <= n_turns; ++i) {
    messages.push_back({"user", std::to_string(i)});
    if (i < n_turns) messages.push_back({"assistant", std::to_string(i)});
  }
  return messages;
}

auto at_most(std::size_t n) {
  return [n](const std::vector<Said>& messages) { return messages.size() <= n; };
}

}  // namespace

TEST_CASE("lines that begin with a slash are commands, and so are end and exit alone") {
  CHECK(parse_chat_command("/help").verb == ChatVerb::kHelp);
  CHECK(parse_chat_command("  /reset \n").verb == ChatVerb::kReset);
  CHECK(parse_chat_command("/stats").verb == ChatVerb::kStats);
  CHECK(parse_chat_command("end").verb == ChatVerb::kReset);
  CHECK(parse_chat_command("exit").verb == ChatVerb::kExit);
  CHECK(parse_chat_command("/exit").verb == ChatVerb::kExit);
  CHECK(parse_chat_command("/quit").verb == ChatVerb::kExit);
  CHECK(parse_chat_command("").verb == ChatVerb::kEmpty);
  CHECK(parse_chat_command(" \n\t").verb == ChatVerb::kEmpty);
}

TEST_CASE("everything else is a message, as it was typed") {
  for (const char* text : {"hello", "end of the story?", "exit the loop", "/usr/bin/env is a path",
                           "/help\nis a command", " two\nlines "}) {
    const ChatCommand command = parse_chat_command(text);
    CHECK(command.verb == ChatVerb::kMessage);
    CHECK(command.argument == text);
  }
}

TEST_CASE("arguments of commands") {
  const ChatCommand system = parse_chat_command("/system You are a\npirate.");
  CHECK(system.verb == ChatVerb::kSystem);
  CHECK(system.argument == "You are a\npirate.");
  const ChatCommand set = parse_chat_command("/set temperature  0.5");
  CHECK(set.verb == ChatVerb::kSet);
  CHECK(set.argument == "temperature");
  CHECK(set.value == "0.5");
  CHECK(parse_chat_command("/set top_k=3").value == "3");
  CHECK(parse_chat_command("/set stop a b").value == "a b");
  CHECK(parse_chat_command("/set").argument.empty());
  const ChatCommand unknown = parse_chat_command("/rest");
  CHECK(unknown.verb == ChatVerb::kUnknown);
  CHECK(nearest(unknown.argument, chat_command_words()) == "/reset");
}

TEST_CASE("settings are changed by name, and refused with name, value and range") {
  AnswerSettings s;
  set_by_name(s, "temperature", "0.25");
  set_by_name(s, "top-k", "7");
  set_by_name(s, "stop", "END");
  CHECK(s.temperature == 0.25);
  CHECK(s.top_k == 7);
  CHECK(s.stop == std::vector<std::string>{"END"});
  set_by_name(s, "stop", "");
  CHECK(s.stop.empty());
  const auto message = [&](const char* key, const char* value) {
    try {
      set_by_name(s, key, value);
    } catch (const Error& e) {
      return std::string(e.what());
    }
    return std::string("accepted");
  };
  CHECK(message("temperature", "3") == "temperature '3': must be a number from 0 to 2");
  CHECK(message("temperature", "nan") == "temperature 'nan': must be a number from 0 to 2");
  CHECK(message("temperature", "") == "temperature '': must be a number from 0 to 2");
  CHECK(message("max_new_tokens", "0") ==
        "max_new_tokens '0': must be an integer from 1 to 16777216");
  CHECK(message("top_k", "1x") == "top_k '1x': must be an integer from 0 to 1000000");
  CHECK(message("temprature", "1") == "unknown setting temprature; did you mean temperature?");
  CHECK(settings_text(s).find("top_k") != std::string::npos);
}

TEST_CASE("a conversation that fits stays whole") {
  std::vector<Said> messages = conversation(true, 3);
  CHECK(drop_oldest_turns(messages, at_most(6)) == 0);
  CHECK(messages.size() == 6);
}

TEST_CASE("the oldest turns go first, system and the last message never") {
  std::vector<Said> messages = conversation(true, 3);
  CHECK(drop_oldest_turns(messages, at_most(5)) == 1);
  CHECK(shown(messages) == "s:x u:2 a:2 u:3");
  CHECK(drop_oldest_turns(messages, at_most(0)) == 1);
  CHECK(shown(messages) == "s:x u:3");
  messages = conversation(false, 3);
  CHECK(drop_oldest_turns(messages, at_most(1)) == 2);
  CHECK(shown(messages) == "u:3");
  messages.clear();
  CHECK(drop_oldest_turns(messages, [](const auto&) { return false; }) == 0);
}

TEST_CASE("room for the answer: what it may have, at most a quarter of the session") {
  CHECK(answer_reserve(8192, 1024) == 1024);
  CHECK(answer_reserve(1000, 1024) == 250);
  CHECK(answer_reserve(2, 1024) == 1);
}

TEST_CASE("a progress bar fills the width and never reaches its last column") {
  const ProgressState half{"loading", ProgressUnit::kBytes, 50'000'000, 100'000'000, 2.0};
  CHECK(progress_text(half) == "50 %, 25.0 MB/s, 2.0 s left");
  for (int width = 0; width < 200; ++width) {
    const std::string bar = progress_bar(half, width);
    CHECK(static_cast<int>(bar.size()) <= std::max(width - 1, 0));
    CHECK(bar.find('\033') == std::string::npos);
  }
  CHECK(progress_bar(half, 200) ==
        "loading [####################....................] 50 %, 25.0 MB/s, 2.0 s left");
  CHECK(finished_text(half) == "loading: 50.0 MB in 2.0 s, 25.0 MB/s");
}

TEST_CASE("progress before the first unit and past the last") {
  const ProgressState none{"evaluating", ProgressUnit::kTokens, 0, 0, 0.0};
  CHECK(progress_text(none) == "0 %");
  const ProgressState over{"evaluating", ProgressUnit::kTokens, 20, 10, 1.0};
  CHECK(over.fraction() == 1.0);
}
