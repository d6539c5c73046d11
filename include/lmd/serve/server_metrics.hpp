/// \file  What the server counts, under its own names and those of other servers.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/core/config.hpp>
#include <lmd/serve/engine_thread.hpp>
#include <lmd/serve/metrics.hpp>

#include <map>
#include <string>
#include <string_view>
#include <utility>

namespace lmd::serve {

/// Whose names stand beside lmd's own: --metrics-compat.
enum class MetricNames { kOwn, kVllm, kLmdeploy };

/// What is true at the moment of asking.
struct ServerGauges {
  EngineState engine;
  double engine_silence_s = 0.0;
  int connections = 0;
  bool is_ready = false;
};

/// Used by the I/O thread alone.
class ServerMetrics {
 public:
  explicit ServerMetrics(std::string model, MetricNames names = MetricNames::kOwn)
      : model_(std::move(model)), names_(names) {}

  void set_model(std::string model) { model_ = std::move(model); }

  void on_response(std::string_view route, int status, double seconds) {
    const auto at = responses_.find(std::pair(std::string(route), status));
    if (at != responses_.end())
      ++at->second;
    else
      responses_.emplace(std::pair(std::string(route), status), 1);
    response_seconds_.observe(seconds);
    if (status == 429) ++rejected_;
  }
  void on_turned_away() { ++rejected_; }
  void on_client_gone() { ++clients_gone_; }

  /// A call that the engine has taken whole. It may have said something of its answers already.
  void on_submitted(RunningCall& running) {
    running.set_counted();
    for (int answer = 0; answer < running.n_answers(); ++answer) {
      if (running.has_ended(answer)) continue;
      running.times(answer).n_tokens > 0 ? ++running_ : ++waiting_;
    }
  }

  /// An event of the engine, before its call gets it. Of a call that was not taken whole, the part that was
  /// ends too, without ever having been counted as waiting.
  void on_event(RunningCall& running, const AnswerEvent& event, Clock::time_point started) {
    const Clock::time_point now = Clock::now();
    AnswerTimes& times = running.times(event.answer);
    const auto since = [now](Clock::time_point then) {
      return std::chrono::duration<double>(now - then).count();
    };
    if (started != engine::kNotStarted && times.started == engine::kNotStarted) {
      times.started = started;
      queue_.observe(std::chrono::duration<double>(started - running.submitted()).count());
    }
    if (event.token >= 0) {
      if (++times.n_tokens == 1) {
        if (started != engine::kNotStarted) prefill_.observe(since(started));
        times.first = now;
        first_token_.observe(since(running.submitted()));
        if (running.is_counted()) {
          --waiting_;
          ++running_;
        }
      } else {
        between_tokens_.observe(since(times.last));
      }
      times.last = now;
    }
    if (event.finish == engine::FinishReason::kNone) return;
    if (running.is_counted()) times.n_tokens > 0 ? --running_ : --waiting_;
    if (times.n_tokens > 0) decode_.observe(since(times.first));
    ++finished_[engine::to_string(event.finish)];
    if (event.finish != engine::FinishReason::kCancelled)
      end_to_end_.observe(since(running.submitted()));
  }

  [[nodiscard]] std::int64_t running() const { return running_; }
  [[nodiscard]] std::int64_t waiting() const { return waiting_; }

  /// The page of /metrics.
  [[nodiscard]] std::string text(const ServerGauges& now) const {
    MetricsText out;
    write_requests(out, now);
    write_latencies(out);
    write_server(out, now);
    return out.text();
  }

 private:
  /// A family's name here, at vLLM and at LMDeploy; null: they have none.
  struct Names {
    const char* own;
    const char* vllm;
    const char* lmdeploy;
  };

  /// Calls `samples(labels)` under each name that is wanted.
  template <class Samples>
  void family(MetricsText& out,
              const Names& names,
              const char* type,
              const char* help,
              const Samples& samples) const {
    out.family(names.own, type, help);
    samples(MetricLabels{});
    const char* const other = names_ == MetricNames::kVllm       ? names.vllm
                              : names_ == MetricNames::kLmdeploy ? names.lmdeploy
                                                                 : nullptr;
    if (other == nullptr) return;
    out.family(other, type, help);
    samples(MetricLabels{{"model_name", model_}, {"engine", "0"}});
  }

  void number(MetricsText& out,
              const Names& names,
              const char* type,
              const char* help,
              double value) const {
    family(out, names, type, help, [&](const MetricLabels& labels) { out.sample(value, labels); });
  }

