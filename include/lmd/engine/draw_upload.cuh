/// \file  What the device must know of a draw: parameters, biases, masks, and the tokens so far of
///        sequences with penalties, which stay there from step to step.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/core/device_buffer.cuh>
#include <lmd/engine/executor.hpp>
#include <lmd/engine/step_upload.cuh>
#include <lmd/engine/token_mirror.hpp>
#include <lmd/kernels/sample/sample.hpp>
#include <lmd/kernels/sample/token_runs.cuh>

#include <algorithm>
#include <limits>
#include <span>
#include <vector>

namespace lmd::engine {

/// Rows of kernels::SamplingRow for the items of a step, in this order: `begin`, `bytes_of` each, `row` of
/// each, `add_runs`, and when the upload is sent `queue`.
class DrawUpload {
 public:
  DrawUpload(int n_slots, int session_len, int vocab_size, cudaStream_t stream)
      : session_len_(session_len),
        vocab_size_(vocab_size),
        tokens_(token_elements(n_slots, session_len), stream),
        mirror_(n_slots) {}

  /// Elements of the tokens that are kept.
  [[nodiscard]] static std::int64_t token_elements(int n_slots, int session_len) {
    return std::int64_t{n_slots} * session_len;
  }

  /// Bytes of the upload for the tokens of one sequence at most.
  [[nodiscard]] static std::int64_t most_token_bytes(int session_len) {
    return StepUpload::bytes_of<int>(session_len) + StepUpload::bytes_of<kernels::TokenRun>(1);
  }

  /// Bytes of the upload for the mask of one sequence.
  [[nodiscard]] static std::int64_t mask_bytes(int vocab_size) {
    return StepUpload::bytes_of<std::uint32_t>(ceil_div(vocab_size, 32));
  }

  void begin() { runs_.clear(); }

  /// After a step that has failed: what it should have put into places is not there.
  void forget() { mirror_.forget(); }

  /// Bytes of the upload that `row` and `add_runs` will take for an item with a draw.
  [[nodiscard]] std::int64_t bytes_of(const StepItem& item) const {
    const DrawRequest& draw = *item.draw;
    std::int64_t bytes = StepUpload::bytes_of<kernels::LogitBias>(
        std::ssize(draw.params->logit_bias) + std::ssize(draw.banned));
    if (draw.params->has_penalties()) {
      const int known = mirror_.n_known(item.slot, draw.tokens);
      bytes += StepUpload::bytes_of<int>(std::ssize(draw.tokens) - known) +
               StepUpload::bytes_of<kernels::TokenRun>(1);
    }
    bytes += StepUpload::bytes_of<std::uint32_t>(std::ssize(draw.allowed));
    return bytes;
  }

  [[nodiscard]] kernels::SamplingRow row(const StepItem& item, StepUpload& upload) {
    const DrawRequest& draw = *item.draw;
    const kernels::SamplingParams& p = *draw.params;
    kernels::SamplingRow row{.temperature = p.temperature,
                             .top_p = p.top_p,
                             .min_p = p.min_p,
                             .repetition_penalty = p.repetition_penalty,
                             .presence_penalty = p.presence_penalty,
                             .frequency_penalty = p.frequency_penalty,
                             .top_k = p.top_k,
                             .n_prompt = draw.n_prompt,
                             .seed = p.seed};
    if (p.has_penalties()) row.tokens = keep_tokens(item, upload);
    if (!p.logit_bias.empty() || !draw.banned.empty()) {
      collect_biases(draw);
      row.n_bias = static_cast<int>(biases_.size());
      row.bias = upload.add_copy(std::span<const kernels::LogitBias>(biases_));
    }
    if (!draw.allowed.empty()) row.allowed = upload.add_copy(draw.allowed);
    return row;
  }

  void add_runs(StepUpload& upload) {
    device_runs_ = upload.add_copy(std::span<const kernels::TokenRun>(runs_));
  }

  /// Puts the tokens that are new into their places.
  [[nodiscard]] cudaError_t queue(Cuda ctx) const {
    return kernels::copy_token_runs(
        ctx, {.runs = device_runs_, .n_runs = static_cast<int>(runs_.size())});
  }

 private:
  /// Where all tokens of the sequence will be once `queue` has run.
  [[nodiscard]] const int* keep_tokens(const StepItem& item, StepUpload& upload) {
    const std::span<const int> tokens = item.draw->tokens;
    LMD_REQUIRE(std::ssize(tokens) <= session_len_, ErrorCode::kInternal,
                "a sequence of " + std::to_string(tokens.size()) + " tokens, room for " +
                    std::to_string(session_len_));
    int* const to = tokens_.data() + std::int64_t{item.slot} * session_len_;
    const int known = mirror_.update(item.slot, tokens);
    const std::span<const int> fresh = tokens.subspan(static_cast<std::size_t>(known));
    runs_.push_back({to + known, upload.add_copy(fresh), static_cast<int>(fresh.size())});
    return to;
  }

  /// Ids in it are distinct; what is banned stays banned.
  void collect_biases(const DrawRequest& draw) {
    biases_.clear();
    const auto add = [&](int id, float value) {
      if (id >= 0 && id < vocab_size_) biases_.push_back({id, value});
    };
    for (const int id : draw.banned)
      add(id, -std::numeric_limits<float>::infinity());
    for (const auto& [id, value] : draw.params->logit_bias)
      add(id, value);
    std::ranges::stable_sort(biases_, {}, &kernels::LogitBias::id);
    std::size_t n = 0;
    for (const kernels::LogitBias& bias : biases_) {
      if (n > 0 && biases_[n - 1].id == bias.id) {
        biases_[n - 1].value += bias.value;
      } else {
        biases_[n++] = bias;
      }
    }
    biases_.resize(n);
  }

  int session_len_;
  int vocab_size_;
  DeviceBuffer<int> tokens_;  // [slots, session_len]
  TokenMirror mirror_;        // of tokens_
  std::vector<kernels::TokenRun> runs_;
  const kernels::TokenRun* device_runs_ = nullptr;
  std::vector<kernels::LogitBias> biases_;
};

}  // namespace lmd::engine
