/// \file  Hugging Face folders of one layer whose every weight is known in advance.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/json/json.hpp>

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "test_files.hpp"

namespace lmd::test {

/// 4 heads and 2 KV heads of 2, hidden 32, intermediate 64, vocabulary 16, one layer.
struct TinyCheckpoint {
  struct Tensor {
    std::string dtype;
    std::vector<std::int64_t> shape;
    std::string data;
  };

  json::Json config = json::Json::parse(R"({"bias":false,"hidden_act":"silu","hidden_size":32,
    "intermediate_size":64,"max_position_embeddings":64,"num_attention_heads":4,"head_dim":2,
    "num_hidden_layers":1,"num_key_value_heads":2,"rms_norm_eps":1e-05,"rope_theta":10000,
    "tie_word_embeddings":false,"vocab_size":16,"bos_token_id":1,"eos_token_id":2})");
  std::map<std::string, Tensor> tensors;

  /// F32 tensor [n, k] (or [n] when k is 0) whose row r is full of `first + r`.
  void rows(const std::string& name, int n, int k, float first) {
    std::vector<float> values;
    for (int r = 0; r < n; ++r)
      values.insert(values.end(), static_cast<std::size_t>(k == 0 ? 1 : k),
                    first + static_cast<float>(r));
    const std::vector<std::int64_t> shape =
        k == 0 ? std::vector<std::int64_t>{n} : std::vector<std::int64_t>{n, k};
    tensors[name] = {"F32", shape, bytes_of_all(values)};
  }

  static TinyCheckpoint internlm2(const std::string& prefix = "") {
    TinyCheckpoint c;
    c.config["architectures"] = {"InternLM2ForCausalLM"};
    const std::string layer = prefix + "model.layers.0.";
    c.rows(prefix + "model.tok_embeddings.weight", 16, 32, 1000);
    c.rows(layer + "attention_norm.weight", 32, 0, 1);
    c.rows(layer + "attention.wqkv.weight", 16, 32, 0);
    c.rows(layer + "attention.wo.weight", 32, 8, 100);
    c.rows(layer + "ffn_norm.weight", 32, 0, 2);
    c.rows(layer + "feed_forward.w1.weight", 64, 32, 200);
    c.rows(layer + "feed_forward.w3.weight", 64, 32, 300);
    c.rows(layer + "feed_forward.w2.weight", 32, 64, 400);
    c.rows(prefix + "model.norm.weight", 32, 0, 3);
    c.rows(prefix + "output.weight", 16, 32, 2000);
    return c;
  }

  static TinyCheckpoint llama() {
    TinyCheckpoint c;
    c.config["architectures"] = {"LlamaForCausalLM"};
    const std::string layer = "model.layers.0.";
    c.rows("model.embed_tokens.weight", 16, 32, 1000);
    c.rows(layer + "input_layernorm.weight", 32, 0, 1);
    c.rows(layer + "self_attn.q_proj.weight", 8, 32, 0);
    c.rows(layer + "self_attn.k_proj.weight", 4, 32, 8);
    c.rows(layer + "self_attn.v_proj.weight", 4, 32, 12);
    c.rows(layer + "self_attn.o_proj.weight", 32, 8, 100);
    c.rows(layer + "post_attention_layernorm.weight", 32, 0, 2);
    c.rows(layer + "mlp.gate_proj.weight", 64, 32, 200);
    c.rows(layer + "mlp.up_proj.weight", 64, 32, 300);
    c.rows(layer + "mlp.down_proj.weight", 32, 64, 400);
    c.rows("model.norm.weight", 32, 0, 3);
    c.rows("lm_head.weight", 16, 32, 2000);
    return c;
  }

  [[nodiscard]] std::string safetensors_bytes() const {
    SafetensorsBytes bytes;
    for (const auto& [name, t] : tensors)
      bytes.add(name, t.dtype, t.shape, t.data);
    return bytes.bytes();
  }

  void write(const std::string& folder) const {
    std::filesystem::create_directories(folder);
    write_file(folder + "/config.json", config.dump());
    write_file(folder + "/model.safetensors", safetensors_bytes());
  }
};

}  // namespace lmd::test
