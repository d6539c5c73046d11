/// \file  Whether the server is alive and ready, by the engine's signs of life.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/serve/api_call.hpp>

#include <chrono>
#include <string>

namespace lmd::serve {

/// How long the engine may be silent.
struct HealthLimits {
  std::chrono::milliseconds ready{4000};      ///< then the server is not ready
  std::chrono::milliseconds live{25000};      ///< then it is not alive
  std::chrono::milliseconds restart{300000};  ///< then the process ends with status 70; 0: never
};

enum class Phase { kLoading, kServing, kDraining };

struct Health {
  Phase phase = Phase::kLoading;
  std::chrono::milliseconds silence{0};  ///< of the engine
  bool is_dead = false;                  ///< the engine will not go on
};

[[nodiscard]] inline HttpReply health_reply(int status, const char* word) {
  return {.status = status,
          .body = std::string(R"({"status":")") + word + R"(","message":")" + word + R"("})"};
}

/// 200 while requests are welcome. 404 while draining: HAProxy's `http-check disable-on-404` then sends
/// no more, and lets what runs finish; 503 would cut it. 503 while loading, hung or dead.
[[nodiscard]] inline HttpReply ready_reply(const Health& health, const HealthLimits& limits) {
  if (health.is_dead) return health_reply(503, "dead");
  if (health.phase == Phase::kLoading) return health_reply(503, "loading");
  if (health.phase == Phase::kDraining) return health_reply(404, "draining");
  if (health.silence > limits.ready) return health_reply(503, "hung");
  return health_reply(200, "healthy");
}

/// 503 when only a restart helps.
[[nodiscard]] inline HttpReply live_reply(const Health& health, const HealthLimits& limits) {
  if (health.is_dead) return health_reply(503, "dead");
  if (health.phase != Phase::kLoading && health.silence > limits.live)
    return health_reply(503, "hung");
  return health_reply(200, "alive");
}

}  // namespace lmd::serve
