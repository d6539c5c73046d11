/// \file  What the metadata of a GGUF file says about its decoder: configuration, names, tokenizer.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/core/error.hpp>
#include <lmd/core/shown_name.hpp>
#include <lmd/model/config.hpp>
#include <lmd/model/gguf.hpp>

#include <algorithm>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace lmd::model {

/// The tokenizer as the file carries it. Lists have one entry per token or are empty.
struct GgufTokenizer {
  std::string model;                ///< "gpt2": byte-level BPE; "llama": SentencePiece BPE
  std::string pre;                  ///< name of the pre-tokenizer, e.g. "smollm"; may be empty
  std::vector<std::string> tokens;  ///< in id order
  std::vector<std::int64_t> types;  ///< 1 normal 2 unknown 3 control 4 user-defined 5 unused 6 byte
  std::vector<double> scores;       ///< "llama"
  std::vector<std::string> merges;  ///< "gpt2": "a b", best first
  int bos_id = -1;                  ///< -1: none, as for the following
  int eos_id = -1;
  int unk_id = -1;
  int pad_id = -1;
  std::optional<bool> add_bos;  ///< absent where the file is silent, as for the following
  std::optional<bool> add_eos;
  std::optional<bool> add_space_prefix;
  std::string chat_template;  ///< jinja; may be empty
};

