/// \file  The load of `lmd bench serve`: thousands of streams on one thread, timed as their bytes come.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/serve/url.hpp>

#include <functional>
#include <string>

#include "load_case.hpp"
#include "load_prompts.hpp"

namespace lmd::apps {

struct LoadTarget {
  serve::Url base;           ///< of api_base()
  std::string key = {};      ///< empty: none is sent
  double timeout_s = 600.0;  ///< for an answer's beginning, and between its pieces
};

/// Gets the number of requests that have ended, ten times a second.
using OnLoadProgress = std::function<void(int)>;

/// Sends the requests of `c` and takes the times of their answers. In a closed loop `c.concurrency`
/// requests are under way, and one comes when one ends; in an open loop they come when they are
/// scheduled, whatever the server does, and wait where `c.concurrency` are under way.
///
/// A time is taken when the bytes of an event have been read from the socket. What a request fails
/// of is counted in the result.
///
/// Errors:  \throws ClientError(kResolve); what `on_progress` throws, after every request was ended.
[[nodiscard]] LoadRun run_load(const LoadTarget& target,
                               const LoadCase& c,
                               const LoadPrompts& prompts,
                               const OnLoadProgress& on_progress);

/// Requests before those that count; they differ from these. \throws ClientError when one fails.
void warm_up_server(const LoadTarget& target, const LoadCase& c, const LoadPrompts& prompts);

/// Lets the process have so many connections. \throws Error(kConfig) where the system does not.
void allow_connections(int n);

}  // namespace lmd::apps
