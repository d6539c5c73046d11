/// \file  Taking a port.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/core/error.hpp>

#include <string>

#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/ip/v6_only.hpp>

namespace lmd::serve {

/// Binds `acceptor` to the first address of `host`, IPv6 ones for IPv4 too, and listens.
///
/// Errors:  \throws Error(kConfig) naming address and port.
inline void listen_on(boost::asio::ip::tcp::acceptor& acceptor, const std::string& host, int port) {
  using boost::asio::ip::tcp;
  constexpr int kBacklog = 4096;  // as many as the system allows at most
  boost::system::error_code error;
  tcp::resolver resolver(acceptor.get_executor());
  const auto found = resolver.resolve(host, std::to_string(port), tcp::resolver::passive, error);
  LMD_REQUIRE(!error && !found.empty(), ErrorCode::kConfig,
              "--server-name '" + host + "': is not an address of this machine");
  const tcp::endpoint endpoint = found.begin()->endpoint();
  (void)acceptor.open(endpoint.protocol(), error);
  if (!error) (void)acceptor.set_option(tcp::acceptor::reuse_address(true), error);
  if (!error && endpoint.address().is_v6())
    (void)acceptor.set_option(boost::asio::ip::v6_only(false), error);
  if (!error) (void)acceptor.bind(endpoint, error);
  if (!error) (void)acceptor.listen(kBacklog, error);
  const std::string where = "port " + std::to_string(port) + " of " + host;
  LMD_REQUIRE(error != boost::asio::error::address_in_use, ErrorCode::kConfig,
              where + " is in use; choose another with --server-port");
  LMD_REQUIRE(!error, ErrorCode::kConfig, where + " cannot be listened on: " + error.message());
}

}  // namespace lmd::serve
