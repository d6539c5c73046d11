/// \file  What the server counts of answers: how many, how long they took, how large they were.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/serve/metric_families.hpp>
#include <lmd/serve/running_call.hpp>

#include <chrono>
#include <cstdint>
#include <map>
#include <string>

namespace lmd::serve {

/// Of calls that the engine took whole: one that was refused for its second answer counts nowhere. Used by the I/O
/// thread alone.
class AnswerMetrics {
 public:
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
    if (started != engine::kNotStarted && times.started == engine::kNotStarted) {
      times.started = started;
      observe(running, queue_, started - running.submitted());
    }
    if (event.token >= 0) on_token(running, times, now);
    if (event.finish != engine::FinishReason::kNone) on_end(running, event, now);
  }

  [[nodiscard]] std::int64_t running() const { return running_; }
  [[nodiscard]] std::int64_t waiting() const { return waiting_; }

  void write_counts(MetricFamilies& out) const {
    const auto count = [](std::int64_t n) { return static_cast<double>(n); };
    out.number(
        {"lmd_requests_running", "vllm:num_requests_running", "lmdeploy:num_requests_running"},
        "gauge", "Answers that have begun.", count(running_));
    out.number(
        {"lmd_requests_waiting", "vllm:num_requests_waiting", "lmdeploy:num_requests_waiting"},
        "gauge", "Answers whose first token is not there yet.", count(waiting_));
    out.number({.lmdeploy = "lmdeploy:num_api_requests_routed"}, "gauge",
               "Answers that the engine has.", count(running_ + waiting_));
    std::int64_t n_succeeded = 0;
    std::int64_t n_failed = 0;
    for (const auto& [reason, n] : finished_)
      (is_success(reason) ? n_succeeded : n_failed) += n;
    out.number({.lmdeploy = "lmdeploy:num_requests_succeeded"}, "gauge",
               "Answers that ended with a stop or at their length.", count(n_succeeded));
    out.number({.lmdeploy = "lmdeploy:num_requests_failed"}, "gauge",
               "Answers that ended otherwise.", count(n_failed));
    write_finished(out);
  }

  void write_sizes(MetricFamilies& out) const {
    out.histogram({"lmd_request_prompt_tokens", "vllm:request_prompt_tokens",
                   "lmdeploy:request_prompt_tokens"},
                  "Tokens of the prompt, of answers that ended well.", prompt_tokens_);
    out.histogram({"lmd_request_generation_tokens", "vllm:request_generation_tokens",
                   "lmdeploy:request_generation_tokens"},
                  "Tokens that were drawn, of answers that ended well.", generation_tokens_);
    out.histogram({"lmd_request_cached_tokens", nullptr, "lmdeploy:request_cached_tokens"},
                  "Tokens of the prompt that were found in the prefix cache.", cached_tokens_);
    out.histogram({"lmd_request_cached_share", nullptr, "lmdeploy:request_cache_hit_ratio"},
                  "Share of the prompt that was found there.", cached_share_);
  }

  void write_latencies(MetricFamilies& out) const {
    out.histogram({"lmd_time_to_first_token_seconds", "vllm:time_to_first_token_seconds",
                   "lmdeploy:time_to_first_token_seconds"},
                  "From submission to the first token.", first_token_);
    out.histogram({"lmd_inter_token_latency_seconds", "vllm:inter_token_latency_seconds",
                   "lmdeploy:iter_token_latency"},
                  "From one token of an answer to its next.", between_tokens_);
    out.histogram(
        {"lmd_time_per_output_token_seconds", "vllm:request_time_per_output_token_seconds",
         "lmdeploy:time_per_output_token_seconds"},
        "Mean of an answer's tokens but the first.", per_token_);
    out.histogram({"lmd_e2e_request_latency_seconds", "vllm:e2e_request_latency_seconds",
                   "lmdeploy:e2e_request_latency_seconds"},
                  "From submission to the end, of answers that ended well.", end_to_end_);
    out.histogram({"lmd_request_queue_seconds", "vllm:request_queue_time_seconds",
                   "lmdeploy:request_queue_time_seconds"},
                  "From submission until the prompt was begun.", queue_);
    out.histogram({"lmd_request_prefill_seconds", "vllm:request_prefill_time_seconds",
                   "lmdeploy:request_prefill_time_seconds"},
                  "From the prompt's begin to the first token.", prefill_);
    out.histogram({"lmd_request_decode_seconds", "vllm:request_decode_time_seconds",
                   "lmdeploy:request_decode_time_seconds"},
                  "From the first token to the end of the answer.", decode_);
    out.histogram({"lmd_request_inference_seconds", "vllm:request_inference_time_seconds",
                   "lmdeploy:request_inference_time_seconds"},
                  "From the prompt's begin to the end, of answers that ended well.", inference_);
  }

