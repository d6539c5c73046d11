/// \file  What `lmd bench serve` prints and writes, and how two of its files compare.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/json/json.hpp>

#include <algorithm>
#include <cstdio>
#include <string>
#include <utility>
#include <vector>

#include "../statistics.hpp"
#include "../units.hpp"
#include "load_case.hpp"

namespace lmd::apps {

/// The times of a run in milliseconds; empty where they are not defined.
struct LoadTimes {
  std::vector<double> ttft, scheduled_ttft, tpot, itl, e2e, scheduled_e2e;

  LoadTimes(const LoadCase& c, const LoadRun& run) {
    for (const RequestTimes& r : run.answered) {
      ttft.push_back(1e3 * r.ttft_s());
      e2e.push_back(1e3 * (r.end_s - r.sent_s));
      if (r.n_output > 1) tpot.push_back(1e3 * r.tpot_s());
      if (!c.is_open_loop()) continue;
      scheduled_ttft.push_back(1e3 * r.scheduled_ttft_s());
      scheduled_e2e.push_back(1e3 * (r.end_s - r.scheduled_s));
    }
    for (const double gap_s : run.gap_s)
      itl.push_back(1e3 * gap_s);
  }
};

/// Sums over the answered requests, and rates.
struct LoadTotals {
  std::int64_t output_tokens = 0;
  std::int64_t prompt_tokens = 0;  ///< 0: the server does not tell
  std::int64_t cached_tokens = 0;
  bool is_counted_by_server = true;
  double requests_per_s = 0.0;
  double output_tokens_per_s = 0.0;
  double total_tokens_per_s = 0.0;
  double good_per_s = 0.0;
  double good_share = 0.0;  ///< of all requests, those that failed included

