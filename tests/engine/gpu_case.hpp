/// \file  Engines on the GPU over generated checkpoints and a tiny random model.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/engine/engine.hpp>

#include <memory>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "../apps/cuda_runtime.hpp"
#include "cases/tiny_decoder.hpp"
#include "engine/golden_case.hpp"
#include "oracle/skip.hpp"

namespace lmd::test {

/// Prints one visible line where there is no usable device.
inline bool has_gpu() {
  const apps::GpuFacts gpu = apps::query_gpu();
  if (!gpu.is_usable) skip("the engine on the GPU", gpu.problem);
  return gpu.is_usable;
}

inline engine::MemoryPlan plan_for(const model::ModelConfig& m,
                                   const engine::EngineConfig& config,
                                   const model::WeightShapes& weights,
                                   std::int64_t available = std::int64_t{8} << 30) {
  const cache::CacheGeometry geometry{m.n_layers, m.n_kv_heads, m.head_dim,
                                      engine::sealed_unit_bytes(config.quant_policy, m.head_dim)};
  return engine::plan_memory(m, config, geometry, apps::cuda_needs(m, config, weights), available);
}

/// For one sequence of a fixture.
inline engine::EngineConfig golden_config(int quant_policy, engine::ActivationType activations) {
  engine::EngineConfig config;
  config.quant_policy = quant_policy;
  config.session_len = kGoldenTokens;
  config.max_batch_size = 1;
  config.activations = activations;
  return config;
}

struct Setup {
  int quant_policy = 0;
  int chunk = 512;
  int batch = 4;
  bool is_deterministic = true;
  bool has_prefix_cache = true;
  bool is_one_by_one = false;
  int n_logprobs = -1;
  engine::ActivationType activations = engine::ActivationType::kFloat16;
};

[[nodiscard]] inline engine::EngineConfig config_of(const Setup& s) {
  engine::EngineConfig config;
  config.quant_policy = s.quant_policy;
  config.session_len = 512;
  config.max_batch_size = s.batch;
  config.max_prefill_tokens = s.chunk;
  config.has_prefix_cache = s.has_prefix_cache;
  config.is_deterministic = s.is_deterministic;
  config.activations = s.activations;
  config.max_queued_tokens = 1 << 20;  // tests ask for everything at once
  return config;
}

/// Over cases::tiny_config().
inline engine::Engine make_engine(const Setup& s, model::DecoderWeights weights) {
  const model::ModelConfig m = cases::tiny_config();
  const engine::EngineConfig config = config_of(s);
  const engine::MemoryPlan plan = plan_for(m, config, cases::shapes_of(weights));
  return {apps::make_cuda_executor(m, std::move(weights), config, plan), config, plan};
}

/// A prompt of n tokens; those of equal `seed` begin alike.
inline engine::Request request_of(int n, int last, unsigned seed = 7) {
  engine::Request r;
  std::mt19937 random(seed);
  for (int i = 0; i < n; ++i)
    r.prompt.push_back(static_cast<int>(random() % 97));
  r.prompt.back() = last;
  r.sampling.temperature = 0.0f;
  r.max_new_tokens = 80;
  return r;
}

}  // namespace lmd::test
