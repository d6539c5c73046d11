/// \file  Shapes of published models, for measurements without their weights.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/model/config.hpp>

#include <string>
#include <vector>

namespace lmd::apps {

struct NamedShape {
  const char* name;
  int hidden_size;
  int intermediate_size;
  int n_layers;
  int n_heads;
  int n_kv_heads;
  int head_dim;
  int vocab_size;
  double rope_base;
  double dynamic_factor;
  int max_position;
  bool has_tied_head;
};

// Source: the models' config.json files; internvl2-26b is its language part.
inline constexpr NamedShape kShapes[] = {
    {"internlm2_5-1_8b", 2048, 8192, 24, 16, 8, 128, 92544, 1e6, 2.0, 32768, false},
    {"internlm2_5-7b", 4096, 14336, 32, 32, 8, 128, 92544, 1e6, 2.0, 32768, false},
    {"internlm2_5-20b", 6144, 16384, 48, 48, 8, 128, 92544, 1e6, 2.0, 32768, false},
    {"internvl2-26b", 6144, 16384, 48, 48, 8, 128, 92553, 1e6, 3.0, 32768, false},
    // No published model: for tests, as it is made in a moment.
    {"internlm2-tiny", 256, 512, 2, 4, 2, 64, 1024, 1e6, 2.0, 2048, false},
    {"smollm2-135m", 576, 1536, 30, 9, 3, 64, 49152, 1e5, 0.0, 8192, true},
};

/// \throws Error(kConfig) that lists the known names.
[[nodiscard]] inline model::ModelConfig shape_config(const std::string& name) {
  std::string known;
  for (const NamedShape& s : kShapes) {
    known += std::string(" ") + s.name;
    if (name != s.name) continue;
    model::ModelConfig c;
    c.architecture = s.has_tied_head ? "LlamaForCausalLM" : "InternLM2ForCausalLM";
    c.hidden_size = s.hidden_size;
    c.intermediate_size = s.intermediate_size;
    c.n_layers = s.n_layers;
    c.n_heads = s.n_heads;
    c.n_kv_heads = s.n_kv_heads;
    c.head_dim = s.head_dim;
    c.vocab_size = s.vocab_size;
    c.max_position = s.max_position;
    c.rms_eps = 1e-5f;
    c.rope = {.base = s.rope_base, .dynamic_factor = s.dynamic_factor};
    c.has_tied_head = s.has_tied_head;
    return c;
  }
  throw Error(ErrorCode::kConfig, "shape " + name + " is unknown; known:" + known);
}

}  // namespace lmd::apps
