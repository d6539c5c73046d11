/// \file  The engine: requests of token ids in, tokens out, many sequences at a time.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/engine/scheduler.hpp>
#include <lmd/kernels/sample/sampler_cpu.hpp>
#include <lmd/model/decoder.hpp>

#include <atomic>
#include <mutex>

namespace lmd::engine {

/// Counters since the start.
struct EngineStats {
  std::int64_t prompt_tokens = 0;  ///< of requests that were admitted
  std::int64_t reused_tokens = 0;  ///< of these, taken from the prefix tree
  std::int64_t generated_tokens = 0;
  std::int64_t steps = 0;
};

/// Continuous batching over one decoder. `submit` and `cancel` may be called from any thread;
/// `step` is called by the one thread that owns the engine.
class Engine {
 public:
  /// `decoder` must have room for plan.max_rows rows.
  Engine(model::Decoder decoder, const EngineConfig& config, const MemoryPlan& plan)
      : decoder_(std::move(decoder)),
        plan_(plan),
        scheduler_(decoder_.config(), plan, config),
        pool_(plan.sealed_pages()),
        open_(plan.max_batch_size * decoder_.geometry().open_elements()),
        logits_(std::int64_t{plan.max_batch_size} * decoder_.config().vocab_size) {}

  [[nodiscard]] const model::ModelConfig& model() const { return decoder_.config(); }
  [[nodiscard]] const MemoryPlan& plan() const { return plan_; }
  [[nodiscard]] const EngineStats& stats() const { return stats_; }
  [[nodiscard]] model::Decoder& decoder() { return decoder_; }

  /// Queues a request. An answer is cut at the session's length.
  ///
  /// Errors:  \throws Error(kConfig) for an empty prompt, an id outside the vocabulary or a bad
  ///          sampling value; Error(kCapacity) for a prompt that fills the session.
  RequestId submit(Request request, TokenSink sink) {
    check(request);
    auto s = std::make_unique<Sequence>();
    s->n_prompt = static_cast<int>(request.prompt.size());
    request.max_new_tokens = std::min(request.max_new_tokens, plan_.session_len - s->n_prompt);
    s->tokens = std::move(request.prompt);
    s->request = std::move(request);
    s->sink = std::move(sink);
    s->id = next_id_.fetch_add(1);
    const RequestId id = s->id;
    const std::lock_guard lock(inbox_mutex_);
    submitted_.push_back(std::move(s));
    return id;
  }

  /// Ends a request before its next token. Ids of ended requests are ignored.
  void cancel(RequestId id) {
    const std::lock_guard lock(inbox_mutex_);
    cancelled_.push_back(id);
  }

  /// One step for everything that runs; the sinks get their tokens. False when nothing was left.
  bool step() {
    read_inbox();
    end_cancelled();
    scheduler_.admit();
    if (scheduler_.running().empty()) return !scheduler_.is_idle();
    scheduler_.plan_step();
    forward();
    scheduler_.finish_step();
    sample();
    ++stats_.steps;
    return true;
  }

 private:
  void check(const Request& r) const {
    const int vocab = decoder_.config().vocab_size;
    LMD_REQUIRE(!r.prompt.empty(), ErrorCode::kConfig, "the prompt is empty");
    LMD_REQUIRE(std::ssize(r.prompt) < plan_.session_len, ErrorCode::kCapacity,
                "the prompt has " + std::to_string(r.prompt.size()) +
                    " tokens, it must be shorter than the session length of " +
                    std::to_string(plan_.session_len));
    for (const int id : r.prompt) {
      LMD_REQUIRE(id >= 0 && id < vocab, ErrorCode::kConfig,
                  "token id " + std::to_string(id) + " is outside the vocabulary of " +
                      std::to_string(vocab));
    }
    LMD_REQUIRE(r.max_new_tokens >= 1, ErrorCode::kConfig,
                "max_new_tokens " + std::to_string(r.max_new_tokens) + ": must be at least 1");
    kernels::validate(r.sampling);
  }

  void read_inbox() {
    const std::lock_guard lock(inbox_mutex_);
    for (auto& s : submitted_)
      scheduler_.enqueue(std::move(s));
    for (const RequestId id : cancelled_)
      scheduler_.cancel(id);
    submitted_.clear();
    cancelled_.clear();
  }

