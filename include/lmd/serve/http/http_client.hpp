/// \file  An HTTP/1.1 client: one connection that is kept, deadlines, bounds, bodies in pieces.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/core/config.hpp>
#include <lmd/serve/client_error.hpp>
#include <lmd/serve/url.hpp>

#include <array>
#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <boost/asio/as_tuple.hpp>
#include <boost/asio/awaitable.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/ssl.hpp>
#include <boost/asio/this_coro.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/asio/write.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/core/tcp_stream.hpp>
#include <boost/beast/http/buffer_body.hpp>
#include <boost/beast/http/error.hpp>
#include <boost/beast/http/parser.hpp>
#include <boost/beast/ssl/ssl_stream.hpp>

namespace lmd::serve {

struct ClientRequest {
  std::string method = "GET";
  std::string target = "/";  ///< path and query, as they are sent
  std::vector<std::pair<std::string, std::string>> headers =
      {};  ///< beside Host and Content-Length
  std::string body = {};
};

/// A response without its body.
struct ResponseHead {
  int status = 0;
  std::vector<std::pair<std::string, std::string>> headers;  ///< names in lower case

  /// The first value of `name`, which is in lower case; empty where there is none.
  [[nodiscard]] std::string_view header(std::string_view name) const {
    for (const auto& [key, value] : headers)
      if (key == name) return value;
    return {};
  }
};

struct ClientResponse {
  ResponseHead head;
  std::string body;
};

struct ClientLimits {
  std::chrono::milliseconds connect{10'000};  ///< connection and TLS handshake together
  std::chrono::milliseconds head{600'000};  ///< from the request until the response's head is there
  std::chrono::milliseconds idle{300'000};  ///< between two pieces of a body
  std::uint32_t max_header_bytes = 32u << 10;
  std::size_t max_body_bytes = std::size_t{16} << 20;  ///< of bodies that are read as a whole
};

/// Where requests go: an address that was looked up once is what every connection is made to.
struct Origin {
  Url url;
  std::vector<boost::asio::ip::tcp::endpoint> endpoints;
  std::shared_ptr<boost::asio::ssl::context> tls;  ///< null: http
};

/// Trusts what the system trusts; SSL_CERT_FILE and SSL_CERT_DIR name other authorities.
[[nodiscard]] inline std::shared_ptr<boost::asio::ssl::context> client_tls_context() {
  auto context = std::make_shared<boost::asio::ssl::context>(boost::asio::ssl::context::tls_client);
  context->set_default_verify_paths();
  context->set_verify_mode(boost::asio::ssl::verify_peer);
  return context;
}

/// Looks the host up, with the deadline that the system's own resolver has.
///
/// Errors:  \throws ClientError(kResolve).
[[nodiscard]] inline boost::asio::awaitable<Origin> resolve(Url url) {
  namespace asio = boost::asio;
  Origin origin{std::move(url), {}, nullptr};
  if (origin.url.is_tls) origin.tls = client_tls_context();
  boost::system::error_code error;
  const auto address = asio::ip::make_address(origin.url.host, error);
  if (!error) {
    origin.endpoints.emplace_back(address, origin.url.port);
    co_return origin;
  }
  asio::ip::tcp::resolver resolver(co_await asio::this_coro::executor);
  auto [failure, found] = co_await resolver.async_resolve(
      origin.url.host, std::to_string(origin.url.port), asio::as_tuple(asio::use_awaitable));
  for (const auto& entry : found)
    origin.endpoints.push_back(entry.endpoint());
  if (failure || origin.endpoints.empty()) {
    throw ClientError(ClientFailure::kResolve,
                      origin.url.origin() + ": the host " + origin.url.host + " is not known");
  }
  co_return origin;
}

/// One connection to one server, kept from request to request. Used by one coroutine at a time, but
/// for close(), on the executor's thread. It connects when it is first asked.
class ClientConnection {
 public:
  ClientConnection(boost::asio::any_io_executor executor, Origin origin, ClientLimits limits = {})
      : executor_(std::move(executor)), origin_(std::move(origin)), limits_(limits) {
    buffer_.reserve(kPieceBytes);
  }
  ClientConnection(const ClientConnection&) = delete;
  ClientConnection& operator=(const ClientConnection&) = delete;

  [[nodiscard]] const Origin& origin() const { return origin_; }

  /// Sends a request and waits for the response's head; read_some() and read_body() give what
  /// follows. What was left of the response before is given up. A kept connection that the server
  /// has closed meanwhile is made anew, once. Redirects are answers like others.
  ///
  /// \pre `request` lives until the result is there.
  /// Errors:  \throws ClientError; Error(kConfig) when a name or a value holds a control character.
  [[nodiscard]] boost::asio::awaitable<ResponseHead> send(const ClientRequest& request) {
    const std::string head = head_text(request);
    is_cancelled_ = false;
    bool is_kept = is_idle();
    if (!is_kept) drop();
    for (;;) {
      if (!is_kept) co_await connect();
      const Code error = co_await exchange(head, request);
      if (!error) break;
      const bool is_stale = is_kept && !parser_->got_some() && is_end(error);
      drop();
      if (!is_stale) fail(error, limits_.head);
      is_kept = false;
    }
    ResponseHead result;
    const auto& message = parser_->get();
    result.status = static_cast<int>(message.result_int());
    for (const auto& field : message) {
      std::string name(field.name_string());
      for (char& c : name)
        if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
      result.headers.emplace_back(std::move(name), std::string(field.value()));
    }
    co_return result;
  }

  /// The body's next piece as soon as there is one, or nothing at its end. Valid until the next call.
  ///
  /// Errors:  \throws ClientError; pieces that came before the failure have been given.
  [[nodiscard]] boost::asio::awaitable<std::string_view> read_some() {
    namespace http = boost::beast::http;
    while (parser_ && !parser_->is_done()) {
      auto& body = parser_->get().body();
      body.data = piece_.data();
      body.size = piece_.size();
      Code error = late_ ? std::exchange(late_, {}) : parse();
      const std::size_t n = piece_.size() - body.size;
      if (error == http::error::need_buffer) error = {};
      if (n > 0) {
        if (error != http::error::need_more) late_ = error;
        co_return std::string_view(piece_.data(), n);
      }
      if (error == http::error::need_more) error = co_await read_more(limits_.idle);
      if (error) {
        drop();
        fail(error, limits_.idle);
      }
    }
    if (parser_ && !parser_->keep_alive()) drop();
    co_return std::string_view();
  }

  /// The rest of the body. \throws ClientError, also when it is larger than limits.max_body_bytes.
  [[nodiscard]] boost::asio::awaitable<std::string> read_body() {
    std::string body;
    for (;;) {
      const std::string_view piece = co_await read_some();
      if (piece.empty()) co_return body;
      if (body.size() + piece.size() > limits_.max_body_bytes) {
        drop();
        throw ClientError(ClientFailure::kTooLarge, name() + ": the answer has more than " +
                                                        std::to_string(limits_.max_body_bytes) +
                                                        " bytes");
      }
      body += piece;
    }
  }

  /// Ends what is under way: it throws ClientError(kCancelled). The next request connects anew.
  void close() {
    is_cancelled_ = true;
    drop();
  }

 private:
  using Code = boost::system::error_code;
  using Plain = boost::beast::tcp_stream;
  using Tls = boost::beast::ssl_stream<Plain>;
  using Parser = boost::beast::http::response_parser<boost::beast::http::buffer_body>;

  static constexpr std::size_t kPieceBytes = 8192;
  static constexpr std::size_t kMaxBuffered = std::size_t{64} << 10;  // a chunk's head, trailers

  [[nodiscard]] std::string name() const { return origin_.url.origin(); }
  [[nodiscard]] Plain& stream() { return tls_ ? tls_->next_layer() : *plain_; }

  void drop() {
    is_open_ = false;
    if (!plain_ && !tls_) return;
    Code ignored;
    stream().socket().close(ignored);  // what waits for it ends with operation_aborted
  }

  /// Whether the connection can take another request: the response before was read to its end, and
  /// the server has neither closed nor said anything since.
  [[nodiscard]] bool is_idle() {
    if (!is_open_ || !parser_ || !parser_->is_done() || buffer_.size() > 0) return false;
    Code error;
    char byte = 0;
    auto& socket = stream().socket();
    socket.non_blocking(true, error);
    (void)socket.receive(boost::asio::buffer(&byte, 1), socket.message_peek, error);
    return error == boost::asio::error::would_block;
  }

  [[nodiscard]] boost::asio::awaitable<void> connect() {
    constexpr auto kToken = boost::asio::as_tuple(boost::asio::use_awaitable);
    plain_ = std::make_unique<Plain>(executor_);
    tls_.reset();
    buffer_.clear();
    plain_->expires_after(limits_.connect);
    const auto [error, endpoint] = co_await plain_->async_connect(origin_.endpoints, kToken);
    if (error) fail_to_connect(error);
    Code ignored;
    plain_->socket().set_option(boost::asio::ip::tcp::no_delay(true), ignored);
    if (origin_.tls) {
      tls_ = std::make_unique<Tls>(std::move(*plain_), *origin_.tls);
      plain_.reset();
      expect_host(tls_->native_handle());
      const auto [failure] =
          co_await tls_->async_handshake(boost::asio::ssl::stream_base::client, kToken);
      if (failure) fail_to_connect(failure);
    }
    is_open_ = true;
  }

  /// The certificate must be one for the URL's host. \throws ClientError when it cannot be asked for.
  void expect_host(SSL* tls) const {
    const char* const host = origin_.url.host.c_str();
    Code is_name;
    (void)boost::asio::ip::make_address(origin_.url.host, is_name);
    const bool is_set =
        is_name ? SSL_set1_host(tls, host) == 1 && SSL_set_tlsext_host_name(tls, host) == 1
                : X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(tls), host) == 1;
    if (!is_set) throw ClientError(ClientFailure::kTls, name() + ": TLS cannot be set up");
  }

  /// Request line and headers.
  [[nodiscard]] std::string head_text(const ClientRequest& request) const {
    std::string text = request.method + ' ' + request.target +
                       " HTTP/1.1\r\nHost: " + origin_.url.authority() + "\r\nUser-Agent: lmd/" +
                       kVersion + "\r\n";
    if (!request.body.empty() || request.method == "POST")
      text += "Content-Length: " + std::to_string(request.body.size()) + "\r\n";
    std::size_t n_ends = 3 + (request.body.empty() && request.method != "POST" ? 0 : 1);
    for (const auto& [key, value] : request.headers) {
      text += key + ": " + value + "\r\n";
      ++n_ends;
    }
    std::size_t n_controls = 0;
    for (const char c : text)
      n_controls += static_cast<unsigned char>(c) < 0x20 || c == 0x7F ? 1 : 0;
    LMD_REQUIRE(n_controls == 2 * n_ends, ErrorCode::kConfig,
                "a request's header holds a control character");
    return text + "\r\n";
  }

  /// Sends, and reads the response's head.
  [[nodiscard]] boost::asio::awaitable<Code> exchange(const std::string& head,
                                                      const ClientRequest& request) {
    namespace http = boost::beast::http;
    stream().expires_after(limits_.head);
    const std::array<boost::asio::const_buffer, 2> bytes = {boost::asio::buffer(head),
                                                            boost::asio::buffer(request.body)};
    Code written;
    if (tls_) {
      written = co_await write(*tls_, bytes);
    } else {
      written = co_await write(*plain_, bytes);
    }
    late_ = {};
    do {  // past responses that only announce one
      parser_.emplace();
      parser_->header_limit(limits_.max_header_bytes);
      parser_->body_limit(boost::none);
      parser_->eager(false);
      parser_->skip(request.method == "HEAD");
      while (!parser_->is_header_done()) {
        Code error = parse();
        if (error == http::error::need_more) error = co_await read_more({});
        // A server that refuses a request may answer, and close, before it has read all of it.
        if (error) co_return written ? written : error;
      }
    } while (parser_->get().result_int() / 100 == 1);
    parser_->eager(true);
    co_return Code();
  }

  template <class Stream, class Buffers>
  [[nodiscard]] boost::asio::awaitable<Code> write(Stream& stream, const Buffers& bytes) {
    const auto [error, n] = co_await boost::asio::async_write(
        stream, bytes, boost::asio::as_tuple(boost::asio::use_awaitable));
    co_return error;
  }

  /// Parses what has come; need_more when that is not enough for anything.
  [[nodiscard]] Code parse() {
    Code error = boost::beast::http::error::need_more;
    if (buffer_.size() > 0) {
      error = {};
      buffer_.consume(parser_->put(buffer_.data(), error));
    }
    return error;
  }

  /// `deadline` counts from now; zero: the one that is set goes on.
  [[nodiscard]] boost::asio::awaitable<Code> read_more(std::chrono::milliseconds deadline) {
    namespace http = boost::beast::http;
    if (buffer_.size() + kPieceBytes > kMaxBuffered) co_return http::error::header_limit;
    if (deadline.count() > 0) stream().expires_after(deadline);
    Code error;
    if (tls_) {
      error = co_await receive(*tls_);
    } else {
      error = co_await receive(*plain_);
    }
    if (error != boost::asio::error::eof) co_return error;
    if (!parser_->got_some()) co_return http::error::end_of_stream;
    error = {};
    parser_->put_eof(error);  // partial_message, unless the body ends with the connection
    co_return error;
  }

  template <class Stream>
  [[nodiscard]] boost::asio::awaitable<Code> receive(Stream& stream) {
    const auto [error, n] = co_await stream.async_read_some(
        buffer_.prepare(kPieceBytes), boost::asio::as_tuple(boost::asio::use_awaitable));
    buffer_.commit(n);
    co_return error;
  }

  /// Whether the other side is gone.
  [[nodiscard]] static bool is_end(const Code& error) {
    return error == boost::beast::http::error::end_of_stream ||
           error == boost::beast::http::error::partial_message ||
           error == boost::asio::error::connection_reset ||
           error == boost::asio::error::broken_pipe || error == boost::asio::error::eof ||
           error == boost::asio::ssl::error::stream_truncated;
  }

  [[noreturn]] void fail_to_connect(const Code& error) {
    drop();
    if (is_cancelled_ || error == boost::beast::error::timeout ||
        (error.category() == boost::asio::error::get_system_category() && !tls_))
      fail(error, limits_.connect, "connection");
    const long reason = tls_ ? SSL_get_verify_result(tls_->native_handle()) : X509_V_OK;
    throw ClientError(ClientFailure::kTls, reason == X509_V_OK
                                               ? name() + ": does not speak TLS as https needs it"
                                               : name() + ": its certificate is not trusted (" +
                                                     X509_verify_cert_error_string(reason) +
                                                     "); SSL_CERT_FILE can name another authority");
  }

  [[noreturn]] void fail(const Code& error,
                         std::chrono::milliseconds deadline,
                         const char* what = "answer") const {
    namespace http = boost::beast::http;
    using Failure = ClientFailure;
    if (is_cancelled_ || error == boost::asio::error::operation_aborted)
      throw ClientError(Failure::kCancelled, name() + ": the request was ended");
    if (error == boost::beast::error::timeout) {
      throw ClientError(Failure::kTimeout, name() + ": no " + what + " within " +
                                               std::to_string(deadline.count()) + " ms");
    }
    if (is_end(error))
      throw ClientError(Failure::kCut, name() + ": the connection ended before the answer did");
    if (error == http::error::header_limit)
      throw ClientError(Failure::kTooLarge, name() + ": the answer's header is too large");
    if (error.category() == make_error_code(http::error::bad_version).category())
      throw ClientError(Failure::kProtocol,
                        name() + ": what answers there does not speak HTTP/1.1");
    throw ClientError(Failure::kConnect, name() + ": " + error.message());
  }

  boost::asio::any_io_executor executor_;
  Origin origin_;
  ClientLimits limits_;
  std::unique_ptr<Plain> plain_;  // of these two at most one
  std::unique_ptr<Tls> tls_;
  bool is_open_ = false;
  bool is_cancelled_ = false;
  std::optional<Parser> parser_;
  boost::beast::flat_buffer buffer_{kMaxBuffered};
  std::array<char, kPieceBytes> piece_;
  Code late_;  // what went wrong behind the piece that was given last
};

/// One request and its whole response.
[[nodiscard]] inline boost::asio::awaitable<ClientResponse> fetch(ClientConnection& connection,
                                                                  const ClientRequest& request) {
  ClientResponse response;
  response.head = co_await connection.send(request);
  response.body = co_await connection.read_body();
  co_return response;
}

}  // namespace lmd::serve
