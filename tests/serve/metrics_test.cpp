/// \file  Prometheus's text, health, and lines of the log.
// SPDX-License-Identifier: Apache-2.0
#include <lmd/serve/health.hpp>
#include <lmd/serve/metrics.hpp>
#include <lmd/serve/server_log.hpp>
#include <lmd/serve/server_metrics.hpp>

#include <chrono>
#include <limits>
#include <string>

#include <doctest/doctest.h>
#include <unistd.h>

using namespace lmd::serve;
using std::chrono::milliseconds;

TEST_CASE("metrics are written as Prometheus reads them") {
  MetricsText out;
  out.family("a_total", "counter", "What it is.");
  out.sample(3);
  out.sample(0.25, {{"x", "quote \" back \\ line \n"}, {"y", ""}});
  out.family("b", "gauge", "More.");
  out.sample(std::numeric_limits<double>::infinity());
  CHECK(out.text() ==
        "# HELP a_total What it is.\n# TYPE a_total counter\na_total 3\n"
        "a_total{x=\"quote \\\" back \\\\ line \\n\",y=\"\"} 0.25\n"
        "# HELP b More.\n# TYPE b gauge\nb +Inf\n");
}

TEST_CASE("a histogram's buckets count what is not above them") {
  Histogram h;
  for (const double seconds : {0.0005, 0.001, 0.0011, 700.0})
    h.observe(seconds);
  CHECK(h.total() == 4);
  CHECK(h.sum() == doctest::Approx(700.0026));
  MetricsText out;
  out.family("t", "histogram", "Times.");
  out.histogram(h, {{"m", "x"}});
  const auto has = [&](const char* line) { return out.text().find(line) != std::string::npos; };
  CHECK(has("t_bucket{m=\"x\",le=\"0.001\"} 2\n"));
  CHECK(has("t_bucket{m=\"x\",le=\"0.0025\"} 3\n"));
  CHECK(has("t_bucket{m=\"x\",le=\"600\"} 3\n"));
  CHECK(has("t_bucket{m=\"x\",le=\"+Inf\"} 4\n"));
  CHECK(has("t_count{m=\"x\"} 4\n"));
}

TEST_CASE("answers are waiting, then running, also where the engine is ahead of the count") {
  using lmd::engine::FinishReason;
  AnswerMetrics metrics;
  RunningCall call(nullptr, 3);
  const auto say = [&](int answer, int token, FinishReason finish = FinishReason::kNone) {
    const AnswerEvent event{.answer = answer, .token = token, .finish = finish, .logprobs = {}};
    metrics.on_event(call, event, lmd::engine::kNotStarted);
    call.deliver(event);
  };
  const auto counts = [&] { return std::pair(metrics.waiting(), metrics.running()); };
  say(0, 1);
  say(1, 1);
  say(1, 2, FinishReason::kStop);
  CHECK(counts() == std::pair<std::int64_t, std::int64_t>(0, 0));
  metrics.on_submitted(call);
  CHECK(counts() == std::pair<std::int64_t, std::int64_t>(1, 1));
  say(2, 1);
  CHECK(counts() == std::pair<std::int64_t, std::int64_t>(0, 2));
  say(0, 2, FinishReason::kStop);
  say(2, -1, FinishReason::kCancelled);
  CHECK(counts() == std::pair<std::int64_t, std::int64_t>(0, 0));
}

TEST_CASE("answers of a call that was not taken whole count nowhere") {
  using lmd::engine::FinishReason;
  AnswerMetrics metrics;
  const auto written = [&] {
    MetricFamilies out(MetricNames::kOwn, "m");
    metrics.write_counts(out);
    metrics.write_sizes(out);
    metrics.write_latencies(out);
    return out.text().text();
  };
  const auto live = [&](RunningCall& call) {
    const auto say = [&](int token, FinishReason finish, int n_reused) {
      metrics.on_event(call, {0, token, finish, {}, n_reused}, call.submitted());
      call.deliver({0, token, finish, {}, n_reused});
    };
    call.times(0).n_prompt = 30;
    say(1, FinishReason::kNone, 15);
    say(2, FinishReason::kNone, 15);
    say(3, FinishReason::kStop, 15);
  };
  const std::string nothing = written();
  RunningCall refused(nullptr, 2);
  live(refused);
  CHECK(written() == nothing);
  RunningCall taken(nullptr, 1);
  live(taken);
  CHECK(written() == nothing);  // it is not known yet
  metrics.on_submitted(taken);
  const std::string text = written();
  const auto has = [&](const std::string& line) { return text.find(line + '\n') != text.npos; };
  CHECK(has("lmd_requests_finished_total{reason=\"stop\"} 1"));
  for (const char* name :
       {"time_to_first_token", "e2e_request_latency", "request_queue", "request_prefill",
        "request_decode", "request_inference", "time_per_output_token"})
    CHECK(has("lmd_" + std::string(name) + "_seconds_count 1"));
  CHECK(has("lmd_inter_token_latency_seconds_count 2"));
  CHECK(has("lmd_request_prompt_tokens_sum 30"));
  CHECK(has("lmd_request_generation_tokens_sum 3"));
  CHECK(has("lmd_request_cached_tokens_sum 15"));
  CHECK(has("lmd_request_cached_share_sum 0.5"));
}