  void end_cancelled() {
    for (const auto& s : scheduler_.take_cancelled_waiting()) {
      s->sink({.id = s->id, .finish = FinishReason::kCancelled});
    }
    for (std::size_t i = scheduler_.running().size(); i-- > 0;) {
      if (scheduler_.running()[i]->is_cancelled) end(i, FinishReason::kCancelled);
    }
  }

  void forward() {
    ids_.clear();
    positions_.clear();
    bases_.clear();
    step_sequences_.clear();
    logit_rows_.clear();
    for (const auto& s : scheduler_.running()) {
      if (s->n_step == 0) continue;
      step_sequences_.push_back(
          {.first_row = static_cast<int>(ids_.size()),
           .n = s->n_step,
           .position = s->n_cached,
           .open = open_.data() + s->slot * decoder_.geometry().open_elements(),
           .page_ids = s->pages.data()});
      for (int i = 0; i < s->n_step; ++i) {
        ids_.push_back(s->tokens[s->n_cached + i]);
        positions_.push_back(s->n_cached + i);
        bases_.push_back(s->rope_base);
      }
      if (s->n_step == s->n_pending()) logit_rows_.push_back(static_cast<int>(ids_.size()) - 1);
    }
    decoder_.forward({ids_, positions_, bases_, step_sequences_, logit_rows_, pool_.data()},
                     logits_.data());
  }

  /// Draws a token for every sequence whose tokens are all in the cache now.
  void sample() {
    const std::int64_t vocab = decoder_.config().vocab_size;
    std::int64_t row = 0;
    ended_.clear();
    for (std::size_t i = 0; i < scheduler_.running().size(); ++i) {
      Sequence& s = *scheduler_.running()[i];
      if (s.n_step == 0 || s.n_pending() > 0) continue;
      const FinishReason finish =
          draw(s, {logits_.data() + row * vocab, static_cast<std::size_t>(vocab)});
      ++row;
      if (finish != FinishReason::kNone) ended_.push_back(i);
    }
    for (auto at = ended_.rbegin(); at != ended_.rend(); ++at)
      scheduler_.remove(*at);
  }

  FinishReason draw(Sequence& s, std::span<float> logits) {
    if (s.n_generated() == 0) {
      stats_.prompt_tokens += s.n_prompt;
      stats_.reused_tokens += s.n_reused;
    }
    if (s.n_generated() < s.request.min_new_tokens) {
      for (const int id : s.request.stop_ids) {
        if (id >= 0 && id < std::ssize(logits))
          logits[id] = -std::numeric_limits<float>::infinity();
      }
    }
    kernels::TokenLogprobs logprobs;
    const int token = sampler_.sample(logits, s.request.sampling,
                                      {.tokens = s.tokens,
                                       .n_prompt = s.n_prompt,
                                       .n_logprobs = s.request.n_logprobs,
                                       .logprobs = &logprobs});
    if (token < 0) {
      s.sink({.id = s.id, .finish = FinishReason::kError});
      return FinishReason::kError;
    }
    s.tokens.push_back(token);
    ++stats_.generated_tokens;
    FinishReason finish = FinishReason::kNone;
    if (std::ranges::find(s.request.stop_ids, token) != s.request.stop_ids.end()) {
      finish = FinishReason::kStop;
    } else if (s.n_generated() >= s.request.max_new_tokens) {
      finish = FinishReason::kLength;
    }
    s.sink({.id = s.id,
            .token = token,
            .finish = finish,
            .logprobs = s.request.n_logprobs >= 0 ? &logprobs : nullptr});
    return finish;
  }

  void end(std::size_t index, FinishReason reason) {
    const auto s = scheduler_.remove(index);
    s->sink({.id = s->id, .finish = reason});
  }

  model::Decoder decoder_;
  MemoryPlan plan_;
  Scheduler scheduler_;
  Buffer<std::uint8_t> pool_;  // [n_pages, page_bytes]
  Buffer<Half> open_;          // [max_batch_size, open_elements]
  Buffer<float> logits_;       // [max_batch_size, vocab]
  kernels::CpuSampler sampler_;
  EngineStats stats_;

  std::atomic<RequestId> next_id_{1};
  std::mutex inbox_mutex_;
  std::vector<std::unique_ptr<Sequence>> submitted_;
  std::vector<RequestId> cancelled_;

  std::vector<int> ids_;
  std::vector<int> positions_;
  std::vector<double> bases_;
  std::vector<model::StepSequence> step_sequences_;
  std::vector<int> logit_rows_;
  std::vector<std::size_t> ended_;
};

}  // namespace lmd::engine
