/// \file  What the operator decides about the server.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/serve/cross_origin.hpp>
#include <lmd/serve/error_reply.hpp>
#include <lmd/serve/health.hpp>
#include <lmd/serve/server_metrics.hpp>

#include <chrono>
#include <cstdint>
#include <string>
#include <vector>

namespace lmd::serve {

/// What one client may take, and how long it may take for it.
struct HttpLimits {
  std::uint32_t header_bytes = 16 << 10;
  std::uint64_t body_bytes = std::uint64_t{32} << 20;
  std::uint64_t all_body_bytes = std::uint64_t{512} << 20;  ///< of all requests together
  std::chrono::milliseconds header_time{10000};  ///< from the first byte, or the connection's begin
  std::chrono::milliseconds body_time{60000};    ///< from the end of the header
  std::chrono::milliseconds idle_time{75000};    ///< between requests of a connection
  std::chrono::milliseconds write_time{30000};   ///< for what a client has not taken yet
  std::size_t unread_events = 16384;             ///< tokens that wait for a slow client
  int connections = 4096;
  int calls = 0;  ///< requests that are worked on at a time; 0: no limit. More are refused
};

struct ServerOptions {
  std::string host = "127.0.0.1";
  std::uint16_t port = 23333;  ///< 0: any that is free
  ApiCompat compat = ApiCompat::k018;
  HttpLimits limits = {};
  HealthLimits health = {};
  CrossOrigin cross_origin = {};
  std::vector<std::string> api_keys = {};
  std::string api_keys_file = {};  ///< one a line; read again on reload
  std::string tls_key_file =
      {};  ///< with tls_certificate_file: HTTPS. Both are read again on reload
  std::string tls_certificate_file = {};
  MetricNames metric_names = MetricNames::kOwn;
  bool has_metrics = true;
  bool has_public_metrics = false;  ///< without a key
  int worker_threads = 1;
  std::chrono::seconds queue_time{
      60};  ///< then a request that has not started is refused; 0: never
  std::chrono::seconds sse_ping_period{0};  ///< 0: none
  std::chrono::milliseconds drain_grace{
      2000};                             ///< requests are taken so long after the first signal
  std::chrono::seconds drain_time{300};  ///< then what still runs is cut
  int logged_body_bytes = 0;  ///< of each request; 0: bodies are not logged, as they hold prompts
};

}  // namespace lmd::serve
