/// \file  The tensors of a decoder in host memory, as a checkpoint holds them.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/core/buffer.hpp>
#include <lmd/core/type_list.hpp>
#include <lmd/quant/weight_format.hpp>

#include <string>
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

}  // namespace lmd::model
