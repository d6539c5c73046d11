/// \file  A Hugging Face folder's safetensors -> the tensors of a decoder in host memory.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/core/error.hpp>
#include <lmd/core/thread_pool.hpp>
#include <lmd/model/config.hpp>
#include <lmd/model/hf_config.hpp>
#include <lmd/model/safetensors.hpp>
#include <lmd/model/weight_source.hpp>
#include <lmd/model/weights.hpp>

#include <algorithm>
#include <climits>
#include <exception>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

namespace lmd::model {

namespace detail {

/// What a family calls its tensors. Names of a layer follow "model.layers.N.".
struct DecoderNames {
  std::string embedding, final_norm, head;
  std::string attention_norm, mlp_norm;
  std::vector<std::string> qkv;  ///< one module per part, or a single one that holds all
  std::string attention_out, gate, up, down;
};

inline DecoderNames decoder_names(const std::string& architecture) {
  if (architecture == "InternLM2ForCausalLM") {
    return {"model.tok_embeddings", "model.norm",      "output",
            "attention_norm",       "ffn_norm",        {"attention.wqkv"},
            "attention.wo",         "feed_forward.w1", "feed_forward.w3",
            "feed_forward.w2"};
  }
  return {"model.embed_tokens",
          "model.norm",
          "lm_head",
          "input_layernorm",
          "post_attention_layernorm",
          {"self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"},
          "self_attn.o_proj",
          "mlp.gate_proj",
          "mlp.up_proj",
          "mlp.down_proj"};
}

/// A Matrix to be: modules of one format whose rows follow one another.
struct MatrixPlan {
  std::vector<ModuleSource> parts;

  [[nodiscard]] int rows() const {
    int n = 0;
    for (const ModuleSource& part : parts)
      n += part.n;
    return n;
  }
  [[nodiscard]] MatrixShape shape() const {
    return {parts[0].format, rows(), parts[0].k, static_cast<bool>(parts[0].bias)};
  }
  /// As it will be held.
  [[nodiscard]] std::int64_t bytes() const { return held_bytes(shape()); }
};

struct LayerPlan {
  TensorRef attention_norm, mlp_norm;
  std::vector<MatrixPlan> qkv, gate_up;
  MatrixPlan attention_out, down;
};

struct DecoderPlan {
  MatrixPlan embedding;
  std::vector<LayerPlan> layers;
  TensorRef final_norm;
  std::optional<MatrixPlan> head;
  WeightShapes shapes;  ///< of everything
};

/// Rows of InternLM2's wqkv -> [Q; K; V]. The file holds, per KV head, its query heads, then the
/// key head, then the value head. Read as [Q; K; V] it gives fluent noise from the first token.
inline std::vector<RowRun> ungroup_qkv(const ModelConfig& config) {
  const int per_kv = config.n_heads / config.n_kv_heads;
  const int d = config.head_dim;
  std::vector<RowRun> runs;
  for (int kvh = 0; kvh < config.n_kv_heads; ++kvh) {
    const int first = kvh * (per_kv + 2) * d;
    runs.push_back({first, kvh * per_kv * d, per_kv * d});
    runs.push_back({first + per_kv * d, config.q_size() + kvh * d, d});
    runs.push_back({first + (per_kv + 1) * d, config.q_size() + config.kv_size() + kvh * d, d});
  }
  return runs;
}

/// Finds and checks every tensor before any is read.
class DecoderPlanner {
 public:
  DecoderPlanner(const SafetensorsModel& files,
                 const ModelConfig& config,
                 const QuantizationConfig& quantization)
      : files_(&files),
        config_(&config),
        quantization_(&quantization),
        names_(decoder_names(config.architecture)) {
    const std::string norm = names_.final_norm + ".weight";
    if (!files.find(norm) && files.find("language_model." + norm)) prefix_ = "language_model.";
  }

  [[nodiscard]] DecoderPlan plan() {
    const int hidden = config_->hidden_size;
    DecoderPlan plan;
    plan.embedding = matrix(prefix_ + names_.embedding, config_->vocab_size, hidden);
    for (int i = 0; i < config_->n_layers; ++i)
      plan.layers.push_back(layer(prefix_ + "model.layers." + std::to_string(i) + "."));
    plan.final_norm = norm(prefix_ + names_.final_norm);
    const std::string head = prefix_ + names_.head;
    const bool has_head = files_->find(head + ".weight") || files_->find(head + ".qweight");
    // Presence first: files are known to carry both a head and a flag that denies it.
    if (has_head || !config_->has_tied_head) plan.head = matrix(head, config_->vocab_size, hidden);
    plan.shapes = shapes_;
    return plan;
  }