 private:
  static void observe(RunningCall& running, Histogram& histogram, double value) {
    running.once_counted([&histogram, value] { histogram.observe(value); });
  }
  static void observe(RunningCall& running, Histogram& histogram, Clock::duration time) {
    observe(running, histogram, std::chrono::duration<double>(time).count());
  }

  [[nodiscard]] static bool is_success(const std::string& reason) {
    using engine::FinishReason;
    return reason == engine::to_string(FinishReason::kStop) ||
           reason == engine::to_string(FinishReason::kLength);
  }

  void on_token(RunningCall& running, AnswerTimes& times, Clock::time_point now) {
    if (++times.n_tokens > 1) {
      observe(running, between_tokens_, now - times.last);
    } else {
      times.first = now;
      if (times.started != engine::kNotStarted) observe(running, prefill_, now - times.started);
      observe(running, first_token_, now - running.submitted());
      if (running.is_counted()) {
        --waiting_;
        ++running_;
      }
    }
    times.last = now;
  }

  void on_end(RunningCall& running, const AnswerEvent& event, Clock::time_point now) {
    AnswerTimes& times = running.times(event.answer);
    if (running.is_counted()) times.n_tokens > 0 ? --running_ : --waiting_;
    if (times.n_tokens > 0) observe(running, decode_, now - times.first);
    const bool is_whole = event.finish == engine::FinishReason::kCancelled && times.is_whole;
    const std::string reason =
        engine::to_string(is_whole ? engine::FinishReason::kStop : event.finish);
    running.once_counted([this, reason] { ++finished_[reason]; });
    if (!is_success(reason)) return;
    observe(running, end_to_end_, now - running.submitted());
    if (times.started != engine::kNotStarted) observe(running, inference_, now - times.started);
    if (times.n_tokens > 1)
      observe(running, per_token_, (times.last - times.first) / (times.n_tokens - 1));
    observe(running, prompt_tokens_, static_cast<double>(times.n_prompt));
    observe(running, generation_tokens_, static_cast<double>(times.n_tokens));
    observe(running, cached_tokens_, static_cast<double>(event.n_reused));
    if (times.n_prompt > 0)
      observe(running, cached_share_, static_cast<double>(event.n_reused) / times.n_prompt);
  }

  void write_finished(MetricFamilies& out) const {
    const FamilyNames names{"lmd_requests_finished_total", "vllm:request_success_total",
                            "lmdeploy:request_success_total"};
    out.write(names, "counter", "Answers that ended, by reason.", [&](MetricLabels labels) {
      labels.emplace_back(labels.empty() ? "reason" : "finished_reason", "");
      for (const auto& [reason, n] : finished_) {
        labels.back().second = reason;
        out.text().sample(static_cast<double>(n), labels);
      }
    });
  }

  std::map<std::string, std::int64_t> finished_;
  Histogram first_token_;
  Histogram between_tokens_;
  Histogram per_token_;
  Histogram end_to_end_;
  Histogram decode_;
  Histogram queue_;
  Histogram prefill_;
  Histogram inference_;
  Histogram prompt_tokens_{kTokenBounds};
  Histogram generation_tokens_{kTokenBounds};
  Histogram cached_tokens_{kTokenBounds};
  Histogram cached_share_{kShareBounds};
  std::int64_t running_ = 0;
  std::int64_t waiting_ = 0;
};

}  // namespace lmd::serve
