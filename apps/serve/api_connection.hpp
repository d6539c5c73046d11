/// \file  Requests to an OpenAI-compatible server, for a program that waits for the answers.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/json/json.hpp>
#include <lmd/serve/http/blocking_client.hpp>

#include <functional>
#include <string>
#include <string_view>

#include "answer_chunk.hpp"

namespace lmd::apps {

/// Where a server's paths begin, from what a person types: "http://localhost:23333" and
/// "http://localhost:23333/v1/" mean the same.
///
/// Errors:  \throws Error(kConfig) for what is no URL, and for one with a query.
[[nodiscard]] serve::Url api_base(const std::string& text);

/// What an answer with another status than 2xx means, in one line.
[[nodiscard]] serve::ClientError status_error(const std::string& where,
                                              const serve::ResponseHead& head,
                                              std::string_view body,
                                              bool has_key);

/// Errors:  everything \throws ClientError, also for a status other than 2xx.
class ApiConnection {
 public:
  /// What an event, or a line, holds; false: no more is wanted.
  using OnData = std::function<bool(std::string_view)>;

  /// `base`: of api_base(). `key` may be empty.
  ApiConnection(serve::Url base,
                std::string key,
                serve::ClientLimits limits,
                serve::BlockingClient::IsCancelled is_cancelled);

  [[nodiscard]] std::string where() const { return client_.url().origin(); }

  /// The first model that the server names.
  [[nodiscard]] std::string first_model();

  /// Posts, and hands out what the events of the stream hold, but for "[DONE]". An answer that is no
  /// stream is handed out as a whole. Returns whether the stream said that it was over.
  bool post_for_events(const std::string& path, const json::Json& body, const OnData& on_data);

  /// The same for a stream of lines, blank ones left out; a line's "data:" is read past.
  void post_for_lines(const std::string& path, const json::Json& body, const OnData& on_data);

  /// Posts, and returns the answer's body.
  std::string post(const std::string& path, const json::Json& body);

 private:
  [[nodiscard]] serve::ClientRequest request(const std::string& method,
                                             const std::string& path,
                                             std::string body) const;
  /// Sends a request; `on_head` may refuse by throwing. The body of an error becomes one.
  void stream(const serve::ClientRequest& request,
              const serve::BlockingClient::OnHead& on_head,
              const OnData& on_piece);

  serve::BlockingClient client_;
  std::string key_;
};

}  // namespace lmd::apps
