/// \file  Addresses of servers as people are told of them.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

namespace lmd::apps {

/// Where a browser on this machine finds the server: "http://127.0.0.1:6006"
[[nodiscard]] inline std::string local_url(std::string host, int port, bool is_tls) {
  if (host == "0.0.0.0" || host == "::") host = "127.0.0.1";
  if (host.find(':') != std::string::npos) host = '[' + host + ']';
  return (is_tls ? "https://" : "http://") + host + ':' + std::to_string(port);
}

}  // namespace lmd::apps
