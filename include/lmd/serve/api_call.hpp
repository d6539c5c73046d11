/// \file  The seam between the endpoints, which know JSON and answers, and the server, which knows
///        connections and the engine's thread.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/engine/request.hpp>

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

namespace lmd::serve {

/// A request whose size, key and path have been checked.
struct ApiRequest {
  std::string_view method;        ///< "GET", "POST"
  std::string_view path;          ///< without the query
  std::string_view query;         ///< behind the question mark, not decoded
  std::string_view content_type;  ///< as sent
  std::string_view body;
  std::uint64_t client = 0;  ///< whom fairness is owed: a hash of the key, else of the address
  std::string_view request_id;
};

struct HttpReply {
  int status = 200;
  std::string body;
  std::string content_type = "application/json";
  std::vector<std::pair<std::string, std::string>> headers =
      {};  ///< beside those that every reply has
};

/// What the engine said of one of a call's answers, on its way from the engine's thread.
struct AnswerEvent {
  int answer = 0;  ///< index into what take_requests() gave
  int token = -1;  ///< -1: none
  engine::FinishReason finish = engine::FinishReason::kNone;
  std::optional<kernels::TokenLogprobs> logprobs;
  int n_reused = 0;  ///< tokens of the prompt that came from the prefix cache
};

/// An answer that needs no more tokens.
struct EarlyEnd {
  int answer = 0;
  bool is_whole = true;  ///< a stop string was found; else somebody gave it up

  friend bool operator==(const EarlyEnd&, const EarlyEnd&) = default;
};

/// One call of an endpoint that asks the engine for answers. Made on a worker thread; afterwards used by one
/// thread at a time. Destroyed when it has ended or its client has left, with all its requests ended.
class ApiCall {
 public:
  ApiCall() = default;
  ApiCall(const ApiCall&) = delete;
  ApiCall& operator=(const ApiCall&) = delete;
  virtual ~ApiCall() = default;

  /// What the engine is asked, once. One answer each.
  [[nodiscard]] virtual std::vector<engine::Request> take_requests() = 0;

  [[nodiscard]] virtual bool is_stream() const = 0;
  [[nodiscard]] virtual std::string_view stream_content_type() const { return "text/event-stream"; }

  /// Takes an event. What a stream sends now is appended to `out`; calls that are no stream append nothing.
  virtual void on_event(const AnswerEvent& event, std::string& out) = 0;

  /// Answers that the server cancels in the engine. Each is named once.
  [[nodiscard]] virtual std::vector<EarlyEnd> take_finished_early() { return {}; }

  /// Whether every answer has come to its end. A stream's last bytes have been appended by then.
  [[nodiscard]] virtual bool has_ended() const = 0;

  /// The answer of a call that is no stream, once it has ended.
  [[nodiscard]] virtual HttpReply reply() = 0;
};

/// An endpoint's result: a reply at once, or a call that goes to the engine.
using ApiResult = std::variant<HttpReply, std::unique_ptr<ApiCall>>;

}  // namespace lmd::serve
