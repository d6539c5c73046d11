/// \file  lmd bench latency: tokens per second of one engine, and how near memory's limit that is.
// SPDX-License-Identifier: Apache-2.0
#include <lmd/json/json.hpp>

#include <cstdio>
#include <memory>
#include <string>
#include <vector>

#include "commands.hpp"
#include "engine_flags.hpp"
#include "latency.hpp"
#include "load_shown.hpp"
#include "read_bandwidth.hpp"
#include "standard_io.hpp"

namespace lmd::apps {

namespace {

struct BenchFlags {
  std::string model;
  std::string shape;
  std::string weights = "w4";
  LatencyCase size;
  int repeat = 3;
  bool is_json = false;
  bool has_batch_size = false;  ///< --max-batch-size was given
  RuntimeOptions runtime;
};

struct BenchResult {
  double prefill_tokens_per_s = 0.0;
  double decode_tokens_per_s = 0.0;
  double first_token_ms = 0.0;
  double bytes_per_token = 0.0;
  double read_bandwidth = 0.0;  ///< bytes per second

  [[nodiscard]] double bandwidth_fraction() const {
    return decode_tokens_per_s * bytes_per_token / read_bandwidth;
  }
};

Runtime load(const BenchFlags& flags) {
  if (flags.shape.empty()) return load_shown(flags.model, flags.runtime);
  catch_interrupts();
  Progress progress("making weights", ProgressUnit::kBytes);
  Runtime runtime = make_random_model(
      flags.shape, flags.weights, flags.runtime,
      [&](std::int64_t done, std::int64_t total) { progress.update(done, total); });
  progress.finish();
  return runtime;
}

/// Weights are read once a step for the whole batch, each sequence's cache for itself; the cache
/// counts at its mean length.
double bytes_per_token(engine::Engine& engine, const LatencyCase& size) {
  const model::Decoder& decoder = engine.decoder();
  const auto weights = static_cast<double>(decoder.step_weight_bytes(size.batch));
  const double mean_tokens = size.prompt_len + size.gen_len / 2.0;
  return weights / size.batch + cache_bytes(decoder.geometry(), mean_tokens);
}

BenchResult measure(Runtime& runtime, const BenchFlags& flags) {
  engine::Engine& engine = *runtime.engine;
  const auto prompts = random_prompts(flags.size, engine.model().vocab_size);
  std::vector<double> prefill;
  std::vector<double> decode;
  std::vector<double> first;
  (void)run_once(engine, flags.size, prompts);
  for (int i = 0; i < flags.repeat; ++i) {
    const LatencyRun run = run_once(engine, flags.size, prompts);
    prefill.push_back(run.prefill_tokens_per_s(flags.size));
    decode.push_back(run.decode_tokens_per_s(flags.size));
    first.push_back(1000.0 * run.first_token_s);
  }
  return {.prefill_tokens_per_s = median(prefill),
          .decode_tokens_per_s = median(decode),
          .first_token_ms = median(first),
          .bytes_per_token = bytes_per_token(engine, flags.size),
          .read_bandwidth = measure_read_bandwidth(*runtime.threads)};
}

std::string name_of(const Runtime& runtime, const BenchFlags& flags) {
  if (flags.shape.empty()) return model_name(runtime.folder);
  return flags.shape + " (random " + flags.weights + ")";
}

std::string as_json(const Runtime& runtime, const BenchFlags& flags, const BenchResult& r) {
  const json::Json report = {
      {"device", runtime.backend},
      {"model", name_of(runtime, flags)},
      {"threads", runtime.threads->size()},
      {"kv", kv_scheme_name(flags.runtime.engine.quant_policy)},
      {"prompt_len", flags.size.prompt_len},
      {"gen_len", flags.size.gen_len},
      {"batch", flags.size.batch},
      {"prefill_tokens_per_s", r.prefill_tokens_per_s},
      {"decode_tokens_per_s", r.decode_tokens_per_s},
      {"first_token_ms", r.first_token_ms},
      {"bytes_per_token", r.bytes_per_token},
      {"read_bandwidth_gb_s", r.read_bandwidth / 1e9},
      {"bandwidth_fraction", r.bandwidth_fraction()},
  };
  return report.dump(2) + '\n';
}

std::string as_text(const Runtime& runtime, const BenchFlags& flags, const BenchResult& r) {
  const LatencyCase& c = flags.size;
  return name_of(runtime, flags) + ": " + runtime.backend + ", KV scheme " +
         kv_scheme_name(flags.runtime.engine.quant_policy) + ", batch " + std::to_string(c.batch) +
         ", " + std::to_string(c.prompt_len) + " + " + std::to_string(c.gen_len) +
         " tokens, median of " + std::to_string(flags.repeat) + "\n  prefill      " +
         number_text(r.prefill_tokens_per_s, 1) + " tokens/s\n  first token  " +
         number_text(r.first_token_ms, 1) + " ms\n  decode       " +
         number_text(r.decode_tokens_per_s, 1) + " tokens/s\n  memory       " +
         bytes_text(r.bytes_per_token) + " per token, " +
         number_text(100.0 * r.bandwidth_fraction(), 0) + " % of the " +
         number_text(r.read_bandwidth / 1e9, 1) + " GB/s that this machine reads\n";
}

ExitCode run_latency(BenchFlags& flags) {
  LMD_REQUIRE(flags.model.empty() != flags.shape.empty(), ErrorCode::kConfig,
              "give either a MODEL or --random-weights SHAPE");
  engine::EngineConfig& config = flags.runtime.engine;
  if (!flags.has_batch_size) config.max_batch_size = flags.size.batch;
  if (config.session_len == 0) config.session_len = flags.size.prompt_len + flags.size.gen_len;
  Runtime runtime = load(flags);
  const BenchResult result = measure(runtime, flags);
  write_standard_output(flags.is_json ? as_json(runtime, flags, result)
                                      : as_text(runtime, flags, result));
  return ExitCode::kOk;
}

void add_latency(CLI::App& bench, Action& action) {
  const auto flags = std::make_shared<BenchFlags>();
  // Or every run after the first would read no prompt.
  flags->runtime.engine.has_prefix_cache = false;
  flags->runtime.engine.max_batch_size = 1;
  CLI::App& app = *bench.add_subcommand("latency", "Tokens per second of one model");
  add_model(app, flags->model);
  std::string shapes;
  for (const std::string& shape : known_shapes())
    shapes += ' ' + shape;
  add_text(app, "--random-weights", flags->shape, "SHAPE",
           "instead of a model: this shape with random weights. Known:" + shapes);
  add_choice(app, "--weights", flags->weights, {"w4", "w8", "f16", "bf16", "f32"},
             "format of the random weights");
  add_integer(app, "--prompt-len", flags->size.prompt_len, 1, 1 << 20, "tokens of each prompt");
  add_integer(app, "--gen-len", flags->size.gen_len, 2, 1 << 20, "tokens of each answer");
  add_integer(app, "--batch", flags->size.batch, 1, 4096, "sequences at the same time");
  add_integer(app, "--repeat", flags->repeat, 1, 1000, "runs, after one to warm up");
  app.add_flag("--json", flags->is_json, "the report as JSON");
  add_engine_flags(app, flags->runtime);
  app.footer(
      "Examples:\n"
      "  lmd bench latency SmolLM2-135M-Instruct --quant-policy 8\n"
      "  lmd bench latency --random-weights internlm2_5-7b --weights w4 --gen-len 32 --json\n"
      "\nPrompts are random ids, the same in every run; answers are greedy and go on after the "
      "end token. The prefix cache is off unless --enable-prefix-caching is given.\n");
  app.callback([&app, &action, flags] {
    flags->has_batch_size = app.count("--max-batch-size") > 0;
    action = [flags] { return run_latency(*flags); };
  });
}

}  // namespace

void add_bench(CLI::App& root, Action& action) {
  CLI::App& app = *root.add_subcommand("bench", "Measure speed");
  app.footer("Examples:\n  lmd bench latency SmolLM2-135M-Instruct --json\n");
  add_latency(app, action);
}

}  // namespace lmd::apps