  void write_requests(MetricsText& out, const ServerGauges& now) const {
    const engine::EngineStats& stats = now.engine.stats;
    const auto count = [](std::int64_t n) { return static_cast<double>(n); };
    number(out,
           {"lmd_requests_running", "vllm:num_requests_running", "lmdeploy:num_requests_running"},
           "gauge", "Answers that have begun.", count(running_));
    number(out,
           {"lmd_requests_waiting", "vllm:num_requests_waiting", "lmdeploy:num_requests_waiting"},
           "gauge", "Answers whose first token is not there yet.", count(waiting_));
    number(out,
           {"lmd_prompt_tokens_total", "vllm:prompt_tokens_total", "lmdeploy:prompt_tokens_total"},
           "counter", "Tokens of prompts that were read.", count(stats.prompt_tokens));
    number(out,
           {"lmd_generation_tokens_total", "vllm:generation_tokens_total",
            "lmdeploy:generation_tokens_total"},
           "counter", "Tokens that were drawn.", count(stats.generated_tokens));
    number(out, {"lmd_prefix_cache_queries_total", "vllm:prefix_cache_queries_total", nullptr},
           "counter", "Tokens of prompts that were looked for in the prefix cache.",
           count(stats.prompt_tokens));
    number(out,
           {"lmd_prefix_cache_hits_total", "vllm:prefix_cache_hits_total",
            "lmdeploy:cached_tokens_total"},
           "counter", "Tokens of prompts that were found there.", count(stats.reused_tokens));
    number(out, {"lmd_preemptions_total", "vllm:num_preemptions_total", nullptr}, "counter",
           "Times that a sequence gave its memory to older ones.", count(stats.preemptions));
    const int used = stats.pages - stats.free_pages;
    number(
        out,
        {"lmd_kv_cache_usage_ratio", "vllm:kv_cache_usage_perc", "lmdeploy:gpu_cache_usage_perc"},
        "gauge", "Share of the cache's pages that sequences use.",
        stats.pages > 0 ? static_cast<double>(used) / stats.pages : 0.0);
    out.family("lmd_sequences_running", "gauge", "Sequences that have a slot in the batch.");
    out.sample(stats.running);
    out.family("lmd_sequences_waiting", "gauge",
               "Requests in the queue, and sequences that gave way.");
    out.sample(stats.waiting + stats.preempted);
    out.family("lmd_waiting_prompt_tokens", "gauge", "Tokens of the prompts in the queue.");
    out.sample(count(stats.waiting_tokens));
    out.family("lmd_engine_steps_total", "counter", "Steps of the engine.");
    out.sample(count(stats.steps));
    out.family("lmd_engine_failed_steps_total", "counter", "Steps that ended with an error.");
    out.sample(count(now.engine.failed_steps));
    out.family("lmd_engine_silence_seconds", "gauge", "Time since the engine's last sign of life.");
    out.sample(now.engine_silence_s);
    write_finished(out);
  }

  void write_finished(MetricsText& out) const {
    out.family("lmd_requests_finished_total", "counter", "Answers that ended, by reason.");
    for (const auto& [reason, n] : finished_)
      out.sample(static_cast<double>(n), {{"reason", reason}});
    if (names_ == MetricNames::kOwn) return;
    out.family(names_ == MetricNames::kVllm ? "vllm:request_success_total"
                                            : "lmdeploy:request_success_total",
               "counter", "Answers that ended, by reason.");
    for (const auto& [reason, n] : finished_)
      out.sample(static_cast<double>(n),
                 {{"model_name", model_}, {"engine", "0"}, {"finished_reason", reason}});
  }

  void write_latencies(MetricsText& out) const {
    const auto seconds = [&](const Names& names, const char* help, const SecondsHistogram& h) {
      family(out, names, "histogram", help,
             [&](const MetricLabels& labels) { out.histogram(h, labels); });
    };
    seconds({"lmd_time_to_first_token_seconds", "vllm:time_to_first_token_seconds",
             "lmdeploy:time_to_first_token_seconds"},
            "From submission to the first token.", first_token_);
    seconds({"lmd_inter_token_latency_seconds", "vllm:inter_token_latency_seconds",
             "lmdeploy:iter_token_latency"},
            "From one token of an answer to its next.", between_tokens_);
    seconds({"lmd_e2e_request_latency_seconds", "vllm:e2e_request_latency_seconds",
             "lmdeploy:e2e_request_latency_seconds"},
            "From submission to the end of the answer.", end_to_end_);
    seconds({"lmd_request_queue_seconds", "vllm:request_queue_time_seconds",
             "lmdeploy:request_queue_time_seconds"},
            "From submission until the prompt was begun.", queue_);
    seconds({"lmd_request_prefill_seconds", "vllm:request_prefill_time_seconds",
             "lmdeploy:request_prefill_time_seconds"},
            "From the prompt's begin to the first token.", prefill_);
    seconds({"lmd_request_decode_seconds", "vllm:request_decode_time_seconds",
             "lmdeploy:request_decode_time_seconds"},
            "From the first token to the end of the answer.", decode_);
  }

  void write_server(MetricsText& out, const ServerGauges& now) const {
    out.family("lmd_http_responses_total", "counter", "Responses by route and status.");
    for (const auto& [key, n] : responses_) {
      const std::string status = std::to_string(key.second);
      out.sample(static_cast<double>(n), {{"route", key.first}, {"status", status}});
    }
    out.family("lmd_http_response_seconds", "histogram",
               "From the end of a head to that of the response.");
    out.histogram(response_seconds_);
    out.family("lmd_http_connections", "gauge", "Connections that are open.");
    out.sample(now.connections);
    out.family("lmd_http_rejected_total", "counter", "Requests refused as the server was full.");
    out.sample(static_cast<double>(rejected_));
    out.family("lmd_http_clients_gone_total", "counter",
               "Clients that left before their answer's end.");
    out.sample(static_cast<double>(clients_gone_));
    out.family("lmd_ready", "gauge", "1 while /health/ready answers 200.");
    out.sample(now.is_ready ? 1.0 : 0.0);
    out.family("lmd_build_info", "gauge", "Always 1; the version is a label.");
    out.sample(1.0, {{"version", kVersion}, {"model_name", model_}});
  }

  std::string model_;
  MetricNames names_;
  std::map<std::pair<std::string, int>, std::int64_t> responses_;
  std::map<std::string, std::int64_t> finished_;
  SecondsHistogram response_seconds_;
  SecondsHistogram first_token_;
  SecondsHistogram between_tokens_;
  SecondsHistogram end_to_end_;
  SecondsHistogram decode_;
  SecondsHistogram queue_;
  SecondsHistogram prefill_;
  std::int64_t running_ = 0;
  std::int64_t waiting_ = 0;
  std::int64_t clients_gone_ = 0;
  std::int64_t rejected_ = 0;
};

}  // namespace lmd::serve