 private:
  TensorRef norm(const std::string& module) {
    shapes_.norm_elements += config_->hidden_size;
    return plan_vector(*files_, module + ".weight", config_->hidden_size);
  }

  ModuleSource module(const std::string& name, int n, int k, bool has_bias) {
    ModuleSource source = plan_module(*files_, *quantization_, name, n, k);
    if (has_bias) {
      source.bias = plan_vector(*files_, name + ".bias", n);
    } else if (const TensorRef bias = files_->find(name + ".bias")) {
      throw Error(ErrorCode::kConfig,
                  bias.where() + ": a bias here is not supported for " + config_->architecture);
    }
    return source;
  }

  MatrixPlan matrix(const std::string& name, int n, int k) {
    return counted(MatrixPlan{{module(name, n, k, false)}});
  }

  MatrixPlan counted(MatrixPlan plan) {
    shapes_.matrices.push_back(plan.shape());
    return plan;
  }

  /// One matrix where the formats agree, else one for each part.
  std::vector<MatrixPlan> merged(std::vector<ModuleSource> parts) {
    bool agree = true;
    for (const ModuleSource& part : parts)
      agree = agree && part.format == parts[0].format;
    std::vector<MatrixPlan> plans;
    if (agree) {
      plans.push_back(counted(MatrixPlan{std::move(parts)}));
    } else {
      for (ModuleSource& part : parts)
        plans.push_back(counted(MatrixPlan{{std::move(part)}}));
    }
    return plans;
  }

  LayerPlan layer(const std::string& prefix) {
    const ModelConfig& c = *config_;
    LayerPlan plan;
    plan.attention_norm = norm(prefix + names_.attention_norm);
    std::vector<ModuleSource> qkv;
    if (names_.qkv.size() == 1) {
      qkv.push_back(module(prefix + names_.qkv[0], c.qkv_size(), c.hidden_size, c.has_qkv_bias));
      qkv[0].runs = ungroup_qkv(c);
    } else {
      const int rows[] = {c.q_size(), c.kv_size(), c.kv_size()};
      for (std::size_t i = 0; i < 3; ++i)
        qkv.push_back(module(prefix + names_.qkv[i], rows[i], c.hidden_size, c.has_qkv_bias));
    }
    plan.qkv = merged(std::move(qkv));
    plan.attention_out = matrix(prefix + names_.attention_out, c.hidden_size, c.q_size());
    plan.mlp_norm = norm(prefix + names_.mlp_norm);
    std::vector<ModuleSource> gate_up;
    for (const std::string& name : {names_.gate, names_.up})
      gate_up.push_back(module(prefix + name, c.intermediate_size, c.hidden_size, false));
    plan.gate_up = merged(std::move(gate_up));
    shapes_.has_split_gate = shapes_.has_split_gate || plan.gate_up.size() > 1;
    plan.down = matrix(prefix + names_.down, c.hidden_size, c.intermediate_size);
    return plan;
  }

