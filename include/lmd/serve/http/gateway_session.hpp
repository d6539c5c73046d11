/// \file  One browser's connection to the gateway: the page's files, and requests that are handed on.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/serve/cross_origin.hpp>
#include <lmd/serve/error_reply.hpp>
#include <lmd/serve/http/http_client.hpp>
#include <lmd/serve/http_head.hpp>
#include <lmd/serve/static_files.hpp>

#include <chrono>
#include <cstdint>
#include <functional>
#include <iterator>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include <boost/beast/http/read.hpp>
#include <boost/beast/http/string_body.hpp>

namespace lmd::serve {

struct GatewayOptions {
  Url upstream = {};         ///< the API server; its path goes before those of requests
  std::string api_key = {};  ///< sent where the browser sends none
  std::string host = "127.0.0.1";
  std::uint16_t port = 6006;  ///< 0: any that is free
  CrossOrigin cross_origin = {};
  int connections = 256;
  std::uint32_t header_bytes = 16 << 10;
  std::uint64_t body_bytes = std::uint64_t{32} << 20;
  std::chrono::milliseconds header_time{10000};
  std::chrono::milliseconds body_time{60000};
  std::chrono::milliseconds idle_time{75000};
  std::chrono::milliseconds write_time{30000};
  ClientLimits client = {};
  std::function<void(const std::string&)> log =
      {};  ///< one line for each request that was handed on
};

/// Whether the gateway hands `path` on: what the pages ask for. Metrics stay with the API server.
[[nodiscard]] inline bool is_handed_on(std::string_view path) {
  constexpr std::string_view kPaths[] = {"/health",     "/health/live", "/health/ready",
                                         "/version",    "/generate",    "/tokenize",
                                         "/detokenize", "/openapi.json"};
  // No two ways to write a path: "/v1/../metrics" is not below /v1/.
  if (path.find("/.") != path.npos || path.find("//") != path.npos) return false;
  if (path.find_first_of("%\\") != path.npos) return false;
  return path.starts_with("/v1/") || std::ranges::find(kPaths, path) != std::end(kPaths);
}

/// One browser's connection, and the one to the API server that belongs to it.
class GatewaySession : public std::enable_shared_from_this<GatewaySession> {
  using tcp = boost::asio::ip::tcp;
  using Code = boost::system::error_code;
  using Parser = boost::beast::http::request_parser<boost::beast::http::string_body>;

 public:
  GatewaySession(tcp::socket socket, const GatewayOptions& options, StaticFiles files)
      : stream_(std::move(socket)), options_(options), files_(files) {}

  boost::asio::awaitable<void> run() {
    // Not in the loop's head: see connection_io.hpp.
    bool goes_on = true;
    while (goes_on)
      goes_on = co_await serve_one();
    Code ignored;
    (void)stream_.socket().shutdown(tcp::socket::shutdown_send, ignored);
    co_await linger();
  }

  void close() {
    is_gone_ = true;
    if (upstream_) upstream_->close();
    stream_.close();
  }

 private:
  static constexpr auto kToken = boost::asio::as_tuple(boost::asio::use_awaitable);

  [[nodiscard]] const auto& request() const { return parser_->get(); }

  [[nodiscard]] std::string_view path() const {
    const std::string_view target = request().target();
    return target.substr(0, target.find('?'));
  }

  [[nodiscard]] std::string_view field(boost::beast::http::field name) const {
    return request()[name];
  }

  /// A request and its response. False: the connection ends.
  boost::asio::awaitable<bool> serve_one() {
    namespace http = boost::beast::http;
    parser_.emplace();
    parser_->header_limit(options_.header_bytes);
    parser_->body_limit(options_.body_bytes);
    stream_.expires_after(is_first_ ? options_.header_time : options_.idle_time);
    is_first_ = false;
    const auto [failure, n] = co_await http::async_read_header(stream_, buffer_, *parser_, kToken);
    if (failure) co_return co_await refuse(failure);
    keeps_alive_ = request().keep_alive() && request().version() == 11;
    const bool is_asking = field(http::field::expect) == "100-continue";
    const std::optional<HttpReply> early = reply_early();
    if (early && !has_small_rest(is_asking)) {
      keeps_alive_ = false;
      co_return co_await send(*early);
    }
    if (is_asking && !early) {
      const bool is_told = co_await write("HTTP/1.1 100 Continue\r\n\r\n");
      if (!is_told) co_return false;
    }
    stream_.expires_after(options_.body_time);
    const auto [body_failure, m] = co_await http::async_read(stream_, buffer_, *parser_, kToken);
    if (body_failure) co_return co_await refuse(body_failure);
    if (early) co_return co_await send(*early);
    co_return co_await hand_on();
  }

