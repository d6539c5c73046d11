/// \file  What the measurements of `lmd bench` share: which model, how it is loaded, how it is called.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/json/json.hpp>

#include <algorithm>
#include <cstdio>
#include <optional>
#include <string>
#include <utility>

#include "cuda_runtime.hpp"
#include "engine_flags.hpp"
#include "exit_code.hpp"
#include "load_shown.hpp"
#include "measuring.hpp"
#include "process_age.hpp"
#include "read_bandwidth.hpp"

namespace lmd::apps {

struct BenchFlags {
  std::string model;
  RandomModel random;  ///< instead of `model` where it names a shape
  bool is_json = false;
  bool has_batch_size = false;  ///< --max-batch-size was given
  RuntimeOptions runtime;

  [[nodiscard]] bool is_random() const { return !random.shape.empty(); }
};

inline void add_bench_flags(CLI::App& app, BenchFlags& flags) {
  flags.runtime.engine.has_prefix_cache = false;
  flags.runtime.engine.max_batch_size = 1;
  add_model(app, flags.model);
  std::string shapes;
  for (const std::string& shape : known_shapes())
    shapes += ' ' + shape;
  add_text(app, "--random-weights", flags.random.shape, "SHAPE",
           "instead of a model: this shape with random weights. Known:" + shapes);
  add_choice(app, "--weights", flags.random.weights, {"w4", "w8", "f16", "bf16", "f32"},
             "format of the random weights");
  add_text(app, "--save", flags.random.save_to, "DIR",
           "keep the random weights as a model's folder; must not exist, or be empty");
  app.add_flag("--json", flags.is_json, "the report as JSON");
  add_engine_flags(app, flags.runtime);
  app.get_option("--max-batch-size")
      ->description("sequences that run at the same time; else as many as are asked for")
      ->default_str("");
  app.get_option("--session-len")
      ->description("tokens of a sequence, prompt and answer; 0: as many as are asked for");
}

/// What the engine must have room for.
struct BenchRoom {
  int batch = 1;
  int session_len = 0;        ///< tokens at least
  int usual_session_len = 0;  ///< tokens where no flag says otherwise
};

/// Checks the flags that go together and gives the engine its room.
/// \throws Error(kConfig), Error(kCapacity).
inline void prepare(BenchFlags& flags, const BenchRoom& room) {
  LMD_REQUIRE(flags.model.empty() == flags.is_random(), ErrorCode::kConfig,
              "give either a MODEL or --random-weights SHAPE");
  LMD_REQUIRE(flags.random.save_to.empty() || flags.is_random(), ErrorCode::kConfig,
              "--save keeps random weights; give --random-weights SHAPE too");
  engine::EngineConfig& config = flags.runtime.engine;
  if (!flags.has_batch_size) config.max_batch_size = room.batch;
  if (config.session_len == 0) config.session_len = room.usual_session_len;
  LMD_REQUIRE(config.session_len >= room.session_len, ErrorCode::kCapacity,
              "--session-len " + std::to_string(config.session_len) + ": prompt and answer have " +
                  std::to_string(room.session_len) + " tokens");
}

struct BenchModel {
  Runtime runtime;
  std::string name;
  std::string kv;                                ///< the KV scheme's name
  std::optional<double> load_s;                  ///< of a model that was loaded
  std::optional<double> start_to_first_token_s;  ///< the same, where the system knows it
  double read_bandwidth = 0.0;                   ///< bytes per second
};

/// With a bar for each step on the way.
inline Runtime load_runtime(const BenchFlags& flags) {
  if (!flags.is_random()) return load_shown(flags.model, flags.runtime);
  catch_interrupts();
  std::optional<Progress> bar(std::in_place, "making weights", ProgressUnit::kBytes);
  bool is_saving = false;
  const auto make = [&](std::int64_t done, std::int64_t total) { bar->update(done, total); };
  const auto save = [&](std::int64_t done, std::int64_t total) {
    if (!is_saving) {
      bar->finish();
      bar.emplace("saving", ProgressUnit::kBytes);
    }
    is_saving = true;
    bar->update(done, total);
  };
  Runtime runtime;
  writing([&] { runtime = make_random_model(flags.random, flags.runtime, make, save); });
  bar->finish();
  if (!runtime.device_note.empty()) std::fprintf(stderr, "%s\n", runtime.device_note.c_str());
  return runtime;
}

/// Loads the model and lets it say its first token, so that what follows is warm.
inline BenchModel load_bench_model(const BenchFlags& flags) {
  constexpr int kFirstPrompt = 32;  // tokens, as of a short question
  BenchModel model;
  const Stopwatch watch;
  model.runtime = load_runtime(flags);
  if (!flags.is_random()) model.load_s = watch.seconds();
  engine::Engine& engine = *model.runtime.engine;
  const int n_tokens = std::min(kFirstPrompt, engine.plan().session_len - 1);
  (void)first_token_s(engine, random_prompt(n_tokens, engine.model().vocab_size, {-1}));
  if (!flags.is_random()) model.start_to_first_token_s = process_age_s();
  model.name = flags.is_random() ? flags.random.shape + " (random " + flags.random.weights + ")"
                                 : model_name(model.runtime.folder);
  model.kv = kv_scheme_name(flags.runtime.engine.quant_policy);
  model.read_bandwidth =
      model.runtime.is_gpu ? gpu_read_bandwidth() : measure_read_bandwidth(*model.runtime.threads);
  return model;
}

/// Null where it is not known.
inline json::Json json_of(const std::optional<double>& value) {
  return value ? json::Json(*value) : json::Json(nullptr);
}

/// {"device": 0.4, ...}, or null for random weights.
inline json::Json load_times_json(const BenchModel& model) {
  json::Json times;
  for (const LoadTime& time : model.runtime.load_times)
    times[time.what] = time.seconds;
  return times;
}

inline json::Json model_json(const BenchModel& model) {
  return {{"device", model.runtime.backend},
          {"model", model.name},
          {"threads", model.runtime.threads->size()},
          {"kv", model.kv},
          {"load_s", json_of(model.load_s)},
          {"load_times_s", load_times_json(model)},
          {"start_to_first_token_s", json_of(model.start_to_first_token_s)},
          {"read_bandwidth_gb_s", model.read_bandwidth / 1e9}};
}

/// "loaded in 1.21 s (device 0.40, plan 0.01, weights 0.71, engine 0.09), first token 1.34 s after the
/// start of the process"; empty of random weights.
inline std::string loading_text(const BenchModel& model) {
  if (!model.load_s) return {};
  std::string text = "loaded in " + number_text(*model.load_s, 2) + " s";
  std::string parts;
  for (const LoadTime& time : model.runtime.load_times) {
    parts +=
        (parts.empty() ? " (" : ", ") + std::string(time.what) + ' ' + number_text(time.seconds, 2);
  }
  if (!parts.empty()) text += parts + ')';
  if (model.start_to_first_token_s) {
    text += ", first token " + number_text(*model.start_to_first_token_s, 2) +
            " s after the start of the process";
  }
  return text;
}

}  // namespace lmd::apps
