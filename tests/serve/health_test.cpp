/// \file  What /health/ready and /health/live say of every state.
// SPDX-License-Identifier: Apache-2.0
#include <lmd/serve/health.hpp>

#include <doctest/doctest.h>

using namespace lmd::serve;
using std::chrono::milliseconds;

TEST_CASE("a server is ready while it serves and its engine gives signs of life") {
  const HealthLimits limits{.ready = milliseconds(4000), .live = milliseconds(25000)};
  const auto ready = [&](const Health& h) { return ready_reply(h, limits).status; };
  const auto live = [&](const Health& h) { return live_reply(h, limits).status; };
  CHECK(ready({.phase = Phase::kLoading}) == 503);
  CHECK(live({.phase = Phase::kLoading, .silence = milliseconds(90000)}) == 200);
  CHECK(ready({.phase = Phase::kServing, .silence = milliseconds(4000)}) == 200);
  CHECK(ready({.phase = Phase::kServing, .silence = milliseconds(4001)}) == 503);
  CHECK(live({.phase = Phase::kServing, .silence = milliseconds(25000)}) == 200);
  CHECK(live({.phase = Phase::kServing, .silence = milliseconds(25001)}) == 503);
  CHECK(ready({.phase = Phase::kServing, .is_dead = true}) == 503);
  CHECK(live({.phase = Phase::kServing, .is_dead = true}) == 503);
}

TEST_CASE("while a server drains, a long step cuts no stream behind a balancer") {
  const HealthLimits limits;
  CHECK(ready_reply({.phase = Phase::kDraining}, limits).status == 404);
  CHECK(ready_reply({.phase = Phase::kDraining, .silence = milliseconds(9000)}, limits).status ==
        404);
  CHECK(ready_reply({.phase = Phase::kDraining, .is_dead = true}, limits).status == 503);
}
