/// \file  Which paths the server answers: the table that routing, keys, 405, the tests and
///        /openapi.json read.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/serve/api_call.hpp>

#include <deque>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

namespace lmd::serve {

/// Where an endpoint runs.
enum class RunsOn {
  kWorker,    ///< may parse, tokenise and compile; called from many threads at a time
  kIoThread,  ///< takes microseconds and waits for nothing
};

/// \throws ApiFailure. Whatever else it throws is answered with "Internal error." and logged.
using Endpoint = std::function<ApiResult(const ApiRequest&)>;

struct Route {
  std::string method;  ///< GET or POST; HEAD and OPTIONS follow from them
  std::string path;
  bool needs_key = true;  ///< whether --api-keys protects it
  RunsOn runs_on = RunsOn::kWorker;
  Endpoint endpoint;
};

/// Routes in the order in which they are listed. A few dozen: looked through one by one.
class RouteTable {
 public:
  void add(Route route) { routes_.push_back(std::move(route)); }
  void add(std::vector<Route> routes) {
    for (Route& route : routes)
      add(std::move(route));
  }

  [[nodiscard]] const std::deque<Route>& routes() const { return routes_; }

  /// HEAD is answered by GET's route. Null: none.
  [[nodiscard]] const Route* find(std::string_view method, std::string_view path) const {
    if (method == "HEAD") method = "GET";
    for (const Route& route : routes_) {
      if (route.path == path && route.method == method) return &route;
    }
    return nullptr;
  }

  /// "GET, HEAD, OPTIONS" for an Allow header; empty for a path that is not there.
  [[nodiscard]] std::string methods_of(std::string_view path) const {
    std::string methods;
    for (const Route& route : routes_) {
      if (route.path != path) continue;
      methods += (methods.empty() ? "" : ", ") + route.method;
      if (route.method == "GET") methods += ", HEAD";
    }
    return methods.empty() ? methods : methods + ", OPTIONS";
  }

 private:
  std::deque<Route> routes_;  // requests point at theirs while more are added
};

}  // namespace lmd::serve