  LoadTotals(const LoadCase& c, const LoadRun& run) {
    for (const RequestTimes& r : run.answered) {
      output_tokens += r.n_output;
      prompt_tokens += r.n_prompt;
      cached_tokens += r.n_cached;
      is_counted_by_server = is_counted_by_server && r.is_counted_by_server;
    }
    if (run.seconds <= 0.0) return;
    const auto n_answered = static_cast<double>(run.answered.size());
    const auto n_good = static_cast<double>(count_good(c, run.answered));
    requests_per_s = n_answered / run.seconds;
    output_tokens_per_s = static_cast<double>(output_tokens) / run.seconds;
    total_tokens_per_s = static_cast<double>(output_tokens + prompt_tokens) / run.seconds;
    good_per_s = n_good / run.seconds;
    const double n_all = n_answered + static_cast<double>(run.n_errors());
    good_share = n_all > 0.0 ? n_good / n_all : 0.0;
  }
};

[[nodiscard]] inline json::Json load_json(const std::string& server,
                                          const LoadCase& c,
                                          const LoadRun& run) {
  const LoadTotals totals(c, run);
  const LoadTimes times(c, run);
  json::Json report = {{"server", server},
                       {"model", c.model},
                       {"endpoint", c.endpoint},
                       {"dataset", c.dataset},
                       {"requests", c.requests},
                       {"concurrency", c.concurrency},
                       {"request_rate", c.request_rate},
                       {"prompt_len", c.prompt_len},
                       {"gen_len", c.gen_len},
                       {"spread", c.spread},
                       {"ignore_eos", c.ignores_eos},
                       {"temperature", c.temperature},
                       {"seed", c.seed},
                       {"seconds", run.seconds},
                       {"answered", run.answered.size()},
                       {"errors", run.errors},
                       {"requests_per_s", totals.requests_per_s},
                       {"output_tokens_per_s", totals.output_tokens_per_s},
                       {"total_tokens_per_s", totals.total_tokens_per_s},
                       {"output_tokens", totals.output_tokens},
                       {"prompt_tokens", totals.prompt_tokens},
                       {"cached_tokens", totals.cached_tokens},
                       {"counted_by", totals.is_counted_by_server ? "server" : "events"},
                       {"client_lag_p99_ms", 1e3 * percentile(run.lag_s, 0.99)},
                       {"client_cpu_share", run.cpu_share}};
  if (c.dataset == "shared-prefix")
    report.update({{"prefix_len", c.prefix_len}, {"groups", c.groups}});
  const auto add = [&](const std::string& name, const std::vector<double>& values) {
    if (values.empty()) return;
    const Summary s = summarize(values);
    report.update(
        {{name + "_mean_ms", s.mean}, {name + "_p50_ms", s.p50}, {name + "_p99_ms", s.p99}});
  };
  add("ttft", times.ttft);
  add("scheduled_ttft", times.scheduled_ttft);
  add("tpot", times.tpot);
  add("itl", times.itl);
  add("e2e", times.e2e);
  add("scheduled_e2e", times.scheduled_e2e);
  if (c.has_slo()) {
    report.update({{"slo_ttft_ms", c.slo_ttft_ms},
                   {"slo_tpot_ms", c.slo_tpot_ms},
                   {"goodput_requests_per_s", totals.good_per_s},
                   {"goodput_share", totals.good_share}});
  }
  return report;
}

/// "100 requests of random, 256 + 64 tokens, 8 at a time"
[[nodiscard]] inline std::string load_text(const LoadCase& c) {
  std::string text = std::to_string(c.requests) + " requests of ";
  if (c.dataset == "file") {
    text += "a file";
  } else {
    if (c.dataset == "shared-prefix") {
      text += std::to_string(c.groups) + " prefixes of " + std::to_string(c.prefix_len) +
              " tokens, each and ";
    }
    text += std::to_string(c.prompt_len) + " + " + std::to_string(c.gen_len) + " tokens";
  }
  if (c.is_open_loop()) text += ", " + number_text(c.request_rate, 2) + " a second";
  if (c.concurrency > 0)
    text += ", " + std::string(c.is_open_loop() ? "at most " : "") + std::to_string(c.concurrency) +
            " at a time";
  return text + ", " + c.endpoint;
}

[[nodiscard]] inline std::string report_text(const std::string& server,
                                             const LoadCase& c,
                                             const LoadRun& run) {
  constexpr double kLate = 5e-3;  // seconds; of gaps of some 10 ms that would be half
  const LoadTotals totals(c, run);
  const LoadTimes times(c, run);
  std::string text = c.model + " at " + server + ": " + load_text(c) + '\n';
  const auto row = [&](std::string name, const std::string& value) {
    name.resize(13, ' ');
    text += "  " + name + value + '\n';
  };
  const auto time_row = [&](const std::string& name, const std::vector<double>& values) {
    if (values.empty()) return;
    const Summary s = summarize(values);
    row(name, "mean " + number_text(s.mean, 1) + " ms, p50 " + number_text(s.p50, 1) + " ms, p99 " +
                  number_text(s.p99, 1) + " ms");
  };
  const std::int64_t n_ended = std::ssize(run.answered) + run.n_errors();
  row("answered", count_text(std::ssize(run.answered)) + " of " + count_text(n_ended) + ", " +
                      number_text(totals.requests_per_s, 2) + " requests/s, " +
                      seconds_text(run.seconds));
  for (const auto& [kind, count] : run.errors)
    row("failed", count_text(count) + ": " + kind);
  row("throughput",
      number_text(totals.output_tokens_per_s, 1) + " output tokens/s" +
          (totals.prompt_tokens > 0
               ? ", " + number_text(totals.total_tokens_per_s, 1) + " with the prompts'"
               : "") +
          (totals.is_counted_by_server ? "" : "; events counted, the server tells none"));
  if (totals.cached_tokens > 0) {
    row("prompts", count_text(totals.prompt_tokens) + " tokens, " +
                       count_text(totals.cached_tokens) + " from the prefix cache");
  }
  if (c.has_slo()) {
    row("goodput", number_text(totals.good_per_s, 2) + " requests/s, " +
                       number_text(100.0 * totals.good_share, 1) + " % of all");
  }
  time_row("TTFT", times.ttft);
  time_row("  scheduled", times.scheduled_ttft);
  time_row("TPOT", times.tpot);
  time_row("ITL", times.itl);
  time_row("E2E", times.e2e);
  time_row("  scheduled", times.scheduled_e2e);
  const double lag_s = percentile(run.lag_s, 0.99);
  row("client", "late by " + number_text(1e3 * lag_s, 1) + " ms at p99, " +
                    number_text(100.0 * run.cpu_share, 0) + " % of a core" +
                    (lag_s > kLate ? "; its times are too long by as much" : ""));
  return text;
}

struct LoadMetric {
  const char* key;
  bool is_better_high;
};

/// What is compared of two runs.
inline constexpr LoadMetric kLoadMetrics[] = {
    {"requests_per_s", true},
    {"output_tokens_per_s", true},
    {"total_tokens_per_s", true},
    {"goodput_share", true},
    {"goodput_requests_per_s", true},
    {"ttft_mean_ms", false},
    {"ttft_p50_ms", false},
    {"ttft_p99_ms", false},
    {"scheduled_ttft_p99_ms", false},
    {"tpot_mean_ms", false},
    {"tpot_p50_ms", false},
    {"tpot_p99_ms", false},
    {"itl_mean_ms", false},
    {"itl_p50_ms", false},
    {"itl_p99_ms", false},
    {"e2e_mean_ms", false},
    {"e2e_p50_ms", false},
    {"e2e_p99_ms", false},
    {"scheduled_e2e_p99_ms", false},
};

/// What should be the same in two runs that are compared.
inline constexpr const char* kLoadSettings[] = {
    "model",       "endpoint", "dataset",     "requests",    "concurrency", "request_rate",
    "prompt_len",  "gen_len",  "spread",      "prefix_len",  "groups",      "ignore_eos",
    "temperature", "seed",     "slo_ttft_ms", "slo_tpot_ms", "counted_by"};

/// A table of both, and above it what was asked differently.
///
/// Errors:  \throws Error(kFormat) naming the file that is none of `lmd bench serve`.
[[nodiscard]] inline std::string comparison_text(const json::Json& a,
                                                 const std::string& name_a,
                                                 const json::Json& b,
                                                 const std::string& name_b) {
  for (const auto& [file, name] : {std::pair(&a, &name_a), std::pair(&b, &name_b)}) {
    LMD_REQUIRE(file->is_object() && file->contains("requests_per_s"), ErrorCode::kFormat,
                *name + ": is no file of `lmd bench serve --json`");
  }
  const auto value_of = [](const json::Json& file, const char* key) {
    const auto at = file.find(key);
    return at == file.end() ? json::Json() : *at;
  };
  std::string text = "A: " + name_a + "\nB: " + name_b + '\n';
  for (const char* key : kLoadSettings) {
    const json::Json x = value_of(a, key);
    const json::Json y = value_of(b, key);
    if (x != y)
      text += "differs: " + std::string(key) + ' ' + json::shown(x) + ", " + json::shown(y) + '\n';
  }
  char line[128];
  std::snprintf(line, sizeof line, "%-24s %12s %12s %10s\n", "", "A", "B", "change");
  text += line;
  for (const LoadMetric& metric : kLoadMetrics) {
    const json::Json x = value_of(a, metric.key);
    const json::Json y = value_of(b, metric.key);
    if (!x.is_number() || !y.is_number()) continue;
    const double before = x.get<double>();
    const double after = y.get<double>();
    std::string change = "-";
    const char* verdict = "";
    if (before > 0.0) {
      const double percent = 100.0 * (after / before - 1.0);
      change = (percent >= 0.0 ? "+" : "") + number_text(percent, 1) + " %";
      if (percent != 0.0) verdict = (percent > 0.0) == metric.is_better_high ? "better" : "worse";
    }
    std::snprintf(line, sizeof line, "%-24s %12.3f %12.3f %10s %s\n", metric.key, before, after,
                  change.c_str(), verdict);
    text += line;
  }
  return text;
}

}  // namespace lmd::apps
