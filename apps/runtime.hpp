/// \file  From a model's name to a loaded engine: what every subcommand that runs a model shares.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/core/thread_pool.hpp>
#include <lmd/engine/config.hpp>
#include <lmd/engine/engine.hpp>
#include <lmd/engine/memory_plan.hpp>
#include <lmd/model/hf_config.hpp>
#include <lmd/model/load_weights.hpp>
#include <lmd/text/chat_template.hpp>
#include <lmd/text/tokenizer.hpp>

#include <memory>
#include <string>

namespace lmd::apps {

struct RuntimeOptions {
  engine::EngineConfig engine;
  std::string device = "auto";       ///< auto, cpu, host (the textbook definitions) or cuda
  int threads = 0;                   ///< 0: as many as this process may use
  std::string model_format;          ///< "", hf or awq: must agree with what the files say
  std::string chat_template;         ///< "", a built-in name, a JSON file or JSON text
  double rope_scaling_factor = 0.0;  ///< 0: from the configuration; > 1: dynamic NTK with it
  bool needs_tokenizer = false;      ///< refuse a folder without one, before anything is loaded
};

/// ${LMD_HOME:-~/.cache/lmd}/models
[[nodiscard]] std::string models_folder();

/// The folder of a model: `name_or_path` itself where it is one, else the folder of that name under
/// models_folder(). \throws Error(kIo) that names both places.
[[nodiscard]] std::string find_model(const std::string& name_or_path);

/// A model ready to run. Members are destroyed last to first: the engine before its threads.
struct Runtime {
  std::string folder;
  model::HfConfig config;
  std::unique_ptr<text::Tokenizer> tokenizer;  ///< null where the folder has none
  text::ChatTemplate chat_template;
  std::unique_ptr<ThreadPool> threads;
  std::string backend;  ///< for people: "cpu, avx2, 2 threads"
  std::unique_ptr<engine::Engine> engine;
};

/// Reads the configuration and the tensors' headers; allocates nothing.
/// \throws Error for everything that loading would refuse, the plan that does not fit included.
[[nodiscard]] engine::MemoryPlan plan_model(const std::string& folder,
                                            const RuntimeOptions& options);

/// Loads and arranges the weights. `progress` in bytes as held.
/// \throws Error for files that are missing, damaged or not supported, all but the weights' values
///         before the weights are read; for a plan that does not fit.
[[nodiscard]] Runtime load_model(const std::string& folder,
                                 const RuntimeOptions& options,
                                 const model::Progress& progress = {});

/// A model of a named shape (`internlm2_5-7b`, ...) with random weights, for measurements: no files,
/// no tokenizer. `weights` is w4 (AWQ, group 128), w8, f16, bf16 or f32.
/// \throws Error(kConfig) that lists the known shapes or weights.
[[nodiscard]] Runtime make_random_model(const std::string& shape,
                                        const std::string& weights,
                                        const RuntimeOptions& options,
                                        const model::Progress& progress = {});

/// The shapes that make_random_model knows.
[[nodiscard]] std::vector<std::string> known_shapes();

}  // namespace lmd::apps
