/// \file  Steps on the Host and Cpu backends: a decoder over host memory.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/engine/executor.hpp>
#include <lmd/engine/memory_plan.hpp>
#include <lmd/kernels/sample/sampler_cpu.hpp>
#include <lmd/model/decoder.hpp>

#include <algorithm>
#include <limits>
#include <numeric>
#include <vector>

namespace lmd::engine {

class CpuExecutor final : public Executor {
 public:
  /// `decoder` must have room for plan.max_rows rows.
  CpuExecutor(model::Decoder decoder, const MemoryPlan& plan)
      : decoder_(std::move(decoder)),
        pool_(plan.sealed_pages()),
        open_(plan.max_batch_size * decoder_.geometry().open_elements()),
        logits_(std::int64_t{plan.max_batch_size} * decoder_.config().vocab_size) {}

  [[nodiscard]] const model::ModelConfig& model() const override { return decoder_.config(); }
  [[nodiscard]] cache::CacheGeometry geometry() const override { return decoder_.geometry(); }
  [[nodiscard]] int max_rows() const override { return decoder_.max_rows(); }
  [[nodiscard]] std::int64_t step_weight_bytes(int rows) const override {
    return decoder_.step_weight_bytes(rows);
  }

  void on_progress(std::function<void()> report) override { decoder_.on_layer(std::move(report)); }

  void begin(std::span<const StepItem> items) override {
    clear();
    draws_.clear();
    for (const StepItem& item : items) {
      add(item);
      if (item.draw == nullptr) continue;
      logit_rows_.push_back(static_cast<int>(ids_.size()) - 1);
      draws_.push_back(item.draw);
    }
    forward(logits_.data());
  }

  void finish(std::span<Drawn> drawn) override {
    for (std::size_t row = 0; row < draws_.size(); ++row)
      draw(*draws_[row], static_cast<std::int64_t>(row), drawn[row]);
  }

  void logits(const StepItem& item, float* logits) override {
    clear();
    add(item);
    logit_rows_.resize(item.ids.size());
    std::iota(logit_rows_.begin(), logit_rows_.end(), 0);
    forward(logits);
  }

 private:
  void clear() {
    ids_.clear();
    positions_.clear();
    bases_.clear();
    sequences_.clear();
    logit_rows_.clear();
  }

  void add(const StepItem& item) {
    const int n = static_cast<int>(item.ids.size());
    sequences_.push_back({.first_row = static_cast<int>(ids_.size()),
                          .n = n,
                          .position = item.position,
                          .open = open_.data() + item.slot * decoder_.geometry().open_elements(),
                          .page_ids = item.page_ids.data()});
    ids_.insert(ids_.end(), item.ids.begin(), item.ids.end());
    for (int i = 0; i < n; ++i) {
      positions_.push_back(item.position + i);
      bases_.push_back(item.rope_base);
    }
  }

  void forward(float* logits) {
    decoder_.forward({ids_, positions_, bases_, sequences_, logit_rows_, pool_.data()}, logits);
  }

  void draw(const DrawRequest& request, std::int64_t row, Drawn& drawn) {
    const std::int64_t vocab = decoder_.config().vocab_size;
    const std::span<float> logits{logits_.data() + row * vocab, static_cast<std::size_t>(vocab)};
    for (const int id : request.banned) {
      if (id >= 0 && id < vocab) logits[id] = -std::numeric_limits<float>::infinity();
    }
    drawn.token = sampler_.sample(logits, *request.params,
                                  {.tokens = request.tokens,
                                   .n_prompt = request.n_prompt,
                                   .allowed = request.allowed,
                                   .n_logprobs = request.n_logprobs,
                                   .logprobs = &drawn.logprobs});
  }

  model::Decoder decoder_;
  Buffer<std::uint8_t> pool_;  // [n_pages, page_bytes]
  Buffer<Half> open_;          // [max_batch_size, open_elements]
  Buffer<float> logits_;       // [max_batch_size, vocab]
  kernels::CpuSampler sampler_;

  std::vector<int> ids_;
  std::vector<int> positions_;
  std::vector<double> bases_;
  std::vector<model::StepSequence> sequences_;
  std::vector<int> logit_rows_;
  std::vector<const DrawRequest*> draws_;  // of the step that was begun
};

}  // namespace lmd::engine