TEST_CASE("what waited in vain, failed or was left is no answer that ended well") {
  using lmd::engine::FinishReason;
  AnswerMetrics metrics;
  RunningCall call(nullptr, 5);
  metrics.on_submitted(call);
  const auto end = [&](int answer, FinishReason finish) {
    metrics.on_event(call, {answer, -1, finish, {}, 0}, lmd::engine::kNotStarted);
  };
  end(0, FinishReason::kDeadline);
  end(1, FinishReason::kError);
  end(2, FinishReason::kCancelled);
  call.times(3).is_whole = true;  // by a stop string
  end(3, FinishReason::kCancelled);
  end(4, FinishReason::kLength);
  MetricFamilies out(MetricNames::kLmdeploy, "m");
  metrics.write_counts(out);
  metrics.write_latencies(out);
  const auto has = [&](const std::string& line) {
    return out.text().text().find(line + '\n') != std::string::npos;
  };
  const std::string labels = "{model_name=\"m\",engine=\"0\"}";
  CHECK(has("lmdeploy:num_requests_succeeded" + labels + " 2"));
  CHECK(has("lmdeploy:num_requests_failed" + labels + " 3"));
  CHECK(has("lmdeploy:e2e_request_latency_seconds_count" + labels + " 2"));
}

TEST_CASE("health follows phase and silence") {
  const HealthLimits limits{milliseconds(10), milliseconds(20), milliseconds(0)};
  struct Row {
    Health health;
    int ready;
    int live;
  };
  const Row rows[] = {
      {{Phase::kLoading, milliseconds(0), false}, 503, 200},
      {{Phase::kLoading, milliseconds(99), false}, 503, 200},
      {{Phase::kServing, milliseconds(10), false}, 200, 200},
      {{Phase::kServing, milliseconds(11), false}, 503, 200},
      {{Phase::kServing, milliseconds(21), false}, 503, 503},
      {{Phase::kDraining, milliseconds(0), false}, 404, 200},
      {{Phase::kDraining, milliseconds(11), false}, 404, 200},
      {{Phase::kServing, milliseconds(0), true}, 503, 503},
      {{Phase::kDraining, milliseconds(0), true}, 503, 503},
  };
  for (const Row& row : rows) {
    CHECK(ready_reply(row.health, limits).status == row.ready);
    CHECK(live_reply(row.health, limits).status == row.live);
  }
}

TEST_CASE("a log line is one line, whatever it says") {
  const std::vector<LogField> fields = {
      {"path", "/a b\n\"\x1b[31m"}, {"plain", "x-1/2.3"}, {"n", 3}};
  CHECK(detail::text_line("T", "info", "two\nlines", fields) ==
        "T info two\\nlines path=\"/a b\\n\\\"\\u001b[31m\" plain=x-1/2.3 n=3\n");
  CHECK(detail::json_line("T", "warn", "m", fields) ==
        "{\"time\":\"T\",\"level\":\"warn\",\"message\":\"m\",\"path\":\"/a b\\n\\\"\\u001b[31m\","
        "\"plain\":\"x-1/2.3\",\"n\":3}\n");
  CHECK(detail::utc_text(std::chrono::system_clock::time_point(milliseconds(1'764'307'324'007))) ==
        "2025-11-28T05:22:04.007Z");
}

TEST_CASE("a log writes what its level takes, in order, before it ends") {
  int ends[2];
  REQUIRE(::pipe(ends) == 0);
  {
    ServerLog log(ends[1], true);
    log.set_level(lmd::LogLevel::kWarn);
    log.write(lmd::LogLevel::kInfo, "left out");
    for (int i = 0; i < 3; ++i)
      log.write(lmd::LogLevel::kWarn, "kept", {{"i", i}});
  }
  ::close(ends[1]);
  char bytes[1000];
  const auto n = ::read(ends[0], bytes, sizeof bytes);
  ::close(ends[0]);
  const std::string text(bytes, static_cast<std::size_t>(n > 0 ? n : 0));
  CHECK(std::count(text.begin(), text.end(), '\n') == 3);
  CHECK(text.find("left out") == std::string::npos);
  CHECK(text.find("\"i\":0") < text.find("\"i\":2"));
}

TEST_CASE("a log whose reader is stuck drops lines and says so, in its own form") {
  int ends[2];
  REQUIRE(::pipe(ends) == 0);
  std::string text;
  {
    ServerLog log(ends[1], true);
    const std::string line(100'000, 'x');
    for (int i = 0; i < 200; ++i)
      log.write(lmd::LogLevel::kError, line);
    std::thread reader([&] {
      char bytes[65536];
      for (ssize_t n = 0; text.find("dropped") == std::string::npos &&
                          (n = ::read(ends[0], bytes, sizeof bytes)) > 0;)
        text.append(bytes, static_cast<std::size_t>(n));
    });
    reader.join();
  }
  ::close(ends[0]);
  ::close(ends[1]);
  CHECK(text.find("\"lines\":") != std::string::npos);
}
