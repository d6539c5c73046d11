/// \file  A small server between a browser and an API server: it shows the page, and hands on what the page
///        asks.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/serve/http/gateway_session.hpp>
#include <lmd/serve/http/listen.hpp>

#include <chrono>
#include <cstdint>
#include <exception>
#include <memory>
#include <string>
#include <unordered_map>
#include <utility>

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/steady_timer.hpp>

namespace lmd::serve {

/// Everything happens on the thread that runs `io`.
class PageGateway {
  using tcp = boost::asio::ip::tcp;

 public:
  /// Takes the port.
  ///
  /// Errors:  \throws Error(kConfig) naming address and port.
  PageGateway(boost::asio::io_context& io, GatewayOptions options, StaticFiles files)
      : io_(io), options_(std::move(options)), files_(files), acceptor_(io) {
    listen_on(acceptor_, options_.host, options_.port);
  }

  [[nodiscard]] std::uint16_t port() const { return acceptor_.local_endpoint().port(); }
  [[nodiscard]] int n_connections() const { return static_cast<int>(sessions_.size()); }

  /// Begins to take connections. What fails for want of memory is tried again.
  void start() {
    boost::asio::co_spawn(io_, accept(), [this](const std::exception_ptr& failure) {
      if (failure && acceptor_.is_open()) start();
    });
  }

  /// Ends everything that is under way.
  void stop() {
    boost::system::error_code ignored;
    (void)acceptor_.close(ignored);
    for (const auto& [key, session] : sessions_)
      if (const auto alive = session.lock()) alive->close();
  }

 private:
  boost::asio::awaitable<void> accept() {
    constexpr auto kToken = boost::asio::as_tuple(boost::asio::use_awaitable);
    constexpr std::chrono::milliseconds kPause{100};
    while (acceptor_.is_open()) {
      auto [error, socket] = co_await acceptor_.async_accept(kToken);
      if (!acceptor_.is_open()) break;
      if (error) {  // no file descriptor is left, or the browser is gone
        boost::asio::steady_timer pause(io_, kPause);
        (void)co_await pause.async_wait(kToken);
      } else if (n_connections() < options_.connections) {
        boost::asio::co_spawn(io_, serve(std::move(socket)), boost::asio::detached);
      }
    }
  }

  boost::asio::awaitable<void> serve(tcp::socket socket) {
    boost::system::error_code ignored;
    (void)socket.set_option(tcp::no_delay(true), ignored);
    const auto session = std::make_shared<GatewaySession>(std::move(socket), options_, files_);
    sessions_.emplace(session.get(), session);
    try {
      co_await session->run();
    } catch (const std::exception&) {  // it ends this connection alone
    }
    sessions_.erase(session.get());
  }

  boost::asio::io_context& io_;
  GatewayOptions options_;
  StaticFiles files_;
  tcp::acceptor acceptor_;
  std::unordered_map<GatewaySession*, std::weak_ptr<GatewaySession>> sessions_;
};

}  // namespace lmd::serve
