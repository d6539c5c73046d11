/// \file  What the server counts, under its own names and those of other servers.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/core/config.hpp>
#include <lmd/serve/answer_metrics.hpp>
#include <lmd/serve/engine_thread.hpp>
#include <lmd/serve/metric_families.hpp>

#include <map>
#include <string>
#include <string_view>
#include <utility>

namespace lmd::serve {

/// What is true at the moment of asking.
struct ServerGauges {
  EngineState engine;
  Histogram step_tokens{kStepBounds};
  double engine_silence_s = 0.0;
  int connections = 0;
  int preparing = 0;  ///< requests that workers have, or will take, and the engine has not
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

  [[nodiscard]] AnswerMetrics& answers() { return answers_; }

  /// The page of /metrics.
  [[nodiscard]] std::string text(const ServerGauges& now) const {
    MetricFamilies out(names_, model_);
    answers_.write_counts(out);
    write_tokens(out, now);
    write_engine(out.text(), now);
    answers_.write_sizes(out);
    answers_.write_latencies(out);
    write_server(out, now);
    return out.text().text();
  }

 private:
  static double count(std::int64_t n) { return static_cast<double>(n); }

  static void write_tokens(MetricFamilies& out, const ServerGauges& now) {
    const engine::EngineStats& stats = now.engine.stats;
    out.number(
        {"lmd_prompt_tokens_total", "vllm:prompt_tokens_total", "lmdeploy:prompt_tokens_total"},
        "counter", "Tokens of prompts that were read.", count(stats.prompt_tokens));
    out.number({"lmd_generation_tokens_total", "vllm:generation_tokens_total",
                "lmdeploy:generation_tokens_total"},
               "counter", "Tokens that were drawn.", count(stats.generated_tokens));
    out.number({"lmd_prefix_cache_queries_total", "vllm:prefix_cache_queries_total"}, "counter",
               "Tokens of prompts that were looked for in the prefix cache.",
               count(stats.prompt_tokens));
    out.number({"lmd_prefix_cache_hits_total", "vllm:prefix_cache_hits_total",
                "lmdeploy:cached_tokens_total"},
               "counter", "Tokens of prompts that were found there.", count(stats.reused_tokens));
    out.number(
        {.lmdeploy = "lmdeploy:prefix_cache_hit_rate"}, "gauge",
        "Share of the prompts' tokens that were found there.",
        stats.prompt_tokens > 0 ? count(stats.reused_tokens) / count(stats.prompt_tokens) : 0.0);
    out.number({"lmd_preemptions_total", "vllm:num_preemptions_total"}, "counter",
               "Times that a sequence gave its memory to older ones.", count(stats.preemptions));
    const int used = stats.pages - stats.free_pages;
    out.number(
        {"lmd_kv_cache_usage_ratio", "vllm:kv_cache_usage_perc", "lmdeploy:gpu_cache_usage_perc"},
        "gauge", "Share of the cache's pages that sequences use.",
        stats.pages > 0 ? static_cast<double>(used) / stats.pages : 0.0);
    out.histogram(
        {"lmd_step_tokens", "vllm:iteration_tokens_total", "lmdeploy:iteration_tokens_total"},
        "Tokens of prompts and answers that a step of the engine took in.", now.step_tokens);
  }

  static void write_engine(MetricsText& out, const ServerGauges& now) {
    const engine::EngineStats& stats = now.engine.stats;
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
  }

  void write_server(MetricFamilies& families, const ServerGauges& now) const {
    families.number({"lmd_requests_preparing", nullptr, "lmdeploy:num_api_requests_waiting"},
                    "gauge", "Requests that are read and not in the engine yet.", now.preparing);
    MetricsText& out = families.text();
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
  AnswerMetrics answers_;
  std::map<std::pair<std::string, int>, std::int64_t> responses_;
  Histogram response_seconds_;
  std::int64_t clients_gone_ = 0;
  std::int64_t rejected_ = 0;
};

}  // namespace lmd::serve
