/// \file  What apps/runtime.hpp declares: the only translation unit in which numbers become kernels.
// SPDX-License-Identifier: Apache-2.0
#include "../runtime.hpp"

#include <lmd/engine/arrange.hpp>
#include <lmd/engine/make_ops.hpp>
#include <lmd/kernels/attention/step_cpu_extern.hpp>
#include <lmd/kernels/linear/linear_cpu_extern.hpp>
#include <lmd/text/chat_template_json.hpp>
#include <lmd/text/chat_templates.hpp>
#include <lmd/text/load_tokenizer.hpp>

#include <cstdlib>

#include "random_weights.hpp"
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

void require_cpu(const std::string& device) {
  LMD_REQUIRE(device != "cuda", ErrorCode::kConfig,
              "--device cuda: this build has no CUDA backend; use auto, cpu or host");
  LMD_REQUIRE(device == "auto" || device == "cpu" || device == "host", ErrorCode::kConfig,
              "--device " + device + " is unknown; known: auto cpu host cuda");
}

model::Ops<Cpu> make_ops(const RuntimeOptions& options, int head_dim) {
  if (options.device == "host") {
    return engine::make_host_ops(options.engine.quant_policy, head_dim);
  }
  return engine::make_cpu_ops(options.engine.quant_policy, head_dim, best_cpu_isa());
}

model::HfConfig read_model_config(const std::string& folder, const RuntimeOptions& options) {
  require_cpu(options.device);
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
                        std::int64_t weight_bytes) {
  return engine::plan_memory(m, options.engine, geometry_of(m, options.engine.quant_policy),
                             weight_bytes, engine::available_host_memory());
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

/// Everything that follows once the weights are there.
void start(Runtime& r,
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

template <quant::WeightFormat W>
constexpr int kFormat = model::format_index<W>();

/// Formats of the layers and of the tables.
std::pair<int, int> random_formats(const std::string& weights) {
  using namespace quant;
  if (weights == "w4") return {kFormat<WeightInt4<128>>, kFormat<WeightHalf>};
  if (weights == "w8") return {kFormat<WeightInt8<32>>, kFormat<WeightHalf>};
  if (weights == "f16") return {kFormat<WeightHalf>, kFormat<WeightHalf>};
  if (weights == "bf16") return {kFormat<WeightBFloat16>, kFormat<WeightBFloat16>};
  if (weights == "f32") return {kFormat<WeightFloat>, kFormat<WeightFloat>};
  throw Error(ErrorCode::kConfig,
              "--weights " + weights + " is unknown; known: w4 w8 f16 bf16 f32");
}

std::int64_t random_bytes(const model::ModelConfig& c, int layer_format, int table_format) {
  const auto row = [](int format, std::int64_t k) {
    const model::WeightFormatFacts facts = model::weight_format_facts(format);
    return facts.code_bytes(static_cast<int>(k)) + facts.params_bytes(static_cast<int>(k));
  };
  const std::int64_t layer = c.qkv_size() * row(layer_format, c.hidden_size) +
                             c.hidden_size * row(layer_format, c.q_size()) +
                             2 * c.intermediate_size * row(layer_format, c.hidden_size) +
                             c.hidden_size * row(layer_format, c.intermediate_size);
  const std::int64_t table = c.vocab_size * row(table_format, c.hidden_size);
  return c.n_layers * layer + (c.has_tied_head ? 1 : 2) * table;
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
  const std::string stored = models_folder() + "/" + name_or_path;
  const bool is_name = !name_or_path.empty() && name_or_path.find("..") == std::string::npos;
  if (is_name && is_folder(stored)) return stored;
  throw Error(ErrorCode::kIo,
              "model " + name_or_path + ": there is no such folder, and no " + stored);
}

engine::MemoryPlan plan_model(const std::string& folder, const RuntimeOptions& options) {
  const model::HfConfig config = read_model_config(folder, options);
  return plan(config.model, options,
              model::count_weight_bytes(folder, config.model, config.quantization));
}

Runtime load_model(const std::string& folder,
                   const RuntimeOptions& options,
                   const model::Progress& progress) {
  Runtime r;
  r.folder = folder;
  r.config = read_model_config(folder, options);
  const engine::MemoryPlan memory =
      plan(r.config.model, options,
           model::count_weight_bytes(folder, r.config.model, r.config.quantization));
  const bool has_tokenizer =
      is_file(folder + "/tokenizer.json") || is_file(folder + "/tokenizer.model");
  if (has_tokenizer || options.needs_tokenizer) r.tokenizer = text::load_tokenizer(folder);
  r.chat_template = choose_template(r, options);
  r.threads = make_threads(options);
  start(r, model::load_weights(folder, r.config.model, r.config.quantization, progress), options,
        memory);
  return r;
}

Runtime make_random_model(const std::string& shape,
                          const std::string& weights,
                          const RuntimeOptions& options,
                          const model::Progress& progress) {
  require_cpu(options.device);
  const auto [layer_format, table_format] = random_formats(weights);
  Runtime r;
  r.folder = shape;
  r.config.model = shape_config(shape);
  const std::int64_t bytes = random_bytes(r.config.model, layer_format, table_format);
  const engine::MemoryPlan memory = plan(r.config.model, options, bytes);
  r.threads = make_threads(options);
  RandomWeights random(r.threads.get(), progress, bytes);
  start(r, random_decoder(r.config.model, layer_format, table_format, random), options, memory);
  return r;
}

std::vector<std::string> known_shapes() {
  std::vector<std::string> names;
  for (const NamedShape& s : kShapes)
    names.emplace_back(s.name);
  return names;
}

}  // namespace lmd::apps
