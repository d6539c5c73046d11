/// \file  The shape of a decoder and everything in which models differ, as plain values.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/core/error.hpp>

#include <cstdint>
#include <string>
#include <vector>

namespace lmd::model {

/// Rotary embedding: base' and how it grows with the prompt's length (source: NTK-aware scaling as
/// InternLM2's and LMDeploy's files define it).
struct RopeConfig {
  double base = 10000.0;        ///< rope_theta
  double dynamic_factor = 0.0;  ///< > 1: dynamic NTK beyond max_position; 0: none
  double linear_factor = 1.0;   ///< positions are divided by it
};

/// Read and validated once; afterwards every member is trusted. Sizes are counts of elements.
struct ModelConfig {
  std::string architecture;  ///< as config.json names it, e.g. "InternLM2ForCausalLM"
  int hidden_size = 0;
  int intermediate_size = 0;
  int n_layers = 0;
  int n_heads = 0;
  int n_kv_heads = 0;  ///< divides n_heads
  int head_dim = 0;
  int vocab_size = 0;
  int max_position = 0;  ///< tokens the model was trained for
  float rms_eps = 0.0f;
  RopeConfig rope;
  bool has_qkv_bias = false;
  bool has_tied_head = false;  ///< the head reuses the embedding
  int bos_id = -1;             ///< -1: none
  std::vector<int> eos_ids;    ///< any of them ends an answer

  [[nodiscard]] int q_size() const { return n_heads * head_dim; }
  [[nodiscard]] int kv_size() const { return n_kv_heads * head_dim; }
  /// Columns of one row of fused query, key and value.
  [[nodiscard]] int qkv_size() const { return q_size() + 2 * kv_size(); }
};

}  // namespace lmd::model
