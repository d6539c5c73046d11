/// \file  A whole checkpoint from a decoder's weights: config.json, one file or several with their
///        index.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/core/config.hpp>
#include <lmd/core/thread_pool.hpp>
#include <lmd/json/json.hpp>
#include <lmd/model/convert.hpp>
#include <lmd/model/safetensors.hpp>

#include <cstdio>
#include <string>
#include <utility>
#include <vector>

#include "save_weights.hpp"

namespace lmd::apps {

/// What the layers are quantised by; null where they are not.
[[nodiscard]] inline json::Json quantization_json(const std::vector<SavedModule>& modules) {
  json::Json eight_bit = json::Json::object();
  int awq_group = 0;
  const json::Json symmetric = {{"bits", 8}, {"group_size", 32}, {"layout", "symmetric"}};
  for (const SavedModule& module : modules) {
    if (module.matrix == nullptr) continue;
    const model::WeightFormatFacts facts = model::weight_format_facts(module.matrix->format);
    if (facts.group_size > 0 && facts.bits == 4) awq_group = facts.group_size;
    if (facts.group_size > 0 && facts.bits == 8) eight_bit[module.name] = symmetric;
  }
  if (awq_group > 0) {
    return {{"quant_method", "awq"},   {"version", "gemm"},  {"bits", 4},
            {"group_size", awq_group}, {"zero_point", true}, {"modules_to_not_convert", nullptr}};
  }
  if (eight_bit.empty()) return nullptr;
  json::Json quantization = symmetric;
  quantization["quant_method"] = "lmd";
  quantization["modules"] = std::move(eight_bit);
  return quantization;
}

[[nodiscard]] inline json::Json checkpoint_config_json(const model::ModelConfig& c,
                                                       model::DType dtype,
                                                       json::Json quantization) {
  const bool is_internlm2 = c.architecture == "InternLM2ForCausalLM";
  json::Json j = model::detail::shape_json(c, is_internlm2 ? "internlm2" : "llama", dtype);
  j["bos_token_id"] = 1;
  j["eos_token_id"] = 2;
  if (is_internlm2) {
    j["bias"] = false;  // its head size is always hidden / heads
  } else {
    j["attention_bias"] = false;
    j["mlp_bias"] = false;
    j["head_dim"] = c.head_dim;
  }
  if (c.rope.dynamic_factor > 1.0)
    j["rope_scaling"] = {{"type", "dynamic"}, {"factor", c.rope.dynamic_factor}};
  if (!quantization.is_null()) j["quantization_config"] = std::move(quantization);
  return j;
}

/// Neighbouring modules that go into one file.
struct Shard {
  std::vector<const SavedModule*> modules;
  std::vector<model::TensorSpec> specs;
  std::int64_t bytes = 0;
};

/// As few files as `max_bytes` allows; a larger tensor has a file of its own.
[[nodiscard]] inline std::vector<Shard> shards_of(const std::vector<SavedModule>& modules,
                                                  const ModuleWriter& writer,
                                                  std::int64_t max_bytes) {
  std::vector<Shard> shards(1);
  for (const SavedModule& module : modules) {
    std::vector<model::TensorSpec> specs = writer.specs(module);
    std::int64_t bytes = 0;
    for (const model::TensorSpec& spec : specs)
      bytes += model::size_in_bytes(spec.shape, spec.dtype).value();
    if (shards.back().bytes > 0 && shards.back().bytes + bytes > max_bytes) shards.emplace_back();
    Shard& shard = shards.back();
    shard.modules.push_back(&module);
    shard.bytes += bytes;
    for (model::TensorSpec& spec : specs)
      shard.specs.push_back(std::move(spec));
  }
  return shards;
}

/// model.safetensors, or model-00002-of-00003.safetensors.
[[nodiscard]] inline std::string shard_name(std::size_t index, std::size_t n) {
  if (n == 1) return "model.safetensors";
  char name[64];
  std::snprintf(name, sizeof name, "model-%05zu-of-%05zu.safetensors", index + 1, n);
  return name;
}

inline constexpr std::int64_t kMaxShardBytes = 5'000'000'000;  // as transformers splits

/// Writes `weights`, rows in PlainOrder, into `folder`, which is there. AWQ's layers as AutoAWQ and
/// LMDeploy write them, 8-bit ones as `lmd convert` does.
///
/// Units:   progress in bytes written.
/// Errors:  \throws Error(kIo); whatever `progress` throws.
inline void save_checkpoint(const model::ModelConfig& c,
                            const model::DecoderWeights& weights,
                            const std::string& folder,
                            ThreadPool* pool,
                            const model::Progress& progress = {},
                            std::int64_t max_shard_bytes = kMaxShardBytes) {
  const std::vector<SavedModule> modules = saved_modules(c, weights);
  const model::DType dtype = ModuleWriter::dtype_of(weights.embedding);
  const ModuleWriter writer(dtype, pool);
  const std::vector<Shard> shards = shards_of(modules, writer, max_shard_bytes);
  model::detail::write_json(folder + "/config.json",
                            checkpoint_config_json(c, dtype, quantization_json(modules)));
  json::Json weight_map = json::Json::object();
  std::int64_t total = 0;
  for (const Shard& shard : shards)
    total += shard.bytes;
  std::int64_t done = 0;
  for (std::size_t i = 0; i < shards.size(); ++i) {
    const std::string name = shard_name(i, shards.size());
    model::SafetensorsWriter out(folder + "/" + name, shards[i].specs);
    for (const SavedModule* module : shards[i].modules) {
      writer.write(*module, out);
      if (progress) progress(done + out.bytes_done(), total);
    }
    out.commit();
    done += shards[i].bytes;
    for (const model::TensorSpec& spec : shards[i].specs)
      weight_map[spec.name] = name;
  }
  if (shards.size() == 1) return;
  model::detail::write_json(
      folder + "/model.safetensors.index.json",
      {{"metadata", {{"total_size", total}}}, {"weight_map", std::move(weight_map)}});
}

}  // namespace lmd::apps
