/// \file  The HTTP client for a thread that waits for its answers.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/serve/http/http_client.hpp>

#include <chrono>
#include <exception>
#include <functional>
#include <optional>
#include <string_view>
#include <utility>

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/io_context.hpp>

namespace lmd::serve {

/// One server and one connection to it.
///
/// Errors:  everything \throws what ClientConnection does, and resolve().
class BlockingClient {
 public:
  /// Asked about twenty times a second while something is waited for; true ends the request with
  /// ClientError(kCancelled), and so does what it throws, which goes through.
  using IsCancelled = std::function<bool()>;
  using OnHead = std::function<void(const ResponseHead&)>;
  /// False: no more is wanted, and the connection is closed.
  using OnPiece = std::function<bool(std::string_view)>;

  explicit BlockingClient(Url url, ClientLimits limits = {}, IsCancelled is_cancelled = {})
      : url_(std::move(url)), limits_(limits), is_cancelled_(std::move(is_cancelled)) {}

  [[nodiscard]] const Url& url() const { return url_; }

  [[nodiscard]] ClientResponse fetch(const ClientRequest& request) {
    ClientResponse response;
    run(fetch_into(request, response));
    return response;
  }

  /// Hands out the body as it comes. What `on_head` and `on_piece` throw ends the request, too.
  void stream(const ClientRequest& request, const OnHead& on_head, const OnPiece& on_piece) {
    run(stream_to(request, on_head, on_piece));
  }

 private:
  static constexpr std::chrono::milliseconds kPoll{50};

  boost::asio::awaitable<void> open() {
    if (connection_) co_return;
    Origin origin = co_await resolve(url_);
    connection_.emplace(context_.get_executor(), std::move(origin), limits_);
  }

  boost::asio::awaitable<void> fetch_into(const ClientRequest& request, ClientResponse& response) {
    co_await open();
    response = co_await serve::fetch(*connection_, request);
  }

  boost::asio::awaitable<void> stream_to(const ClientRequest& request,
                                         const OnHead& on_head,
                                         const OnPiece& on_piece) {
    co_await open();
    on_head(co_await connection_->send(request));
    for (;;) {
      const std::string_view piece = co_await connection_->read_some();
      if (piece.empty()) co_return;
      if (on_piece(piece)) continue;
      connection_->close();
      co_return;
    }
  }

  void run(boost::asio::awaitable<void> work) {
    std::exception_ptr failure;
    bool is_done = false;
    boost::asio::co_spawn(context_, std::move(work), [&](const std::exception_ptr& e) {
      failure = e;
      is_done = true;
    });
    context_.restart();
    std::exception_ptr thrown;  // by is_cancelled_; the work has to end before it can be passed on
    while (!is_done) {
      context_.run_one_for(kPoll);
      if (is_done || thrown || !is_cancelled_ || !connection_) continue;
      try {
        if (is_cancelled_()) connection_->close();
      } catch (...) {
        thrown = std::current_exception();
        connection_->close();
      }
    }
    if (thrown) std::rethrow_exception(thrown);
    if (failure) std::rethrow_exception(failure);
  }

  Url url_;
  ClientLimits limits_;
  IsCancelled is_cancelled_;
  boost::asio::io_context context_{1};
  std::optional<ClientConnection> connection_;
};

}  // namespace lmd::serve
