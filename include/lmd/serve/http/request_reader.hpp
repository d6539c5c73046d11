/// \file  A request, read by Boost.Beast's parser from what a connection brings.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/serve/error_reply.hpp>
#include <lmd/serve/http/server_core.hpp>
#include <lmd/serve/http_head.hpp>
#include <lmd/serve/server_options.hpp>

#include <optional>
#include <string>
#include <utility>

#include <boost/asio/buffer.hpp>
#include <boost/beast/http/parser.hpp>
#include <boost/beast/http/rfc7230.hpp>
#include <boost/beast/http/string_body.hpp>

namespace lmd::serve {

class RequestReader {
 public:
  explicit RequestReader(const HttpLimits& limits) {
    parser_.header_limit(limits.header_bytes);
    parser_.body_limit(limits.body_bytes);
  }

  /// Takes what it needs of the front of `bytes`.
  void put_head(std::string& bytes) {
    while (!failure_ && !has_head() && put(bytes)) {
    }
  }
  void put_body(std::string& bytes) {
    parser_.eager(true);
    while (!failure_ && !is_complete() && put(bytes)) {
    }
  }

  /// Why this is no request that can be answered otherwise.
  [[nodiscard]] const std::optional<ErrorCase>& failure() const { return failure_; }
  void fail(ErrorCase what) { failure_ = what; }
  [[nodiscard]] bool has_head() const { return parser_.is_header_done(); }
  [[nodiscard]] bool is_complete() const { return parser_.is_done(); }
  [[nodiscard]] std::size_t body_size() const { return parser_.get().body().size(); }
  [[nodiscard]] std::string take_body() { return std::move(parser_.get().body()); }

  /// Whether what is left of the request is worth reading for the sake of the connection.
  [[nodiscard]] bool has_small_rest() const {
    constexpr std::uint64_t kSmall = 65536;
    if (is_complete()) return true;
    const auto rest = parser_.content_length_remaining();
    return !expects_continue() && rest && *rest <= kSmall;
  }

  [[nodiscard]] bool expects_continue() const {
    return boost::beast::iequals(field(boost::beast::http::field::expect), "100-continue");
  }

  [[nodiscard]] RequestHead head(const std::string& peer) const {
    using boost::beast::http::field;
    const auto& message = parser_.get();
    RequestHead head;
    head.method = message.method_string();
    split_target(message.target(), head);
    head.content_type = this->field(field::content_type);
    head.host = this->field(field::host);
    head.origin = this->field(field::origin);
    head.authorization = this->field(field::authorization);
    head.accept_encoding = this->field(field::accept_encoding);
    head.if_none_match = this->field(field::if_none_match);
    head.asked_headers = this->field(field::access_control_request_headers);
    head.is_browser = message.count(field::accept_language) + message.count("Sec-Fetch-Site") > 0;
    const std::string_view id = message["X-Request-Id"];
    if (is_request_id(id)) head.request_id = id;
    head.peer = peer;
    head.is_http_1_0 = message.version() < 11;
    head.keeps_alive = message.keep_alive();
    return head;
  }

 private:
  using Parser = boost::beast::http::request_parser<boost::beast::http::string_body>;

  /// Longest line that is not a header's: of a chunk's size with its extensions.
  static constexpr std::size_t kMaxLine = 16384;

  [[nodiscard]] std::string_view field(boost::beast::http::field name) const {
    return parser_.get()[name];
  }

  /// False: more bytes are needed.
  bool put(std::string& bytes) {
    if (bytes.empty()) return false;
    boost::system::error_code error;
    const std::size_t n = parser_.put(boost::asio::buffer(bytes), error);
    bytes.erase(0, n);
    if (error == boost::beast::http::error::need_more) {
      if (n == 0 && bytes.size() > kMaxLine) failure_ = ErrorCase::kBadHttp;
      return n > 0 && !bytes.empty() && !failure_;
    }
    if (error == boost::beast::http::error::header_limit) {
      failure_ = ErrorCase::kHeaderTooLarge;
    } else if (error == boost::beast::http::error::body_limit) {
      failure_ = ErrorCase::kBodyTooLarge;
    } else if (error) {
      failure_ = ErrorCase::kBadHttp;
    }
    return !failure_;
  }

  /// "/path?query", also behind "http://host".
  static void split_target(std::string_view target, RequestHead& head) {
    constexpr std::string_view kScheme = "http://";
    if (target.starts_with(kScheme)) {
      const std::size_t slash = target.find('/', kScheme.size());
      target = slash == std::string_view::npos ? "/" : target.substr(slash);
    }
    const std::size_t question = target.find('?');
    head.path = target.substr(0, question);
    if (question != std::string_view::npos) head.query = target.substr(question + 1);
  }

  Parser parser_;
  std::optional<ErrorCase> failure_;
};

}  // namespace lmd::serve