  /// Whether what is left of the request is worth reading for the sake of the connection.
  [[nodiscard]] bool has_small_rest(bool is_asking) const {
    constexpr std::uint64_t kSmall = 65536;
    if (parser_->is_done()) return true;
    const auto rest = parser_->content_length_remaining();
    return !is_asking && rest && *rest <= kSmall;
  }

  /// Takes what the browser is still sending for a moment: closing at once would reset the connection, and the browser
  /// might never see the response.
  boost::asio::awaitable<void> linger() {
    constexpr std::chrono::milliseconds kLinger{1000};
    constexpr std::size_t kMaxBytes = std::size_t{1} << 20;
    stream_.expires_after(kLinger);
    for (std::size_t n_all = 0; !is_gone_ && n_all < kMaxBytes;) {
      buffer_.clear();
      const auto [failure, n] = co_await stream_.async_read_some(buffer_.prepare(65536), kToken);
      if (failure) co_return;
      n_all += n;
    }
  }

  /// What is no request, or too much of one.
  boost::asio::awaitable<bool> refuse(const Code& failure) {
    namespace http = boost::beast::http;
    keeps_alive_ = false;
    if (failure == http::error::header_limit) co_return co_await send(ErrorCase::kHeaderTooLarge);
    if (failure == http::error::body_limit) co_return co_await send(ErrorCase::kBodyTooLarge);
    if (failure.category() == make_error_code(http::error::bad_version).category() &&
        failure != http::error::end_of_stream && failure != http::error::partial_message)
      co_return co_await send(ErrorCase::kBadHttp);
    co_return false;
  }

  /// The reply to a request of which the API server hears nothing, known before its body is read. None: it is handed
  /// on.
  [[nodiscard]] std::optional<HttpReply> reply_early() const {
    namespace http = boost::beast::http;
    const http::verb method = request().method();
    const bool is_reading = method == http::verb::get || method == http::verb::head;
    const auto error = [](ErrorCase what, const char* message = "") {
      return error_reply({.what = what, .message = message}, ApiCompat::k018);
    };
    if (const StaticFile* file = files_.find(path())) {
      if (!is_reading) return error(ErrorCase::kWrongMethod);
      return static_reply(*file, field(http::field::accept_encoding),
                          field(http::field::if_none_match));
    }
    // Whoever reaches this server may use the key that it holds: pages of other origins may not. The page's
    // own files are nobody's secret, and browsers ask for some of them with an Origin.
    const bool is_browser =
        request().count(http::field::accept_language) + request().count("Sec-Fetch-Site") > 0;
    const Asker asker{field(http::field::origin), field(http::field::host), is_browser};
    if (!may_ask_without_key(options_.cross_origin, options_.host, asker))
      return error(ErrorCase::kForbidden, kOtherOrigin);
    if (!is_handed_on(path())) return error(ErrorCase::kNotFound);
    if (!is_reading && method != http::verb::post) return error(ErrorCase::kWrongMethod);
    return std::nullopt;
  }

  /// The request as the API server sees it: without what belongs to the browser's page.
  [[nodiscard]] ClientRequest upstream_request() const {
    namespace http = boost::beast::http;
    const std::string& base = options_.upstream.path;
    ClientRequest asked{.method = std::string(request().method_string()),
                        .target = base.substr(0, base.size() - (base.ends_with('/') ? 1 : 0)) +
                                  std::string(request().target()),
                        .body = request().body()};
    for (const http::field name : {http::field::content_type, http::field::accept}) {
      if (const auto value = field(name); !value.empty())
        asked.headers.emplace_back(std::string(to_string(name)), std::string(value));
    }
    std::string key(field(http::field::authorization));
    if (key.empty() && !options_.api_key.empty()) key = "Bearer " + options_.api_key;
    if (!key.empty()) asked.headers.emplace_back("Authorization", std::move(key));
    return asked;
  }

  boost::asio::awaitable<bool> hand_on() {
    const ClientRequest asked = upstream_request();
    watch_browser();
    std::string problem;
    bool has_begun = false;
    int status = 0;
    try {
      if (!upstream_) {  // looked up when it is needed: it may come later than this server
        Origin origin = co_await resolve(options_.upstream);
        upstream_.emplace(stream_.get_executor(), std::move(origin), options_.client);
      }
      const ResponseHead head = co_await upstream_->send(asked);
      status = head.status;
      has_begun = co_await begin_stream(head);
      if (has_begun) co_await pump(head);
    } catch (const ClientError& e) {
      problem = e.what();
    }
    stop_watching();
    if (options_.log)
      options_.log(asked.method + ' ' + asked.target + ' ' +
                   (problem.empty() ? std::to_string(status) : problem));
    if (is_gone_) co_return false;
    if (problem.empty()) co_return keeps_alive_;
    // A body that was begun ends without its last chunk: the page sees that it broke off.
    if (has_begun) co_return false;
    const HttpReply reply = unreachable();
    co_return co_await send(reply);
  }