  const SafetensorsModel* files_;
  const ModelConfig* config_;
  const QuantizationConfig* quantization_;
  DecoderNames names_;
  std::string prefix_;  ///< of a wrapped decoder's tensors
  WeightShapes shapes_;
};

[[nodiscard]] inline Matrix read_matrix(const MatrixPlan& plan, ReadScratch& scratch) {
  const ModuleSource& first = plan.parts[0];
  const WeightFormatFacts facts = weight_format_facts(first.format);
  Matrix to;
  to.format = first.format;
  to.n = plan.rows();
  to.k = first.k;
  to.codes = Buffer<std::uint8_t>(to.n * facts.code_bytes(to.k));
  to.params = Buffer<std::uint8_t>(to.n * facts.params_bytes(to.k));
  if (first.bias) to.bias = Buffer<float>(to.n);
  int row = 0;
  for (const ModuleSource& part : plan.parts) {
    read_module(part, scratch, to, row);
    row += part.n;
  }
  return to;
}

/// A matrix that is still to be read and its place.
struct ReadJob {
  const MatrixPlan* from = nullptr;
  Matrix* to = nullptr;
};

/// Reads all jobs on a few threads: most of the time goes into first touches of memory, which one
/// thread does at a fraction of the machine's speed. Calls `progress` from one thread at a time.
inline void read_jobs(const std::vector<ReadJob>& jobs,
                      std::int64_t done_bytes,
                      std::int64_t total_bytes,
                      const Progress& progress) {
  constexpr int kMostThreads = 4;
  const int available = static_cast<int>(std::thread::hardware_concurrency());
  ThreadPool pool(std::clamp(available, 1, kMostThreads));
  std::mutex mutex;
  std::exception_ptr failure;  // of the first job in order that failed, whoever was first in time
  int failed_job = INT_MAX;
  parallel_tasks(&pool, static_cast<int>(jobs.size()), [&](int i) {
    const ReadJob& job = jobs[static_cast<std::size_t>(i)];
    try {
      ReadScratch scratch;
      *job.to = read_matrix(*job.from, scratch);
      const std::lock_guard lock(mutex);
      done_bytes += job.from->bytes();
      if (progress && !failure) progress(done_bytes, total_bytes);
    } catch (...) {
      const std::lock_guard lock(mutex);
      if (i < failed_job) failure = std::current_exception();
      failed_job = std::min(i, failed_job);
    }
  });
  if (failure) std::rethrow_exception(failure);
}

}  // namespace detail

/// What `load_weights` would hold, from the headers alone. Checks what loading would check.
[[nodiscard]] inline WeightShapes read_weight_shapes(const std::string& folder,
                                                     const ModelConfig& config,
                                                     const QuantizationConfig& quantization) {
  const SafetensorsModel files(folder);
  return detail::DecoderPlanner(files, config, quantization).plan().shapes;
}

/// Reads all tensors of the decoder. Every shape is checked against `config` before the first byte
/// of data is read; memory peaks at the weights and one module for each of at most 4 threads.
///
/// Layout:  as DecoderWeights says; rows in PlainOrder.
/// Units:   progress in bytes as held; called from several threads, one at a time.
/// Errors:  \throws Error(kIo), Error(kFormat) naming file, tensor, what was found and expected;
///          Error(kConfig) for what is not supported; Error(kCapacity).
[[nodiscard]] inline DecoderWeights load_weights(const std::string& folder,
                                                 const ModelConfig& config,
                                                 const QuantizationConfig& quantization,
                                                 const Progress& progress = {}) {
  const SafetensorsModel files(folder);
  const detail::DecoderPlan plan = detail::DecoderPlanner(files, config, quantization).plan();
  DecoderWeights weights;
  std::vector<detail::ReadJob> jobs;
  std::int64_t matrix_bytes = 0;
  const auto add = [&](const detail::MatrixPlan& from, Matrix& to) {
    jobs.push_back({&from, &to});
    matrix_bytes += from.bytes();
  };
  const auto add_all = [&](const std::vector<detail::MatrixPlan>& from, std::vector<Matrix>& to) {
    to.resize(from.size());
    for (std::size_t i = 0; i < from.size(); ++i)
      add(from[i], to[i]);
  };
  add(plan.embedding, weights.embedding);
  weights.layers.resize(plan.layers.size());
  for (std::size_t i = 0; i < plan.layers.size(); ++i) {
    const detail::LayerPlan& from = plan.layers[i];
    LayerWeights& layer = weights.layers[i];
    layer.attention_norm = detail::read_vector(from.attention_norm);
    layer.mlp_norm = detail::read_vector(from.mlp_norm);
    add_all(from.qkv, layer.qkv);
    add(from.attention_out, layer.attention_out);
    add_all(from.gate_up, layer.gate_up);
    add(from.down, layer.down);
  }
  weights.final_norm = detail::read_vector(plan.final_norm);
  if (plan.head) add(*plan.head, weights.head);
  const std::int64_t bytes = held_bytes(plan.shapes);
  detail::read_jobs(jobs, bytes - matrix_bytes, bytes, progress);
  return weights;
}

}  // namespace lmd::model
