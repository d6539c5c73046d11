/// \file  The tensors of a decoder by their shapes: what they cost in memory, before they are read.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/core/type_list.hpp>
#include <lmd/quant/weight_format.hpp>

#include <cstdint>
#include <vector>

namespace lmd::model {

/// What a format costs in memory, by its place in quant::WeightFormats.
struct WeightFormatFacts {
  const char* name = "";
  int bits = 0;         ///< of one code
  int group_size = 0;   ///< 0: no parameters
  int param_bytes = 0;  ///< of one group

  [[nodiscard]] std::int64_t code_bytes(int k) const { return std::int64_t{k} * bits / 8; }
  [[nodiscard]] std::int64_t params_bytes(int k) const {
    return group_size == 0 ? 0 : std::int64_t{k} / group_size * param_bytes;
  }
};

/// \pre  0 <= format < the number of formats.
[[nodiscard]] inline WeightFormatFacts weight_format_facts(int format) {
  WeightFormatFacts facts;
  int i = 0;
  for_each_type(quant::WeightFormats{}, [&](auto t) {
    using W = typename decltype(t)::type;
    if (i++ != format) return;
    const int param_bytes = W::kGroupSize == 0 ? 0 : static_cast<int>(sizeof(typename W::Params));
    facts = {W::kName, W::kBits, W::kGroupSize, param_bytes};
  });
  return facts;
}

/// A Matrix to be.
struct MatrixShape {
  int format = -1;  ///< place in quant::WeightFormats
  int n = 0;        ///< output features
  int k = 0;        ///< input features
  bool has_bias = false;
};

/// Bytes of it in host memory.
[[nodiscard]] inline std::int64_t held_bytes(const MatrixShape& m) {
  const WeightFormatFacts facts = weight_format_facts(m.format);
  const std::int64_t bias = m.has_bias ? sizeof(float) : 0;
  return m.n * (facts.code_bytes(m.k) + facts.params_bytes(m.k) + bias);
}

/// DecoderWeights to be.
struct WeightShapes {
  std::vector<MatrixShape> matrices;
  std::int64_t norm_elements = 0;
  bool has_split_gate = false;  ///< of some layer gate and up are two matrices
};

/// Bytes of the matrices in host memory.
[[nodiscard]] inline std::int64_t matrix_bytes(const WeightShapes& shapes) {
  std::int64_t bytes = 0;
  for (const MatrixShape& m : shapes.matrices)
    bytes += held_bytes(m);
  return bytes;
}

/// Bytes of everything in host memory.
[[nodiscard]] inline std::int64_t held_bytes(const WeightShapes& shapes) {
  return matrix_bytes(shapes) + shapes.norm_elements * static_cast<std::int64_t>(sizeof(float));
}

}  // namespace lmd::model
