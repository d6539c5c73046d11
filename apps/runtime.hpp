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

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace lmd::apps {

struct RuntimeOptions {
  /// max_prefill_tokens 0: 512 on the processor, 4096 on a GPU.
  engine::EngineConfig engine = {.max_prefill_tokens = 0};
  std::string device = "auto";        ///< auto, cpu, host (the textbook definitions) or cuda
  std::int64_t gpu_memory_limit = 0;  ///< bytes; 0: what is free on the GPU
  std::string dtype = "auto";         ///< auto, float16 or bfloat16: activations on a GPU
  int threads = 0;                    ///< 0: as many as this process may use
  std::string model_format;           ///< "", hf or awq: must agree with what the files say
  std::string chat_template;          ///< "", a built-in name, a JSON file or JSON text
  double rope_scaling_factor = 0.0;   ///< 0: from the configuration; > 1: dynamic NTK with it
  bool needs_tokenizer = false;       ///< refuse a folder without one, before anything is loaded
};

/// ${LMD_HOME:-~/.cache/lmd}/models
[[nodiscard]] std::string models_folder();

/// The folder of a model: `name_or_path` itself where it is one, else the folder of that name under
/// models_folder(). \throws Error(kIo) that names both places.
[[nodiscard]] std::string find_model(const std::string& name_or_path);

/// How long a part of loading took.
struct LoadTime {
  const char* what;
  double seconds;
};

/// A model ready to run. Members are destroyed last to first: the engine before its threads.
struct Runtime {
  std::string folder;
  model::HfConfig config;
  std::unique_ptr<text::Tokenizer> tokenizer;  ///< null where the folder has none
  text::ChatTemplate chat_template;
  std::unique_ptr<ThreadPool> threads;
  std::string backend;      ///< for people: "cpu, avx2, 2 threads"
  std::string device_note;  ///< for people: what `auto` chose, where there was a choice
  bool is_gpu = false;
  std::vector<LoadTime> load_times;  ///< in order, of a model that was loaded
  std::unique_ptr<engine::Engine> engine;
};

struct DevicePlan {
  std::string device;  ///< for people: "cuda, NVIDIA H200, 139 GB of 141 GB free"
  engine::MemoryPlan memory;
};

/// Reads the configuration and the tensors' headers; allocates nothing.
/// \throws Error for everything that loading would refuse, the plan that does not fit included.
[[nodiscard]] DevicePlan plan_model(const std::string& folder, RuntimeOptions options);

/// Loads and arranges the weights. `progress` in bytes as held.
/// \throws Error for files that are missing, damaged or not supported, all but the weights' values
///         before the weights are read; for a plan that does not fit.
[[nodiscard]] Runtime load_model(const std::string& folder,
                                 RuntimeOptions options,
                                 const model::Progress& progress = {});

/// A model of a published shape without its weights.
struct RandomModel {
  std::string shape;           ///< one of known_shapes()
  std::string weights = "w4";  ///< w4 (AWQ, in groups of 128 where the shape allows), w8, f16, ...
  std::string save_to = {};    ///< a folder to write it to, not there yet or empty; "": none
};

/// A model with random weights, for measurements: no files, no tokenizer. A folder that is written
/// appears under its name when it is complete, and loads as any other. Progress in bytes.
/// \throws Error(kConfig) that lists the known shapes or weights, or says why the folder cannot be
///         taken; Error(kIo).
[[nodiscard]] Runtime make_random_model(const RandomModel& what,
                                        RuntimeOptions options,
                                        const model::Progress& making = {},
                                        const model::Progress& saving = {});

/// The shapes that make_random_model knows.
[[nodiscard]] std::vector<std::string> known_shapes();

}  // namespace lmd::apps