  /// Fields that a page may see; what is between two servers stays between them.
  boost::asio::awaitable<bool> begin_stream(const ResponseHead& upstream) {
    HttpHead head(upstream.status);
    for (const char* name :
         {"content-type", "cache-control", "retry-after", "x-request-id", "www-authenticate"}) {
      if (const auto value = upstream.header(name); !value.empty()) head.add(name, value);
    }
    if (has_body(upstream.status) && is_chunked()) head.add("Transfer-Encoding", "chunked");
    add_common(head);
    const std::string text = std::move(head).finish();
    co_return co_await write(text);
  }

  /// The body, piece by piece as it comes.
  boost::asio::awaitable<void> pump(const ResponseHead& head) {
    std::string_view piece;
    do {
      piece = co_await upstream_->read_some();
      if (!has_body(head.status)) continue;
      std::string text(is_chunked() ? std::string_view() : piece);
      if (is_chunked()) append_chunk(text, piece);
      if (is_chunked() && piece.empty()) text = kLastChunk;
      if (text.empty()) continue;
      const bool is_written = co_await write(text);
      if (!is_written) co_return;
    } while (!piece.empty());
  }

  [[nodiscard]] bool is_chunked() const { return request().version() == 11; }
  [[nodiscard]] bool has_body(int status) const {
    return status != 204 && status != 304 && request().method() != boost::beast::http::verb::head;
  }

  void add_common(HttpHead& head) const {
    head.add("Server", "lmd");
    head.add("X-Content-Type-Options", "nosniff");
    if (!keeps_alive_) head.add("Connection", "close");
  }

  boost::asio::awaitable<bool> send(ErrorCase what, const char* message = "") {
    const HttpReply reply = error_reply({.what = what, .message = message}, ApiCompat::k018);
    co_return co_await send(reply);
  }

  boost::asio::awaitable<bool> send(const HttpReply& reply) {
    HttpHead head(reply.status);
    add_common(head);
    if (reply.status != 304) {
      head.add("Content-Type", reply.content_type);
      head.add("Content-Length", std::to_string(reply.body.size()));
    }
    for (const auto& [name, value] : reply.headers)
      head.add(name, value);
    std::string text = std::move(head).finish();
    if (has_body(reply.status)) text += reply.body;
    const bool is_sent = co_await write(text);
    co_return is_sent&& keeps_alive_;
  }

  [[nodiscard]] HttpReply unreachable() const {
    constexpr int kBadGateway = 502;
    const std::string message =
        "The API server at " + options_.upstream.origin() + " did not answer.";
    return {.status = kBadGateway,
            .body = R"({"message":)" + json_string(message) +
                    R"(,"type":"server_error","code":502,"param":null,"object":"error"})"};
  }

  boost::asio::awaitable<bool> write(std::string_view text) {
    stream_.expires_after(options_.write_time);
    const auto [failure, n] =
        co_await boost::asio::async_write(stream_, boost::asio::buffer(text), kToken);
    if (failure) is_gone_ = true;
    stream_.expires_never();
    co_return !failure;
  }

  /// While the API server works: a browser that leaves ends its request there, too.
  void watch_browser() {
    const unsigned number = ++watch_;
    stream_.expires_never();
    stream_.socket().async_wait(
        tcp::socket::wait_read, [self = shared_from_this(), number](const Code& failure) {
          if (failure || number != self->watch_) return;
          char byte = 0;
          Code error;
          self->stream_.socket().non_blocking(true, error);
          const std::size_t n = self->stream_.socket().receive(boost::asio::buffer(&byte, 1),
                                                               tcp::socket::message_peek, error);
          // Bytes of a next request may wait; nobody watches for a leaving browser then.
          if (n > 0 || error == boost::asio::error::would_block) return;
          self->is_gone_ = true;
          if (self->upstream_) self->upstream_->close();
        });
  }

  void stop_watching() {
    ++watch_;
    Code ignored;
    (void)stream_.socket().cancel(ignored);
  }

  boost::beast::tcp_stream stream_;
  const GatewayOptions& options_;
  StaticFiles files_;
  std::optional<ClientConnection> upstream_;
  boost::beast::flat_buffer buffer_;
  std::optional<Parser> parser_;
  bool is_first_ = true;
  bool is_gone_ = false;
  bool keeps_alive_ = true;
  unsigned watch_ = 0;
};

}  // namespace lmd::serve
