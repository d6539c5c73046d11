/// \file  What systemd wants to hear of a service (source: sd_notify(3), the datagram protocol).
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <optional>
#include <string>
#include <string_view>

#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

namespace lmd::serve {

/// Sends "READY=1", "STOPPING=1", "WATCHDOG=1" and the like. Does nothing where no manager listens.
inline void sd_notify(std::string_view state) {
  const char* const path = std::getenv("NOTIFY_SOCKET");
  sockaddr_un address{};
  if (path == nullptr || path[0] == '\0' || std::strlen(path) >= sizeof address.sun_path) return;
  address.sun_family = AF_UNIX;
  std::memcpy(address.sun_path, path, std::strlen(path));
  if (address.sun_path[0] == '@') address.sun_path[0] = '\0';  // the abstract name space
  const int fd = ::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  if (fd < 0) return;
  const auto size = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + std::strlen(path));
  (void)!::sendto(fd, state.data(), state.size(), MSG_NOSIGNAL,
                  reinterpret_cast<const sockaddr*>(&address), size);
  ::close(fd);
}

/// How often the manager wants WATCHDOG=1 at least; none where it does not watch this process.
[[nodiscard]] inline std::optional<std::chrono::microseconds> sd_watchdog_period() {
  const char* const period = std::getenv("WATCHDOG_USEC");
  const char* const pid = std::getenv("WATCHDOG_PID");
  if (period == nullptr) return std::nullopt;
  if (pid != nullptr && std::string(pid) != std::to_string(::getpid())) return std::nullopt;
  const long long us = std::strtoll(period, nullptr, 10);
  if (us <= 0) return std::nullopt;
  return std::chrono::microseconds(us);
}

}  // namespace lmd::serve
