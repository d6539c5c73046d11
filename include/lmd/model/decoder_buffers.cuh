/// \file  What a decoder allocates on the device beside its weights: the plan and the allocations are
///        made from the same numbers.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/cache/geometry.hpp>
#include <lmd/cache/tile.hpp>
#include <lmd/core/named_bytes.hpp>
#include <lmd/kernels/attention/decode_plan.cuh>
#include <lmd/model/config.hpp>
#include <lmd/model/ops.cuh>

#include <algorithm>
#include <vector>

namespace lmd::model {

/// Most of everything that a step may bring.
struct StepLimits {
  int rows = 0;
  int sequences = 0;

  /// Pages that prompts of so many rows may touch: their ends are not multiples of 64.
  [[nodiscard]] int prefill_pages() const {
    return rows / cache::kPageTokens + 2 * std::min(sequences, rows);
  }
};

/// Elements of a CudaDecoder's buffers.
struct DecoderElements {
  /// `has_split_gate` as WeightShapes has it.
  template <Activation T>
  DecoderElements(const ModelConfig& c,
                  StepLimits limits,
                  const CudaOps<T>& ops,
                  int multiprocessors,
                  bool has_split_gate)
      : x(std::int64_t{limits.rows} * c.hidden_size),
        last(std::int64_t{limits.sequences} * c.hidden_size),
        qkv(std::int64_t{limits.rows} * c.qkv_size()),
        attended(std::int64_t{limits.rows} * c.q_size()),
        gated(std::int64_t{limits.rows} * c.intermediate_size),
        gate_up(has_split_gate ? 2 * gated : 0),
        rotation(std::int64_t{limits.rows} * c.head_dim),
        page_scratch(
            2 * limits.prefill_pages() *
            cache::CacheGeometry{c.n_layers, c.n_kv_heads, c.head_dim, ops.unit_bytes}.open_tile()),
        partial(ops.decode_partial_elements(multiprocessors)),
        counters(kernels::decode_counters(limits.sequences * c.n_kv_heads)),
        plan(kernels::decode_plan_elements(multiprocessors, limits.sequences * c.n_kv_heads)) {}

  [[nodiscard]] std::vector<NamedBytes> bytes() const {
    return {{"residual stream", 2 * x},
            {"rows of logits", 2 * last},
            {"queries, keys and values", 2 * qkv},
            {"attention's output", 2 * attended},
            {"gated MLP", 2 * (gated + gate_up)},
            {"rotations", 4 * rotation},
            {"pages of prompts", 2 * page_scratch},
            {"split attention", 4 * (partial + counters + plan)}};
  }

  std::int64_t x;             ///< [rows, hidden] the residual stream
  std::int64_t last;          ///< [sequences, hidden] rows whose logits are wanted
  std::int64_t qkv;           ///< [rows, qkv_size]
  std::int64_t attended;      ///< [rows, q_size]
  std::int64_t gated;         ///< [rows, intermediate]
  std::int64_t gate_up;       ///< [rows, 2 * intermediate] where gate and up are two matrices
  std::int64_t rotation;      ///< [rows, head_dim] floats
  std::int64_t page_scratch;  ///< [pages, 2, kv_heads, 64 * head_dim] halves
  std::int64_t partial;       ///< floats of split decode attention
  std::int64_t counters;      ///< ints of the same
  std::int64_t plan;          ///< ints of the same
};

}  // namespace lmd::model