namespace detail {

/// Names of one module, without ".weight".
struct ModuleName {
  std::string gguf;
  std::string hf;
  int rope_heads = 0;  ///< > 0: rows lie in adjacent-pair order, that many heads
};

inline std::string gguf_architecture(const GgufFile& file) {
  const auto& name = file.get<std::string>("general.architecture");
  LMD_REQUIRE(name == "llama" || name == "qwen2" || name == "internlm2", ErrorCode::kConfig,
              file.path() + ": general.architecture " + shown_name(name) +
                  " is not supported; supported: internlm2 llama qwen2");
  return name;
}

/// A tensor that must be there with this shape. \throws Error(kFormat).
inline const GgufTensor& gguf_tensor(const GgufFile& file,
                                     const std::string& name,
                                     const Shape& shape) {
  const GgufTensor* tensor = file.find(name);
  LMD_REQUIRE(tensor != nullptr, ErrorCode::kFormat,
              file.path() + ": tensor " + name + " is missing");
  LMD_REQUIRE(tensor->shape == shape, ErrorCode::kFormat,
              file.path() + ": tensor " + name + ": shape is " + to_string(tensor->shape) +
                  ", expected " + to_string(shape));
  return *tensor;
}

inline RopeConfig gguf_rope(const GgufFile& file, const std::string& arch) {
  RopeConfig rope;
  const std::string prefix = arch + ".rope.";
  if (file.has(prefix + "freq_base")) rope.base = file.number(prefix + "freq_base", 1.0, 1e12);
  const auto type = file.get_or<std::string>(prefix + "scaling.type", "none");
  LMD_REQUIRE(type == "none" || type == "linear", ErrorCode::kConfig,
              file.path() + ": " + prefix + "scaling.type " + shown_name(type) +
                  " is not supported; supported: none linear");
  if (type == "linear") rope.linear_factor = file.number(prefix + "scaling.factor", 1.0, 10000.0);
  LMD_REQUIRE(file.find("rope_freqs.weight") == nullptr, ErrorCode::kConfig,
              file.path() + ": tensor rope_freqs.weight: RoPE with a factor per frequency is not" +
                  " supported");
  return rope;
}

/// An id out of the metadata, or -1 where there is none.
inline int gguf_token_id(const GgufFile& file, const char* key, int vocab_size) {
  const std::string full = std::string("tokenizer.ggml.") + key;
  return file.has(full) ? static_cast<int>(file.integer(full, 0, vocab_size - 1)) : -1;
}

/// Ids that end an answer: what the metadata names, and control tokens that by their text are ends.
inline std::vector<int> gguf_eos_ids(const GgufFile& file, int vocab_size) {
  std::vector<int> ids;
  const auto add = [&](int id) {
    if (id >= 0 && std::find(ids.begin(), ids.end(), id) == ids.end()) ids.push_back(id);
  };
  add(gguf_token_id(file, "eos_token_id", vocab_size));
  add(gguf_token_id(file, "eot_token_id", vocab_size));
  if (!file.has("tokenizer.ggml.tokens") || !file.has("tokenizer.ggml.token_type")) return ids;
  constexpr std::int64_t kControl = 3;
  const auto& tokens = file.get<std::vector<std::string>>("tokenizer.ggml.tokens");
  const auto& types = file.get<std::vector<std::int64_t>>("tokenizer.ggml.token_type");
  const int n =
      std::min({vocab_size, static_cast<int>(tokens.size()), static_cast<int>(types.size())});
  for (int id = 0; id < n; ++id) {
    if (types[static_cast<std::size_t>(id)] != kControl) continue;
    for (const char* end :
         {"</s>", "<|im_end|>", "<|endoftext|>", "<|eot_id|>", "<|end_of_text|>", "<|end|>"})
      if (tokens[static_cast<std::size_t>(id)] == end) add(id);
  }
  return ids;
}

/// The configuration with every number in the ranges that config.json's reader uses.
inline ModelConfig read_gguf_config(const GgufFile& file) {
  const std::string arch = gguf_architecture(file);
  const auto size = [&](const char* key, std::int64_t max) {
    return static_cast<int>(file.integer(arch + "." + key, 1, max));
  };
  ModelConfig c;
  // InternLM2's wqkv is split in GGUF files, and what is left is a Llama. Its dynamic RoPE scaling
  // (beyond context_length) has no key there.
  c.architecture = arch == "qwen2" ? "Qwen2ForCausalLM" : "LlamaForCausalLM";
  c.has_qkv_bias = arch == "qwen2";
  LMD_REQUIRE(file.get_or<std::int64_t>(arch + ".expert_count", 0) == 0, ErrorCode::kConfig,
              file.path() + ": " + arch + ".expert_count is not 0: experts are not supported");
  c.hidden_size = size("embedding_length", 65536);
  c.intermediate_size = size("feed_forward_length", 1 << 20);
  c.n_layers = size("block_count", 512);
  c.n_heads = size("attention.head_count", 1024);
  const bool has_kv = file.has(arch + ".attention.head_count_kv");
  c.n_kv_heads = has_kv ? size("attention.head_count_kv", 1024) : c.n_heads;
  c.max_position = size("context_length", 1 << 28);
  const bool has_key_length = file.has(arch + ".attention.key_length");
  c.head_dim = has_key_length ? size("attention.key_length", 1024) : c.hidden_size / c.n_heads;
  const bool fits = c.n_heads % c.n_kv_heads == 0 && c.head_dim > 0 && c.head_dim % 2 == 0 &&
                    (has_key_length || c.hidden_size % c.n_heads == 0);
  LMD_REQUIRE(fits, ErrorCode::kFormat,
              file.path() + ": " + std::to_string(c.n_heads) + " heads, " +
                  std::to_string(c.n_kv_heads) + " KV heads and embedding_length " +
                  std::to_string(c.hidden_size) + " do not divide");
  for (const char* key : {"attention.value_length", "rope.dimension_count"}) {
    const std::string full = arch + "." + key;
    LMD_REQUIRE(!file.has(full) || file.get<std::int64_t>(full) == c.head_dim, ErrorCode::kConfig,
                file.path() + ": " + full + " differs from the head dimension " +
                    std::to_string(c.head_dim) + ", which is not supported");
  }
  c.rms_eps =
      static_cast<float>(file.number(arch + ".attention.layer_norm_rms_epsilon", 1e-12, 0.1));
  c.rope = gguf_rope(file, arch);
  const GgufTensor* embedding = file.find("token_embd.weight");
  LMD_REQUIRE(
      embedding != nullptr && embedding->shape.size() == 2 && embedding->rows() <= 1'000'000,
      ErrorCode::kFormat,
      file.path() + ": tensor token_embd.weight is missing or not [vocabulary, " +
          std::to_string(c.hidden_size) + "] with at most 1000000 rows");
  c.vocab_size = static_cast<int>(embedding->rows());
  c.has_tied_head = file.find("output.weight") == nullptr;
  c.bos_id = gguf_token_id(file, "bos_token_id", c.vocab_size);
  c.eos_ids = gguf_eos_ids(file, c.vocab_size);
  return c;
}

/// InternLM2's vocabulary has a piece that is a NUL character, which llama.cpp's converter replaces
/// by this one (which is no piece of it).
inline constexpr std::string_view kInternlm2Nul = "\U0001F409";

/// The tokenizer, its lists checked against the vocabulary's size.
inline GgufTokenizer read_gguf_tokenizer(const GgufFile& file, int vocab_size) {
  const auto list = [&](auto kind, const char* key) {
    auto values = file.get_or<decltype(kind)>(std::string("tokenizer.ggml.") + key, {});
    LMD_REQUIRE(
        values.empty() || values.size() == static_cast<std::size_t>(vocab_size), ErrorCode::kFormat,
        file.path() + ": key tokenizer.ggml." + key + " has " + std::to_string(values.size()) +
            " entries, expected " + std::to_string(vocab_size));
    return values;
  };
  const auto flag = [&](const char* key) -> std::optional<bool> {
    const std::string full = std::string("tokenizer.ggml.") + key;
    if (!file.has(full)) return std::nullopt;
    return file.get<bool>(full);
  };
  GgufTokenizer t;
  t.model = file.get<std::string>("tokenizer.ggml.model");
  LMD_REQUIRE(t.model == "gpt2" || t.model == "llama", ErrorCode::kConfig,
              file.path() + ": tokenizer.ggml.model " + shown_name(t.model) +
                  " is not supported; supported: gpt2 llama");
  t.pre = file.get_or<std::string>("tokenizer.ggml.pre", "");
  t.tokens = list(std::vector<std::string>{}, "tokens");
  LMD_REQUIRE(!t.tokens.empty(), ErrorCode::kFormat,
              file.path() + ": key tokenizer.ggml.tokens is missing or empty");
  if (gguf_architecture(file) == "internlm2") {
    std::replace(t.tokens.begin(), t.tokens.end(), std::string(kInternlm2Nul),
                 std::string(1, '\0'));
  }
  t.types = list(std::vector<std::int64_t>{}, "token_type");
  t.scores = list(std::vector<double>{}, "scores");
  t.merges = file.get_or<std::vector<std::string>>("tokenizer.ggml.merges", {});
  t.bos_id = gguf_token_id(file, "bos_token_id", vocab_size);
  t.eos_id = gguf_token_id(file, "eos_token_id", vocab_size);
  t.unk_id = gguf_token_id(file, "unknown_token_id", vocab_size);
  t.pad_id = gguf_token_id(file, "padding_token_id", vocab_size);
  t.add_bos = flag("add_bos_token");
  t.add_eos = flag("add_eos_token");
  t.add_space_prefix = flag("add_space_prefix");
  t.chat_template = file.get_or<std::string>("tokenizer.chat_template", "");
  return t;
}

/// All modules of the decoder, in the order they are written.
inline std::vector<ModuleName> gguf_modules(const ModelConfig& c) {
  const bool is_permuted = c.architecture == "LlamaForCausalLM";
  std::vector<ModuleName> names = {{"token_embd", "model.embed_tokens", 0}};
  for (int i = 0; i < c.n_layers; ++i) {
    const std::string from = "blk." + std::to_string(i) + ".";
    const std::string to = "model.layers." + std::to_string(i) + ".";
    names.push_back({from + "attn_norm", to + "input_layernorm", 0});
    names.push_back({from + "attn_q", to + "self_attn.q_proj", is_permuted ? c.n_heads : 0});
    names.push_back({from + "attn_k", to + "self_attn.k_proj", is_permuted ? c.n_kv_heads : 0});
    names.push_back({from + "attn_v", to + "self_attn.v_proj", 0});
    names.push_back({from + "attn_output", to + "self_attn.o_proj", 0});
    names.push_back({from + "ffn_norm", to + "post_attention_layernorm", 0});
    names.push_back({from + "ffn_gate", to + "mlp.gate_proj", 0});
    names.push_back({from + "ffn_up", to + "mlp.up_proj", 0});
    names.push_back({from + "ffn_down", to + "mlp.down_proj", 0});
  }
  names.push_back({"output_norm", "model.norm", 0});
  if (!c.has_tied_head) names.push_back({"output", "lm_head", 0});
  return names;
}

/// Shape that a module's weight must have: [n] for norms, [out, in] for matrices.
inline Shape module_shape(const ModelConfig& c, const std::string& gguf_name) {
  const auto ends = [&](std::string_view suffix) { return gguf_name.ends_with(suffix); };
  if (ends("_norm")) return {c.hidden_size};
  if (gguf_name == "token_embd" || gguf_name == "output") return {c.vocab_size, c.hidden_size};
  if (ends("attn_q")) return {c.q_size(), c.hidden_size};
  if (ends("attn_k") || ends("attn_v")) return {c.kv_size(), c.hidden_size};
  if (ends("attn_output")) return {c.hidden_size, c.q_size()};
  if (ends("ffn_down")) return {c.hidden_size, c.intermediate_size};
  return {c.intermediate_size, c.hidden_size};
}

/// Where row r of a Hugging Face tensor lies among the file's rows of `head_dim`-row heads.
///
///   file row (head * hd + 2 i + half) = HF row (head * hd + half * (hd / 2) + i)
///
/// Source:  llama.cpp's converter (idea): RoPE there turns neighbours, here halves.
[[nodiscard]] inline std::int64_t gguf_row(std::int64_t hf_row, int head_dim) {
  const std::int64_t head = hf_row / head_dim;
  const std::int64_t within = hf_row % head_dim;
  const std::int64_t half = within / (head_dim / 2);
  const std::int64_t i = within % (head_dim / 2);
  return head * head_dim + 2 * i + half;
}

}  // namespace detail

}  // namespace lmd::model
