/// \file  What apps/runtime.hpp declares: the only translation unit in which numbers become kernels.
// SPDX-License-Identifier: Apache-2.0
#include "../runtime.hpp"

#include <lmd/core/file.hpp>
#include <lmd/engine/arrange.hpp>
#include <lmd/engine/make_ops.hpp>
#include <lmd/kernels/attention/step_cpu_extern.hpp>
#include <lmd/kernels/linear/linear_cpu_extern.hpp>
#include <lmd/text/chat_template_json.hpp>
#include <lmd/text/chat_templates.hpp>
#include <lmd/text/load_tokenizer.hpp>

#include <chrono>
#include <cstdlib>
#include <optional>

#include "../cuda_runtime.hpp"
#include "../units.hpp"
#include "random_weights.hpp"
#include "save_checkpoint.hpp"
#include "shapes.hpp"
#include <sched.h>
#include <sys/stat.h>

namespace lmd::apps {
namespace {

bool is_folder(const std::string& path) {
  struct stat st {};
  return ::stat(path.c_str(), &st) == 0 && S_ISDIR(st.st_mode);
}

bool is_file(const std::string& path) {
  struct stat st {};
  return ::stat(path.c_str(), &st) == 0 && S_ISREG(st.st_mode);
}

/// Processors that this process may run on.
int usable_processors() {
  cpu_set_t set;
  CPU_ZERO(&set);
  if (::sched_getaffinity(0, sizeof set, &set) != 0) return 1;
  return std::max(1, CPU_COUNT(&set));
}

/// Where a model will run.
struct Device {
  bool is_gpu = false;
  std::string note;  ///< what `auto` chose, where there was a choice
  GpuFacts gpu;
};

/// \throws Error(kConfig) when the GPU was asked for and cannot be had.
Device choose_device(const std::string& device) {
  if (device == "cpu" || device == "host") return {};
  LMD_REQUIRE(device == "auto" || device == "cuda", ErrorCode::kConfig,
              "--device " + device + " is unknown; known: auto cpu host cuda");
  Device chosen;
  chosen.gpu = query_gpu();
  chosen.is_gpu = chosen.gpu.is_usable;
  LMD_REQUIRE(chosen.is_gpu || device == "auto", ErrorCode::kConfig,
              "--device cuda: " + chosen.gpu.problem + "; use auto, cpu or host");
  if (chosen.is_gpu) {
    chosen.note = "device: " + chosen.gpu.name + " (--device cpu for the processor)";
  } else if (chosen.gpu.is_there) {
    chosen.note = "device: the processor, as " + chosen.gpu.problem;
  }
  if (device != "auto") chosen.note.clear();
  return chosen;
}

/// What a plan is made for.
std::string device_text(const Device& device, const RuntimeOptions& options) {
  const auto text = [](std::int64_t bytes) { return bytes_text(static_cast<double>(bytes)); };
  if (!device.is_gpu) {
    return (options.device == "host" ? "host" : std::string("cpu, ") + to_string(best_cpu_isa())) +
           (device.gpu.is_there ? ", as " + device.gpu.problem : "");
  }
  return "cuda, " + device.gpu.name + ", " + text(device.gpu.free_bytes) + " of " +
         text(device.gpu.total_bytes) + " free" +
         (options.gpu_memory_limit > 0 ? ", limited to " + text(options.gpu_memory_limit) : "") +
         ", " + text(kGpuReserve) + " of it for the driver";
}

/// Prompt tokens of a step: a GPU wants many at once.
void choose_prefill_tokens(engine::EngineConfig& config, const Device& device) {
  constexpr int kOnCpu = 512;
  constexpr int kOnGpu = 4096;
  if (config.max_prefill_tokens == 0) config.max_prefill_tokens = device.is_gpu ? kOnGpu : kOnCpu;
}

/// Activations on a GPU, as --dtype and the model say. \throws Error(kConfig) for an unknown word.
void choose_activations(RuntimeOptions& options, const model::HfConfig& config) {
  options.engine.activations = engine::parse_dtype(
      options.dtype, config.torch_dtype, config.quantization.method == model::QuantMethod::kAwq);
}

model::Ops<Cpu> make_ops(const RuntimeOptions& options, int head_dim) {
  if (options.device == "host") {
    return engine::make_host_ops(options.engine.quant_policy, head_dim);
  }
  return engine::make_cpu_ops(options.engine.quant_policy, head_dim, best_cpu_isa());
}

model::HfConfig read_model_config(const std::string& folder, const RuntimeOptions& options) {
  model::HfConfig config = model::read_config(folder);
  const bool is_awq = config.quantization.method == model::QuantMethod::kAwq;
  const bool agrees = options.model_format.empty() || (options.model_format == "awq") == is_awq;
  LMD_REQUIRE(agrees, ErrorCode::kConfig,
              "--model-format " + options.model_format + ": " + folder + "/config.json says " +
                  (is_awq ? "awq" : "hf"));
  if (options.rope_scaling_factor > 0.0) {
    config.model.rope.dynamic_factor = options.rope_scaling_factor;
  }
  return config;
}

cache::CacheGeometry geometry_of(const model::ModelConfig& m, int quant_policy) {
  return {m.n_layers, m.n_kv_heads, m.head_dim,
          engine::sealed_unit_bytes(quant_policy, m.head_dim)};
}

engine::MemoryPlan plan(const model::ModelConfig& m,
                        const RuntimeOptions& options,
                        const Device& device,
                        const model::WeightShapes& weights) {
  const cache::CacheGeometry geometry = geometry_of(m, options.engine.quant_policy);
  if (!device.is_gpu) {
    return engine::plan_memory(m, options.engine, geometry, model::held_bytes(weights),
                               engine::available_host_memory());
  }
  std::int64_t available = device.gpu.free_bytes;
  if (options.gpu_memory_limit > 0) available = std::min(available, options.gpu_memory_limit);
  return engine::plan_memory(m, options.engine, geometry, cuda_needs(m, options.engine, weights),
                             std::max<std::int64_t>(available - kGpuReserve, 0));
}

text::ChatTemplate choose_template(const Runtime& r, const RuntimeOptions& options) {
  if (!options.chat_template.empty()) {
    const bool is_json =
        options.chat_template.find('{') != std::string::npos || is_file(options.chat_template);
    return is_json ? text::template_from_json(options.chat_template)
                   : text::builtin_template(options.chat_template);
  }
  text::TemplateHints hints{
      .architecture = r.config.model.architecture,
      .internvl_template = {},
      .chat_template = text::read_tokenizer_config(r.folder).chat_template,
      .has_internlm2_tokens = r.tokenizer != nullptr && text::internlm2_tokens_in(*r.tokenizer)};
  if (!r.config.wrapper.empty()) {
    const std::string path = r.folder + "/config.json";
    const json::Json root = json::parse_file(path);
    hints.internvl_template = json::Object(root, path).string_or("template", "");
  }
  return text::select_template(hints);
}

/// Notes the times of what follows one another.
class LoadClock {
 public:
  explicit LoadClock(std::vector<LoadTime>& times) : times_(&times) {}
  /// What has gone by since the last call, or the beginning, is `what`'s.
  void note(const char* what) {
    const Clock::time_point now = Clock::now();
    times_->push_back({what, std::chrono::duration<double>(now - last_).count()});
    last_ = now;
  }

