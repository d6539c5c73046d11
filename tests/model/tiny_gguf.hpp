/// \file  A GGUF file of one layer whose every weight is known in advance.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "test_files.hpp"

namespace lmd::test {

/// 4 heads and 2 KV heads of 4, hidden 32, intermediate 64, vocabulary 4, one layer. Row r of a
/// tensor is full of `first + r`.
struct TinyGguf {
  struct Tensor {
    std::vector<std::uint64_t> ne;
    std::uint32_t type;
    std::string data;
  };

  std::string architecture = "llama";
  std::map<std::string, Tensor> tensors;
  GgufBytes values;

  void rows(const std::string& name, std::uint64_t in, std::uint64_t out, float first) {
    std::vector<float> all;
    for (std::uint64_t r = 0; r < (out == 0 ? 1 : out); ++r)
      all.insert(all.end(), in, first + static_cast<float>(r));
    const auto ne = out == 0 ? std::vector<std::uint64_t>{in} : std::vector<std::uint64_t>{in, out};
    tensors[name] = {ne, 0, bytes_of_all(all)};
  }

  explicit TinyGguf(const std::string& arch = "llama",
                    const std::vector<std::string>& tokens = {"<|endoftext|>", "a", "<|im_end|>",
                                                              "b"})
      : architecture(arch) {
    values.string("general.architecture", arch)
        .u32(arch + ".block_count", 1)
        .u32(arch + ".context_length", 64)
        .u32(arch + ".embedding_length", 32)
        .u32(arch + ".feed_forward_length", 64)
        .u32(arch + ".attention.head_count", 4)
        .u32(arch + ".attention.head_count_kv", 2)
        .u32(arch + ".attention.key_length", 4)
        .f32(arch + ".attention.layer_norm_rms_epsilon", 1e-5f)
        .f32(arch + ".rope.freq_base", 5000.0f)
        .string("tokenizer.ggml.model", "gpt2")
        .string("tokenizer.ggml.pre", "smollm")
        .strings("tokenizer.ggml.tokens", tokens)
        .value("tokenizer.ggml.token_type", 9,
               bytes_of(5u) + bytes_of(UINT64_C(4)) + bytes_of_all(std::vector<int>{3, 1, 3, 1}))
        .strings("tokenizer.ggml.merges", {"a b"})
        .u32("tokenizer.ggml.bos_token_id", 1)
        .u32("tokenizer.ggml.eos_token_id", 2)
        .value("tokenizer.ggml.add_bos_token", 7, std::string(1, '\0'));
    rows("token_embd.weight", 32, 4, 1000);
    rows("blk.0.attn_norm.weight", 32, 0, 1);
    rows("blk.0.attn_q.weight", 32, 16, 0);
    rows("blk.0.attn_k.weight", 32, 8, 100);
    rows("blk.0.attn_v.weight", 32, 8, 200);
    rows("blk.0.attn_output.weight", 16, 32, 300);
    rows("blk.0.ffn_norm.weight", 32, 0, 2);
    rows("blk.0.ffn_gate.weight", 32, 64, 400);
    rows("blk.0.ffn_up.weight", 32, 64, 500);
    rows("blk.0.ffn_down.weight", 64, 32, 600);
    rows("output_norm.weight", 32, 0, 3);
    rows("output.weight", 32, 4, 2000);
  }

  [[nodiscard]] std::string bytes() const {
    GgufBytes all = values;
    for (const auto& [name, t] : tensors)
      all.tensor(name, t.ne, t.type, t.data);
    return all.bytes();
  }
};

}  // namespace lmd::test
