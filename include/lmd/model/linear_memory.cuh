/// \file  Device memory that a model's linear layers work in, one after another.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/core/device_buffer.cuh>
#include <lmd/core/launch.cuh>
#include <lmd/core/named_bytes.hpp>
#include <lmd/kernels/linear/dense.cuh>
#include <lmd/kernels/linear/panel.cuh>
#include <lmd/kernels/linear/warpgroup.cuh>
#include <lmd/kernels/linear/workspace.hpp>
#include <lmd/model/config.hpp>

#include <algorithm>
#include <vector>

namespace lmd::model {

/// What LinearWorkspace points into, as large as the largest layer of a decoder needs it.
class LinearMemory {
 public:
  /// For steps of up to `rows` tokens. `ctx` knows its multiprocessors.
  /// \throws what DenseGemm \throws; Error(kCapacity).
  LinearMemory(const ModelConfig& config, int rows, Cuda ctx)
      : parts_(kernels::tile_part_elements(ctx.multiprocessors), ctx.stream),
        counters_(n_counters(config), ctx.stream),
        scratch_(scratch_bytes(config, rows), ctx.stream),
        dense_memory_(kDenseBytes, ctx.stream),
        dense_(dense_memory_.data(), kDenseBytes) {
    counters_.fill_bytes(0);
  }

  [[nodiscard]] kernels::LinearWorkspace workspace() {
    return {.parts = parts_.data(),
            .counters = counters_.data(),
            .scratch = scratch_.data(),
            .scratch_bytes = scratch_.size(),
            .dense = &dense_};
  }

  /// What the constructor takes.
  [[nodiscard]] static std::vector<NamedBytes> bytes_of(const ModelConfig& config,
                                                        int rows,
                                                        int multiprocessors) {
    return {
        {"split layers", 4 * (kernels::tile_part_elements(multiprocessors) + n_counters(config))},
        {"decoded weights", scratch_bytes(config, rows)},
        {"cuBLASLt", kDenseBytes}};
  }

 private:
  /// What cuBLASLt's own advice for sm_90 is.
  static constexpr std::int64_t kDenseBytes = std::int64_t{32} << 20;

  [[nodiscard]] static std::int64_t n_counters(const ModelConfig& c) {
    return kernels::tile_counters(std::max({c.vocab_size, 2 * c.intermediate_size, c.qkv_size()}));
  }
  [[nodiscard]] static std::int64_t scratch_bytes(const ModelConfig& c, int rows) {
    const int widest = std::max({c.hidden_size, c.q_size(), c.intermediate_size});
    return std::max(
        {kernels::warpgroup_scratch_bytes(widest),
         kernels::panel_scratch_bytes(std::min(rows, kernels::kPanelLinearTokens), widest),
         kernels::linear_scratch_bytes(rows, c.qkv_size(), c.hidden_size),
         kernels::linear_scratch_bytes(rows, c.hidden_size, c.q_size()),
         kernels::linear_scratch_bytes(rows, 2 * c.intermediate_size, c.hidden_size),
         kernels::linear_scratch_bytes(rows, c.hidden_size, c.intermediate_size)});
  }

  DeviceBuffer<float> parts_;
  DeviceBuffer<int> counters_;
  DeviceBuffer<std::uint8_t> scratch_;
  DeviceBuffer<std::uint8_t> dense_memory_;
  kernels::DenseGemm dense_;
};

}  // namespace lmd::model
