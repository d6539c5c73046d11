/// \file  A conversation with a model on a server.
// SPDX-License-Identifier: Apache-2.0
#include "remote_session.hpp"

#include <algorithm>
#include <thread>
#include <utility>

#include "../conversation.hpp"
#include "../interrupt.hpp"
#include "../units.hpp"

namespace lmd::apps {

using serve::ClientError;
using serve::ClientFailure;

namespace {

constexpr const char* kChatPath = "/v1/chat/completions";
constexpr const char* kInteractivePath = "/v1/chat/interactive";

bool holds(std::string text, std::string_view word) {
  for (char& c : text)
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  return text.find(word) != std::string::npos;
}

/// Whether a server refuses a request as too long for the model's context.
bool is_too_long(const ClientError& error) {
  return error.kind() == ClientFailure::kStatus &&
         (error.status() == 400 || error.status() == 413) &&
         (holds(error.what(), "context") || holds(error.what(), "input length"));
}

/// Whether a path is unknown, rather than a model, which servers answer with the same status.
bool is_no_such_path(const ClientError& error) {
  return error.status() == 405 || (error.status() == 404 && !holds(error.what(), "model"));
}

}  // namespace

RemoteSession::RemoteSession(RemoteOptions options,
                             AnswerSettings settings,
                             const std::optional<std::string>& system)
    : ChatPartner(std::move(settings)),
      options_(std::move(options)),
      connection_(options_.base, options_.key, options_.limits, [this] {
        if (turn_ == nullptr) {
          throw_if_interrupted();
          return false;
        }
        if (!(*turn_->show)("")) turn_->is_stopped = true;
        return turn_->is_stopped;
      }) {
  if (system) set_system(*system);
}

RemoteSession::~RemoteSession() {
  try {
    end_session();
  } catch (...) {  // it is the server's to forget it
  }
}

const std::string& RemoteSession::model() {
  if (options_.model.empty()) options_.model = connection_.first_model();
  return options_.model;
}

void RemoteSession::reset() {
  end_session();
  const bool has_system = !messages_.empty() && messages_.front().role == "system";
  messages_.resize(has_system ? 1 : 0);
  n_context_ = 0;
}

void RemoteSession::set_system(std::string text) {
  end_session();
  messages_ = {{"system", std::move(text)}};
  n_context_ = 0;
}

/// A server that is gone has forgotten the session, too. `is_answering`: it may still be at it.
void RemoteSession::end_session(bool is_answering) {
  if (!std::exchange(has_session_, false)) return;
  constexpr std::chrono::milliseconds kShort{2000};
  ApiConnection connection(options_.base, options_.key,
                           {.connect = kShort, .head = kShort, .idle = kShort}, {});
  try {
    if (is_answering)
      (void)connection.post(kInteractivePath, interactive_cancel(options_.session_id));
    (void)connection.post(kInteractivePath, interactive_end(options_.session_id));
  } catch (const ClientError&) {
  }
}

ChatAnswer RemoteSession::ask(const std::string& text, const Show& show) {
  const std::vector<Said> before = messages_;
  messages_.push_back({"user", text});
  n_dropped_ = 0;
  n_resumed_ = 0;
  Turn turn{.show = &show};
  try {
    answer(turn);
  } catch (...) {
    turn_ = nullptr;
    if (turn.text.empty()) {
      messages_ = before;
    } else {
      (void)remember(turn);
    }
    throw;
  }
  turn_ = nullptr;
  return remember(turn);
}

void RemoteSession::answer(Turn& turn) {
  (void)model();
  turn_ = &turn;
  for (int n_retries = 0;;) {
    try {
      turn.n_counted = turn.n_chunks;
      turn.usage.reset();
      attempt(turn);
      const bool is_empty = turn.text.empty() && turn.n_tokens() == 0;
      if (turn.is_stopped || !is_empty || turn.finish != "length") return;
      const bool is_shorter = drop_oldest();
      LMD_REQUIRE(is_shorter, ErrorCode::kCapacity,
                  connection_.where() + ": the message is too long for the model's context");
    } catch (const ClientError& error) {
      if (turn.is_stopped) return;
      if (is_too_long(error) && turn.text.empty() && drop_oldest()) continue;
      if (!is_interactive_ && is_no_such_path(error) && turn.text.empty()) {
        is_interactive_ = true;
        continue;
      }
      if (!may_retry(error, turn, n_retries)) throw;
      const auto pause = std::chrono::milliseconds(500) * (1 << std::min(n_retries, 4));
      if (!wait(turn, pause)) return;
      ++n_retries;
      n_resumed_ = n_retries;
    }
  }
}

/// What was lost on its way may be asked for again; a server that is not there at the beginning is
/// not waited for.
bool RemoteSession::may_retry(const ClientError& error, const Turn& turn, int n_retries) const {
  if (n_retries >= options_.retries) return false;
  const bool has_begun = !turn.text.empty() || n_retries > 0;
  switch (error.kind()) {
    case ClientFailure::kCut:
      return true;
    case ClientFailure::kConnect:
    case ClientFailure::kTimeout:
      return has_begun;
    case ClientFailure::kStatus:
      return has_begun && error.status() >= 502 && error.status() <= 504;
    default:
      return false;
  }
}

/// False when the person does not want to wait.
bool RemoteSession::wait(Turn& turn, std::chrono::milliseconds duration) const {
  constexpr std::chrono::milliseconds kStep{50};
  for (; duration.count() > 0; duration -= kStep) {
    if (!(*turn.show)("")) return false;
    std::this_thread::sleep_for(kStep);
  }
  return true;
}

void RemoteSession::attempt(Turn& turn) {
  if (is_interactive_) {
    attempt_interactive(turn);
  } else {
    attempt_chat(turn);
  }
}

void RemoteSession::show_text(Turn& turn, const std::string& text, bool has_tokens) const {
  if (has_tokens) {
    turn.last = Clock::now();
    if (!turn.first) turn.first = turn.last;
    ++turn.n_chunks;
  }
  if (text.empty()) return;
  turn.text += text;
  if (!(*turn.show)(text)) turn.is_stopped = true;
}

void RemoteSession::attempt_chat(Turn& turn) {
  std::vector<Said> messages = messages_;
  if (!turn.text.empty()) messages.push_back({"assistant", turn.text});
  const std::int64_t left = std::max<std::int64_t>(settings.max_new_tokens - turn.n_chunks, 1);
  const bool is_over = connection_.post_for_events(
      kChatPath, chat_body(options_.model, messages, settings, left), [&](std::string_view data) {
        const AnswerChunk chunk = parse_answer_chunk(data, connection_.where());
        if (chunk.usage) turn.usage = chunk.usage;
        if (!chunk.finish.empty()) turn.finish = chunk.finish;
        show_text(turn, chunk.text, chunk.has_tokens);
        return !turn.is_stopped;
      });
  if (!is_over && turn.finish.empty() && !turn.is_stopped) {
    throw ClientError(ClientFailure::kCut,
                      connection_.where() + ": the stream ended before the answer did");
  }
}

void RemoteSession::attempt_interactive(Turn& turn) {
  std::vector<Said> messages = messages_;
  if (!turn.text.empty()) messages.push_back({"assistant", turn.text});
  const bool is_known = has_session_ && turn.text.empty();
  if (!is_known) end_session();
  const std::int64_t left = std::max<std::int64_t>(settings.max_new_tokens - turn.n_chunks, 1);
  const json::Json prompt = is_known || messages.size() == 1 ? json::Json(messages.back().content)
                                                             : messages_json(messages);
  has_session_ = true;  // whatever becomes of it
  bool is_whole = false;
  try {
    connection_.post_for_lines(
        kInteractivePath, interactive_body(prompt, options_.session_id, settings, left),
        [&](std::string_view data) {
          const InteractiveLine line = parse_interactive_line(data, connection_.where());
          turn.usage = TokenUsage{line.history_tokens + line.input_tokens, line.tokens, 0};
          turn.finish = line.finish;
          is_whole = !line.finish.empty();
          show_text(turn, line.text, !line.text.empty());
          return !turn.is_stopped;
        });
  } catch (...) {
    end_session(true);
    throw;
  }
  if (is_whole) return;
  end_session(true);
  if (!turn.is_stopped) {
    throw ClientError(ClientFailure::kCut,
                      connection_.where() + ": the stream ended before the answer did");
  }
}

bool RemoteSession::drop_oldest() {
  int n_left = 1;
  const int n =
      drop_oldest_turns(messages_, [&](const std::vector<Said>&) { return n_left-- == 0; });
  n_dropped_ += n;
  if (n > 0) end_session();
  return n > 0;
}

/// An answer that was stopped before its first word leaves no trace, and neither does its question.
ChatAnswer RemoteSession::remember(const Turn& turn) {
  if (turn.text.empty()) {
    messages_.pop_back();
  } else {
    messages_.push_back({"assistant", turn.text});
  }
  const std::int64_t n = turn.n_tokens();
  sum_.completion += n;
  if (turn.usage) {
    sum_.prompt += turn.usage->prompt;
    sum_.cached += turn.usage->cached;
    n_context_ = turn.usage->prompt + turn.usage->completion;
  }
  ChatAnswer answer{.n_tokens = n, .is_cut = turn.finish == "length"};
  if (!turn.first) return answer;
  const auto seconds = [](Clock::duration d) { return std::chrono::duration<double>(d).count(); };
  answer.first_token_s = seconds(*turn.first - turn.begin);
  const double rest_s = seconds(turn.last - *turn.first);
  if (n > 1 && rest_s > 0.0) answer.tokens_per_s = static_cast<double>(n - 1) / rest_s;
  return answer;
}

std::vector<std::string> RemoteSession::notes() const {
  std::vector<std::string> notes;
  if (n_dropped_ > 0) notes.push_back(dropped_text(n_dropped_) + "the server's context");
  if (n_resumed_ > 0) {
    notes.push_back("the connection broke; the answer was taken up again after " +
                    std::to_string(n_resumed_) + (n_resumed_ == 1 ? " attempt" : " attempts"));
  }
  return notes;
}

std::string RemoteSession::stats_text() const {
  std::string text = "  server          " + connection_.where() + ", " + options_.model +
                     (is_interactive_ ? ", keeps the session\n" : "\n");
  if (n_context_ > 0) text += "  context         " + count_text(n_context_) + " tokens\n";
  if (sum_.prompt > 0) {
    text += "  prompts         " + count_text(sum_.prompt) + " tokens, " + count_text(sum_.cached) +
            " of them from the prefix cache\n";
  }
  return text + "  answers         " + count_text(sum_.completion) + " tokens\n";
}

}  // namespace lmd::apps