 private:
  using Clock = std::chrono::steady_clock;
  std::vector<LoadTime>* times_;
  Clock::time_point last_ = Clock::now();
};

/// What `make` returns. The plan was made for what was free on the GPU then.
/// \throws what `make` \throws; Error(kCapacity) with the plan and a way out where its memory is not there.
template <class F>
std::unique_ptr<engine::Executor> within_plan(const engine::MemoryPlan& memory, F&& make) {
  try {
    return make();
  } catch (const Error& e) {
    if (e.code() != ErrorCode::kCapacity) throw;
    throw Error(ErrorCode::kCapacity,
                engine::to_text(memory) + e.what() +
                    ": less than the plan was made for; use a smaller --gpu-memory-limit or "
                    "--cache-max-entry-count, or end what else runs on the GPU");
  }
}

/// An engine on the GPU, whose executor `make` makes.
template <class F>
void start_on_gpu(Runtime& r,
                  const RuntimeOptions& options,
                  const Device& device,
                  const engine::MemoryPlan& memory,
                  F&& make) {
  const bool is_half = options.engine.activations == engine::ActivationType::kFloat16;
  r.backend = "cuda, " + device.gpu.name + (is_half ? ", float16" : ", bfloat16");
  r.is_gpu = true;
  r.engine = std::make_unique<engine::Engine>(within_plan(memory, make), options.engine, memory);
}

/// An engine on the processor.
void start_on_cpu(Runtime& r,
                  model::DecoderWeights weights,
                  const RuntimeOptions& options,
                  const engine::MemoryPlan& memory) {
  engine::arrange_for_cpu(weights, r.threads.get());
  const bool is_host = options.device == "host";
  r.backend = is_host ? "host, 1 thread"
                      : "cpu, " + std::string(to_string(best_cpu_isa())) + ", " +
                            std::to_string(r.threads->size()) + " threads";
  model::Decoder decoder(r.config.model, std::move(weights),
                         make_ops(options, r.config.model.head_dim), Cpu{r.threads.get()},
                         memory.max_rows);
  r.engine = std::make_unique<engine::Engine>(std::move(decoder), options.engine, memory);
}

std::unique_ptr<ThreadPool> make_threads(const RuntimeOptions& options) {
  return std::make_unique<ThreadPool>(options.threads > 0 ? options.threads : usable_processors());
}

}  // namespace

std::string models_folder() {
  const char* home = std::getenv("LMD_HOME");
  if (home != nullptr && *home != '\0') return std::string(home) + "/models";
  const char* user = std::getenv("HOME");
  return std::string(user != nullptr ? user : ".") + "/.cache/lmd/models";
}

std::string find_model(const std::string& name_or_path) {
  if (is_folder(name_or_path)) return name_or_path;
  std::string stored = models_folder() + "/" + name_or_path;
  const bool is_name = !name_or_path.empty() && name_or_path.find("..") == std::string::npos;
  if (is_name && is_folder(stored)) return stored;
  throw Error(ErrorCode::kIo,
              "model " + name_or_path + ": there is no such folder, and no " + stored);
}

DevicePlan plan_model(const std::string& folder, RuntimeOptions options) {
  const Device device = choose_device(options.device);
  choose_prefill_tokens(options.engine, device);
  const model::HfConfig config = read_model_config(folder, options);
  choose_activations(options, config);
  return {device_text(device, options),
          plan(config.model, options, device,
               model::read_weight_shapes(folder, config.model, config.quantization))};
}

Runtime load_model(const std::string& folder,
                   RuntimeOptions options,
                   const model::Progress& progress) {
  Runtime r;
  LoadClock clock(r.load_times);
  const Device device = choose_device(options.device);
  clock.note("device");
  choose_prefill_tokens(options.engine, device);
  r.folder = folder;
  r.config = read_model_config(folder, options);
  choose_activations(options, r.config);
  const engine::MemoryPlan memory =
      plan(r.config.model, options, device,
           model::read_weight_shapes(folder, r.config.model, r.config.quantization));
  clock.note("plan");
  const bool has_tokenizer =
      is_there(folder + "/tokenizer.json") || is_there(folder + "/tokenizer.model");
  if (has_tokenizer || options.needs_tokenizer) r.tokenizer = text::load_tokenizer(folder);
  r.chat_template = choose_template(r, options);
  r.threads = make_threads(options);
  r.device_note = device.note;
  clock.note("tokenizer");
  const auto weights_progress = [&](std::int64_t done, std::int64_t total) {
    if (progress) progress(done, total);
    if (done == total) clock.note("weights");
  };
  if (device.is_gpu) {
    start_on_gpu(r, options, device, memory, [&] {
      return load_cuda_executor(folder, r.config, options.engine, memory, weights_progress);
    });
  } else {
    start_on_cpu(
        r, model::load_weights(folder, r.config.model, r.config.quantization, weights_progress),
        options, memory);
  }
  clock.note("engine");
  return r;
}

Runtime make_random_model(const RandomModel& what,
                          RuntimeOptions options,
                          const model::Progress& making,
                          const model::Progress& saving) {
  const Device device = choose_device(options.device);
  choose_prefill_tokens(options.engine, device);
  Runtime r;
  r.folder = what.shape;
  r.config.model = shape_config(what.shape);
  const RandomFormats formats = random_formats(what.weights, r.config.model);
  if (what.weights == "bf16") r.config.torch_dtype = "bfloat16";
  choose_activations(options, r.config);
  const model::WeightShapes shapes = random_shapes(r.config.model, formats);
  const engine::MemoryPlan memory = plan(r.config.model, options, device, shapes);
  std::optional<model::NewFolder> folder;  // before the work, as it may be taken
  if (!what.save_to.empty()) folder.emplace(what.save_to);
  r.threads = make_threads(options);
  RandomWeights random(r.threads.get(), making, model::matrix_bytes(shapes));
  model::DecoderWeights weights = random_decoder(r.config.model, formats, random);
  if (folder) {
    save_checkpoint(r.config.model, weights, folder->partial_path(), r.threads.get(), saving);
    folder->commit();
  }
  r.device_note = device.note;
  if (device.is_gpu) {
    start_on_gpu(r, options, device, memory, [&] {
      return make_cuda_executor(r.config.model, std::move(weights), options.engine, memory);
    });
  } else {
    start_on_cpu(r, std::move(weights), options, memory);
  }
  return r;
}

std::vector<std::string> known_shapes() {
  std::vector<std::string> names;
  for (const NamedShape& s : kShapes)
    names.emplace_back(s.name);
  return names;
}

}  // namespace lmd::apps
