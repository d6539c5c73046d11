/// \file  Puts a checkpoint's weights into the order that the Host and Cpu operations read.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/core/task_runner.hpp>
#include <lmd/model/weights.hpp>
#include <lmd/quant/weight_layout.hpp>

namespace lmd::engine {

/// PlainOrder -> PairedOrder, in place. Only 4-bit codes move.
inline void arrange_for_cpu(model::Matrix& m, TaskRunner* pool) {
  bool is_4_bit = false;
  int i = 0;
  for_each_type(quant::WeightFormats{}, [&](auto t) {
    if (i++ == m.format) is_4_bit = decltype(t)::type::kBits == 4;
  });
  if (!is_4_bit) return;
  LMD_REQUIRE(m.k % 32 == 0, ErrorCode::kConfig,
              "4-bit weights with " + std::to_string(m.k) + " inputs; a multiple of 32 is needed");
  const std::int64_t row_bytes = std::int64_t{m.k} / 2;
  parallel_ranges(pool, m.n, 1, [&](std::int64_t begin, std::int64_t end) {
    quant::pair_nibbles(m.codes.data() + begin * row_bytes, (end - begin) * m.k);
  });
}

inline void arrange_for_cpu(model::DecoderWeights& weights, TaskRunner* pool) {
  arrange_for_cpu(weights.embedding, pool);
  arrange_for_cpu(weights.head, pool);
  for (model::LayerWeights& layer : weights.layers) {
    for (model::Matrix& m : layer.qkv)
      arrange_for_cpu(m, pool);
    for (model::Matrix& m : layer.gate_up)
      arrange_for_cpu(m, pool);
    arrange_for_cpu(layer.attention_out, pool);
    arrange_for_cpu(layer.down, pool);
  }
}

}  // namespace lmd::engine
