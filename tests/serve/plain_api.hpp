/// \file  The simplest endpoint that uses the engine: the body is the prompt, the answer its bytes. What
///        the server does is tested with it, apart from what OpenAI's endpoints do.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/serve/error_reply.hpp>
#include <lmd/serve/route.hpp>
#include <lmd/text/tokenizer.hpp>

#include <charconv>
#include <memory>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include "byte_tokenizer.hpp"

namespace lmd::serve_test {

/// The number of "name=12" in a query.
inline int query_number(std::string_view query, std::string_view name, int fallback) {
  for (std::size_t at = 0; at < query.size();) {
    const std::size_t end = std::min(query.find('&', at), query.size());
    const std::string_view part = query.substr(at, end - at);
    if (part.starts_with(name) && part.substr(name.size()).starts_with('=')) {
      const std::string_view digits = part.substr(name.size() + 1);
      (void)std::from_chars(digits.data(), digits.data() + digits.size(), fallback);
    }
    at = end + 1;
  }
  return fallback;
}

/// POST /plain?max_tokens=16&n=1&stream=0&ignore_eos=0
class PlainCall final : public serve::ApiCall {
 public:
  PlainCall(const serve::ApiRequest& request, const text::Tokenizer& tokenizer)
      : tokenizer_(tokenizer) {
    is_stream_ = query_number(request.query, "stream", 0) != 0;
    breaks_ = query_number(request.query, "break", 0);
    const int n = query_number(request.query, "n", 1);
    engine::Request r;
    r.prompt = tokenizer.encode(request.body);
    r.max_new_tokens = query_number(request.query, "max_tokens", 16);
    if (query_number(request.query, "ignore_eos", 0) == 0) r.stop_ids = {kEos};
    requests_.assign(static_cast<std::size_t>(n), r);
    answers_.resize(static_cast<std::size_t>(n));
    n_open_ = n;
  }

  std::vector<engine::Request> take_requests() override { return std::move(requests_); }
  bool is_stream() const override {
    if (breaks_ == 2) throw std::runtime_error("where nobody expects it");
    return is_stream_;
  }

  void on_event(const serve::AnswerEvent& event, std::string& out) override {
    if (breaks_ == 1) throw std::runtime_error("a call that a test asked to break");
    std::string piece;
    tokenizer_.append_piece(event.token, true, piece);
    answers_[static_cast<std::size_t>(event.answer)] += piece;
    const bool has_ended = event.finish != engine::FinishReason::kNone;
    if (event.finish == engine::FinishReason::kError) has_failed_ = true;
    if (has_ended) --n_open_;
    if (!is_stream_) return;
    if (!piece.empty()) out += "data: " + serve::json_string(piece) + "\n\n";
    if (n_open_ > 0) return;
    out += has_failed_ ? serve::stream_error({}) : "data: [DONE]\n\n";
  }

  bool has_ended() const override { return n_open_ == 0; }

  serve::HttpReply reply() override {
    if (has_failed_) throw serve::ApiFailure({});
    std::string all;
    for (const std::string& answer : answers_)
      all += answer;
    return {.body = all, .content_type = "text/plain; charset=utf-8"};
  }

 private:
  const text::Tokenizer& tokenizer_;
  std::vector<engine::Request> requests_;
  std::vector<std::string> answers_;
  int n_open_ = 0;
  bool is_stream_ = false;
  int breaks_ = 0;  // 1: with an event; 2: where the connection does not expect it
  bool has_failed_ = false;
};

inline serve::Route plain_route(const text::Tokenizer& tokenizer) {
  return {.method = "POST", .path = "/plain", .endpoint = [&tokenizer](const serve::ApiRequest& r) {
            if (r.body.empty())
              throw serve::ApiFailure({.what = serve::ErrorCase::kMalformed,
                                       .message = "Field required",
                                       .location = {"body"},
                                       .problem = "missing"});
            return serve::ApiResult(std::make_unique<PlainCall>(r, tokenizer));
          }};
}

/// GET /test/routes: the server's own table.
inline serve::Route routes_route(const serve::RouteTable& table) {
  return {.method = "GET", .path = "/test/routes", .endpoint = [&table](const serve::ApiRequest&) {
            std::string body;
            for (const serve::Route& route : table.routes()) {
              body += (body.empty() ? "[" : ",") + std::string(R"({"method":)") +
                      serve::json_string(route.method) + R"(,"path":)" +
                      serve::json_string(route.path) + R"(,"needs_key":)" +
                      (route.needs_key ? "true}" : "false}");
            }
            return serve::ApiResult(serve::HttpReply{.status = 200, .body = body + ']'});
          }};
}

}  // namespace lmd::serve_test
