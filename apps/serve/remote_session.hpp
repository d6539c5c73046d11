/// \file  A conversation with a model on a server.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "../chat_partner.hpp"
#include "api_connection.hpp"
#include "chat_request.hpp"

namespace lmd::apps {

struct RemoteOptions {
  serve::Url base;              ///< of api_base()
  std::string key = {};         ///< empty: none is sent
  std::string model = {};       ///< empty: the first that the server names
  std::int64_t session_id = 1;  ///< of /v1/chat/interactive
  int retries = 5;              ///< of an answer that broke off
  serve::ClientLimits limits = {};
};

/// Shows the server all that was said at each turn. An answer that breaks off is taken up again: the
/// server is asked to continue what has come of it.
///
/// Where there is no /v1/chat/completions LMDeploy's /v1/chat/interactive is used: the server keeps
/// the session then, and is shown everything only after an answer that was stopped or broke off.
///
/// Errors:  \throws ClientError; Error(kCapacity) when the question alone is too long for the server.
class RemoteSession final : public ChatPartner {
 public:
  RemoteSession(RemoteOptions options,
                AnswerSettings settings,
                const std::optional<std::string>& system);
  ~RemoteSession() override;

  /// The server's model, after it was asked for where none was given.
  const std::string& model();

  void reset() override;
  void set_system(std::string text) override;
  ChatAnswer ask(const std::string& text, const Show& show) override;
  [[nodiscard]] std::vector<std::string> notes() const override;
  [[nodiscard]] std::string stats_text() const override;

 private:
  using Clock = std::chrono::steady_clock;

  /// An answer on its way.
  struct Turn {
    const Show* show = nullptr;
    Clock::time_point begin = Clock::now();
    std::optional<Clock::time_point> first = {};
    Clock::time_point last = {};
    std::string text = {};
    std::string finish = {};
    bool is_stopped = false;
    std::int64_t n_chunks = 0;   ///< that held tokens
    std::int64_t n_counted = 0;  ///< n_chunks when the last attempt began
    std::optional<TokenUsage> usage = {};

    /// Of all attempts: what the server counted of the last one, and one for each chunk before.
    [[nodiscard]] std::int64_t n_tokens() const {
      return usage ? n_counted + usage->completion : n_chunks;
    }
  };

  void answer(Turn& turn);
  void attempt(Turn& turn);
  void attempt_chat(Turn& turn);
  void attempt_interactive(Turn& turn);
  [[nodiscard]] bool may_retry(const serve::ClientError& error,
                               const Turn& turn,
                               int n_retries) const;
  [[nodiscard]] bool wait(Turn& turn, std::chrono::milliseconds duration) const;
  void show_text(Turn& turn, const std::string& text, bool has_tokens) const;
  [[nodiscard]] bool drop_oldest();
  void end_session(bool is_answering = false);
  ChatAnswer remember(const Turn& turn);

  RemoteOptions options_;
  ApiConnection connection_;
  Turn* turn_ = nullptr;  // the one that is under way
  std::vector<Said> messages_;
  bool is_interactive_ = false;
  bool has_session_ = false;  // on the server, and it knows messages_ but for the last one
  int n_dropped_ = 0;
  int n_resumed_ = 0;
  TokenUsage sum_;  // of all turns
  std::int64_t n_context_ = 0;
};

}  // namespace lmd::apps
