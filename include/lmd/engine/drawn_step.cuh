/// \file  A step that is under way on the device, and where what it draws comes to.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/core/pinned_buffer.cuh>
#include <lmd/core/stream.cuh>
#include <lmd/engine/executor.hpp>

#include <algorithm>
#include <span>
#include <utility>
#include <vector>

namespace lmd::engine {

/// What errors say of a step.
struct StepName {
  const char* kind = "";
  std::size_t sequences = 0;
  std::size_t rows = 0;
  StepName() = default;
  StepName(const char* what, std::span<const StepItem> items)
      : kind(what), sequences(items.size()) {
    for (const StepItem& item : items)
      rows += item.ids.size();
  }
};

/// A step under way: whose draws it has, and where they come.
struct DrawnStep {
  explicit DrawnStep(int n) : ids(n), logprobs(n) {}
  /// Log probabilities come only where a draw asks for them.
  void take(const int* from_ids, const float* from_logprobs, cudaStream_t stream) {
    const auto fetch = [&](void* to, const void* from) {
      const std::size_t bytes = draws.size() * sizeof(int);
      LMD_CUDA_TRY(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToHost, stream));
    };
    if (!draws.empty()) fetch(ids.data(), from_ids);
    if (std::ranges::any_of(draws, [](const auto& d) { return d.second->n_logprobs >= 0; }))
      fetch(logprobs.data(), from_logprobs);
    done.record(stream);
  }

  StepName name;
  std::vector<std::pair<int, const DrawRequest*>> draws;  // with their slots
  PinnedBuffer<int> ids;
  PinnedBuffer<float> logprobs;
  Event done;
};

}  // namespace lmd::engine
