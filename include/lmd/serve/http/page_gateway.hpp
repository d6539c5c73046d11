/// \file  A small server between a browser and an API server: it shows the page, and hands on what the page
///        asks.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/serve/http/gateway_session.hpp>

#include <chrono>
#include <cstdint>
#include <memory>
#include <string>
#include <unordered_map>
#include <utility>

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/v6_only.hpp>
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
    listen();
  }

  [[nodiscard]] std::uint16_t port() const { return acceptor_.local_endpoint().port(); }
  [[nodiscard]] int n_connections() const { return static_cast<int>(sessions_.size()); }

  /// Begins to take connections.
  void start() { boost::asio::co_spawn(io_, accept(), boost::asio::detached); }

  /// Ends everything that is under way.
  void stop() {
    boost::system::error_code ignored;
    (void)acceptor_.close(ignored);
    for (const auto& [key, session] : sessions_)
      if (const auto alive = session.lock()) alive->close();
  }

 private:
  void listen() {
    const std::string where = "port " + std::to_string(options_.port) + " of " + options_.host;
    boost::system::error_code error;
    tcp::resolver resolver(io_);
    const auto found = resolver.resolve(options_.host, std::to_string(options_.port),
                                        tcp::resolver::passive, error);
    LMD_REQUIRE(!error && !found.empty(), ErrorCode::kConfig,
                "--server-name '" + options_.host + "': is not an address of this machine");
    const tcp::endpoint endpoint = found.begin()->endpoint();
    (void)acceptor_.open(endpoint.protocol(), error);
    if (!error) (void)acceptor_.set_option(tcp::acceptor::reuse_address(true), error);
    if (!error && endpoint.address().is_v6())
      (void)acceptor_.set_option(boost::asio::ip::v6_only(false), error);
    if (!error) (void)acceptor_.bind(endpoint, error);
    if (!error) (void)acceptor_.listen(tcp::acceptor::max_listen_connections, error);
    LMD_REQUIRE(error != boost::asio::error::address_in_use, ErrorCode::kConfig,
                where + " is in use; choose another with --server-port");
    LMD_REQUIRE(!error, ErrorCode::kConfig, where + " cannot be listened on: " + error.message());
  }

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
