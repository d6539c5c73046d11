/// \file  What `lmd bench serve` does to a server, and what came of it.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/serve/client_error.hpp>

#include <cstdint>
#include <map>
#include <string>
#include <vector>

namespace lmd::apps {

struct LoadCase {
  std::string model;
  std::string endpoint = "chat";   ///< "chat", "completions"
  std::string dataset = "random";  ///< "random", "shared-prefix", "file"
  int requests = 100;
  int concurrency = 0;        ///< at most so many under way; 0: as many as come
  double request_rate = 0.0;  ///< per second, by Poisson; 0: one comes when one ends
  double seconds = 0.0;       ///< no request begins later; 0: no bound
  int warm_up = 0;            ///< requests before the first that counts
  int prompt_len = 256;       ///< tokens, or words where the server does not count them
  int gen_len = 64;           ///< tokens at most; 0: those of the file
  double spread = 0.0;        ///< lengths are drawn from (1 - spread) to (1 + spread) of those
  int prefix_len = 1024;      ///< of "shared-prefix", in front of the prompt
  int groups = 4;             ///< of "shared-prefix": how many prefixes there are
  bool ignores_eos = false;
  double temperature = 0.0;
  std::int64_t seed = 0;
  double slo_ttft_ms = 0.0;  ///< 0: none
  double slo_tpot_ms = 0.0;  ///< 0: none

  [[nodiscard]] bool is_open_loop() const { return request_rate > 0.0; }
  [[nodiscard]] bool has_slo() const { return slo_ttft_ms > 0.0 || slo_tpot_ms > 0.0; }
};

/// One answered request. Seconds since the run began.
struct RequestTimes {
  double scheduled_s = 0.0;   ///< when it was to be sent; of a closed loop, when it was
  double sent_s = 0.0;        ///< when the client set to work on it, connecting included
  double first_s = 0.0;       ///< when the bytes of the first token came
  double last_s = 0.0;        ///< of the last token
  double end_s = 0.0;         ///< of the stream's end
  std::int64_t n_output = 0;  ///< tokens, by the server's count where it tells, else events
  std::int64_t n_prompt = 0;  ///< tokens, where the server tells
  std::int64_t n_cached = 0;  ///< of these, from its prefix cache
  bool is_counted_by_server = false;

  [[nodiscard]] double ttft_s() const { return first_s - sent_s; }
  [[nodiscard]] double scheduled_ttft_s() const { return first_s - scheduled_s; }
  /// Of answers with two tokens or more.
  [[nodiscard]] double tpot_s() const {
    return (last_s - first_s) / static_cast<double>(n_output - 1);
  }
};

struct LoadRun {
  double seconds = 0.0;  ///< from the first request to the last one's end
  std::vector<RequestTimes> answered = {};
  std::vector<double> gap_s = {};  ///< between two events with tokens of one answer, all together
  std::map<std::string, std::int64_t> errors = {};  ///< kind ("status 429") -> how many
  std::string first_error = {};                     ///< in words
  serve::ClientFailure first_failure = serve::ClientFailure::kStatus;  ///< where there are errors
  std::vector<double> lag_s = {};  ///< how late the client's own clock called it, every 10 ms
  double cpu_share = 0.0;          ///< of one core, the client's

  [[nodiscard]] std::int64_t n_errors() const {
    std::int64_t n = 0;
    for (const auto& [kind, count] : errors)
      n += count;
    return n;
  }
};

/// Answers whose first token, from the time for which it was scheduled, and whose time for each
/// further token keep the bounds.
[[nodiscard]] inline std::int64_t count_good(const LoadCase& c,
                                             const std::vector<RequestTimes>& answered) {
  std::int64_t n = 0;
  for (const RequestTimes& r : answered) {
    const bool is_soon = c.slo_ttft_ms <= 0.0 || 1e3 * r.scheduled_ttft_s() <= c.slo_ttft_ms;
    const bool is_quick =
        c.slo_tpot_ms <= 0.0 || r.n_output < 2 || 1e3 * r.tpot_s() <= c.slo_tpot_ms;
    n += is_soon && is_quick ? 1 : 0;
  }
  return n;
}

}  // namespace lmd::apps
