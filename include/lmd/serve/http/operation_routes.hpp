/// \file  The endpoints of those who run the server: health, metrics, version.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/core/config.hpp>
#include <lmd/serve/http/server_core.hpp>

#include <string>
#include <vector>

namespace lmd::serve {

/// `core` outlives the routes.
[[nodiscard]] inline std::vector<Route> operation_routes(const ServerCore& core) {
  const auto ready = [&core](const ApiRequest&) {
    return ready_reply(core.health(), core.options.health);
  };
  const auto live = [&core](const ApiRequest&) {
    return live_reply(core.health(), core.options.health);
  };
  const auto metrics = [&core](const ApiRequest&) {
    return HttpReply{.body = core.metrics_text(),
                     .content_type = "text/plain; version=0.0.4; charset=utf-8"};
  };
  const auto version = [](const ApiRequest&) {
    return HttpReply{.body = std::string(R"({"version":")") + kVersion + R"("})"};
  };
  const auto route = [](std::string path, bool needs_key, Endpoint endpoint) {
    return Route{"GET", std::move(path), needs_key, RunsOn::kIoThread, std::move(endpoint)};
  };
  std::vector<Route> routes{route("/health", false, ready), route("/health/ready", false, ready),
                            route("/health/live", false, live), route("/version", true, version)};
  if (core.options.has_metrics)
    routes.push_back(route("/metrics", !core.options.has_public_metrics, metrics));
  return routes;
}

}  // namespace lmd::serve
