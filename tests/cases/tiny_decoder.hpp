/// \file  A decoder with random float weights, small enough for thousands of steps a second.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/core/thread_pool.hpp>
#include <lmd/engine/make_ops.hpp>
#include <lmd/kernels/attention/step_cpu_extern.hpp>
#include <lmd/kernels/linear/linear_cpu_extern.hpp>
#include <lmd/model/decoder.hpp>
#include <lmd/model/weight_shapes.hpp>

#include <cmath>
#include <cstring>
#include <random>

namespace lmd::cases {

inline model::ModelConfig tiny_config() {
  model::ModelConfig c;
  c.architecture = "LlamaForCausalLM";
  c.hidden_size = 64;
  c.intermediate_size = 96;
  c.n_layers = 2;
  c.n_heads = 3;
  c.n_kv_heads = 1;
  c.head_dim = 64;
  c.vocab_size = 97;
  c.max_position = 2048;
  c.rms_eps = 1e-5f;
  c.rope.base = 10000.0;
  return c;
}

/// Values with the deviation 1.5 / sqrt(k): larger than usual, so that greedy answers vary.
inline model::Matrix random_matrix(int n, int k, std::mt19937& random) {
  std::normal_distribution<float> normal(0.0f, 1.5f / std::sqrt(static_cast<float>(k)));
  model::Matrix m;
  m.format = model::format_index<quant::WeightFloat>();
  m.n = n;
  m.k = k;
  m.codes = Buffer<std::uint8_t>(std::int64_t{4} * n * k);
  for (std::int64_t i = 0; i < std::int64_t{n} * k; ++i) {
    const float x = normal(random);
    std::memcpy(m.codes.data() + 4 * i, &x, 4);
  }
  return m;
}

inline model::DecoderWeights tiny_weights(const model::ModelConfig& c, unsigned seed) {
  std::mt19937 random(seed);
  const auto ones = [&c] {
    Buffer<float> norm(c.hidden_size);
    for (float& x : norm)
      x = 1.0f;
    return norm;
  };
  model::DecoderWeights w;
  w.embedding = random_matrix(c.vocab_size, c.hidden_size, random);
  for (int l = 0; l < c.n_layers; ++l) {
    model::LayerWeights layer;
    layer.attention_norm = ones();
    layer.qkv.push_back(random_matrix(c.qkv_size(), c.hidden_size, random));
    layer.attention_out = random_matrix(c.hidden_size, c.q_size(), random);
    layer.mlp_norm = ones();
    layer.gate_up.push_back(random_matrix(2 * c.intermediate_size, c.hidden_size, random));
    layer.down = random_matrix(c.hidden_size, c.intermediate_size, random);
    w.layers.push_back(std::move(layer));
  }
  w.final_norm = ones();
  w.head = random_matrix(c.vocab_size, c.hidden_size, random);
  return w;
}

inline model::WeightShapes shapes_of(const model::DecoderWeights& w) {
  model::WeightShapes shapes;
  const auto add = [&](const model::Matrix& m) {
    if (m.n > 0) shapes.matrices.push_back({m.format, m.n, m.k, m.bias.size() > 0});
  };
  add(w.embedding);
  shapes.norm_elements = w.final_norm.size();
  for (const model::LayerWeights& layer : w.layers) {
    shapes.norm_elements += layer.attention_norm.size() + layer.mlp_norm.size();
    for (const auto* parts : {&layer.qkv, &layer.gate_up}) {
      for (const model::Matrix& m : *parts)
        add(m);
    }
    add(layer.attention_out);
    add(layer.down);
    shapes.has_split_gate = shapes.has_split_gate || layer.gate_up.size() > 1;
  }
  add(w.head);
  return shapes;
}

inline model::Decoder tiny_decoder(const model::ModelConfig& c,
                                   int quant_policy,
                                   int max_rows,
                                   ThreadPool* pool = nullptr,
                                   unsigned seed = 1) {
  return {c, tiny_weights(c, seed), engine::make_cpu_ops(quant_policy, c.head_dim, best_cpu_isa()),
          Cpu{pool}, max_rows};
}

}  // namespace lmd::cases
