/// \file  The tensors of a decoder in host memory, as a checkpoint holds them.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/core/buffer.hpp>
#include <lmd/core/type_list.hpp>
#include <lmd/quant/weight_format.hpp>

#include <algorithm>
#include <cstdint>
#include <vector>

namespace lmd::model {

/// Number of a weight format: its place in quant::WeightFormats.
template <quant::WeightFormat W>
[[nodiscard]] constexpr int format_index() {
  int index = -1;
  int i = 0;
  for_each_type(quant::WeightFormats{}, [&](auto t) {
    if (std::is_same_v<typename decltype(t)::type, W>) index = i;
    ++i;
  });
  return index;
}

/// One matrix [n out, k in] with its rows in PlainOrder (see quant::RowWeights).
struct Matrix {
  int format = -1;              ///< place in quant::WeightFormats
  int n = 0;                    ///< output features
  int k = 0;                    ///< input features
  Buffer<std::uint8_t> codes;   ///< [n, k * bits / 8] bytes
  Buffer<std::uint8_t> params;  ///< [n, k / group] of the format's Params; empty without groups
  Buffer<float> bias;           ///< [n] or empty
};

/// One decoder layer. Rows of qkv are [all queries; all keys; all values], rotate-half order;
/// rows of gate_up are [gate; up]. Each is one matrix where its parts share a format, else several
/// whose rows follow one another.
struct LayerWeights {
  Buffer<float> attention_norm;  ///< [hidden]
  std::vector<Matrix> qkv;       ///< [q_size + 2 kv_size, hidden] in all
  Matrix attention_out;          ///< [hidden, q_size]
  Buffer<float> mlp_norm;        ///< [hidden]
  std::vector<Matrix> gate_up;   ///< [2 * intermediate, hidden] in all
  Matrix down;                   ///< [hidden, intermediate]
};

struct DecoderWeights {
  Matrix embedding;  ///< [vocab, hidden]
  std::vector<LayerWeights> layers;
  Buffer<float> final_norm;  ///< [hidden]
  Matrix head;               ///< [vocab, hidden]; n = 0 when the embedding is reused
};

/// Bytes of codes, parameters and bias.
[[nodiscard]] inline std::int64_t held_bytes(const Matrix& m) {
  return static_cast<std::int64_t>(m.codes.size_bytes() + m.params.size_bytes() +
                                   m.bias.size_bytes());
}

/// Bytes of weights that a step of `rows` tokens reads: all of them once. An embedding that is not
/// the head as well is no more than a look-up: one row of it for each token.
[[nodiscard]] inline std::int64_t step_bytes(const DecoderWeights& w, int rows) {
  const bool is_tied = w.head.n == 0;
  const std::int64_t table = held_bytes(w.embedding);
  std::int64_t bytes =
      is_tied ? table : table / w.embedding.n * std::min(rows, w.embedding.n) + held_bytes(w.head);
  bytes += static_cast<std::int64_t>(w.final_norm.size_bytes());
  for (const LayerWeights& l : w.layers) {
    bytes += static_cast<std::int64_t>(l.attention_norm.size_bytes() + l.mlp_norm.size_bytes());
    bytes += held_bytes(l.attention_out) + held_bytes(l.down);
    for (const Matrix& m : l.qkv)
      bytes += held_bytes(m);
    for (const Matrix& m : l.gate_up)
      bytes += held_bytes(m);
  }
  return bytes;
}

}  // namespace lmd::model
