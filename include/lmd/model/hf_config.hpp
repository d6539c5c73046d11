/// \file  config.json and generation_config.json of a Hugging Face folder -> a checked ModelConfig.
///        Keys that matter are required: the defaults of the Python classes differ from every
///        released model.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/core/error.hpp>
#include <lmd/core/file.hpp>
#include <lmd/json/json.hpp>
#include <lmd/model/config.hpp>

#include <algorithm>
#include <initializer_list>
#include <map>
#include <string>
#include <string_view>
#include <vector>

namespace lmd::model {

enum class QuantMethod {
  kNone,
  kAwq,  ///< AutoAWQ's and LMDeploy's packed words ("gemm" version)
  kLmd,  ///< what `lmd convert` writes
};

/// How the tensors of one module are coded.
struct ModuleQuantization {
  int bits = 0;              ///< 4 or 8
  int group_size = 0;        ///< input features that share a scale
  bool has_minimum = false;  ///< w = scale * code + minimum ("affine"); else w = scale * code
};

/// What config.json says about quantised modules. Which modules are quantised is decided by the
/// tensors that are there.
struct QuantizationConfig {
  QuantMethod method = QuantMethod::kNone;
  ModuleQuantization all;                             ///< what holds where `modules` is silent
  std::map<std::string, ModuleQuantization> modules;  ///< kLmd: by name, without ".weight"
};

/// What a folder's JSON files say.
struct HfConfig {
  ModelConfig model;
  QuantizationConfig quantization;
  std::string torch_dtype;  ///< "bfloat16", as the file names it; empty where it does not
  std::string wrapper;      ///< "InternVLChatModel" where the decoder is part of one, else empty
};

inline constexpr const char* kSupportedArchitectures =
    "InternLM2ForCausalLM LlamaForCausalLM Qwen2ForCausalLM, and the language part of "
    "InternVLChatModel";

namespace detail {

/// The first (usually only) entry of "architectures".
inline std::string architecture_of(const json::Object& config) {
  const json::Json& names = config.array("architectures");
  LMD_REQUIRE(names.size() == 1 && names[0].is_string(), ErrorCode::kFormat,
              config.where() + ": architectures is " + json::shown(names) + ", expected one name");
  return names[0].get<std::string>();
}

/// \throws Error(kConfig) when `key` is there and not false.
inline void require_off(const json::Object& config, const char* key) {
  LMD_REQUIRE(!config.boolean_or(key, false), ErrorCode::kConfig,
              config.where() + ": " + key + " is true, which is not supported");
}

/// Reads `rope_theta` and `rope_scaling`, or `rope_parameters`, where newer files keep both.
inline RopeConfig read_rope(const json::Object& config) {
  constexpr double kMaxBase = 1e12;
  constexpr double kMaxFactor = 10000.0;
  RopeConfig rope;
  const bool is_joint = config.has("rope_parameters") && !config.has("rope_theta");
  rope.base = is_joint ? config.object("rope_parameters").number("rope_theta", 1.0, kMaxBase)
                       : config.number("rope_theta", 1.0, kMaxBase);
  const char* const key = is_joint ? "rope_parameters" : "rope_scaling";
  if (!config.has(key)) return rope;
  const json::Object scaling = config.object(key);
  const std::string type =
      scaling.has("rope_type") ? scaling.string("rope_type") : scaling.string("type");
  if (type == "default") return rope;
  LMD_REQUIRE(type == "dynamic" || type == "linear", ErrorCode::kConfig,
              scaling.where() + ": type " + json::shown(type) +
                  " is not supported; supported: null default dynamic linear");
  const double factor = scaling.number("factor", 1.0, kMaxFactor);
  if (type == "linear") {
    rope.linear_factor = factor;
  } else if (factor > 1.0) {  // at 1 the rule changes nothing
    rope.dynamic_factor = factor;
  }
  return rope;
}

/// Appends the ids under `eos_token_id`, a number or a list; absent is fine.
inline void append_eos(const json::Object& config, int vocab_size, std::vector<int>& ids) {
  if (!config.has("eos_token_id")) return;
  const json::Json& value = config.at("eos_token_id");
  constexpr std::size_t kMaxEosIds = 64;
  LMD_REQUIRE(!value.is_array() || value.size() <= kMaxEosIds, ErrorCode::kFormat,
              config.where() + ": eos_token_id lists " + std::to_string(value.size()) +
                  " ids, at most " + std::to_string(kMaxEosIds) + " are read");
  const json::Json list = value.is_array() ? value : json::Json::array({value});
  for (const json::Json& id : list) {
    const bool ok =
        id.is_number_unsigned() && id.get<std::uint64_t>() < static_cast<std::uint64_t>(vocab_size);
    LMD_REQUIRE(ok, ErrorCode::kFormat,
                config.where() + ": eos_token_id is " + json::shown(value) +
                    ", expected ids below the vocabulary's size " + std::to_string(vocab_size));
    if (std::find(ids.begin(), ids.end(), id.get<int>()) == ids.end()) ids.push_back(id.get<int>());
  }
}

/// What only one family's files say, and what lmd refuses of it.
inline void read_family(const json::Object& config, ModelConfig& model) {
  const std::string& name = model.architecture;
  if (name == "InternLM2ForCausalLM") {
    LMD_REQUIRE(!config.boolean("bias"), ErrorCode::kConfig,
                config.where() + ": bias is true, which no InternLM2 checkpoint has");
  } else if (name == "LlamaForCausalLM") {
    for (const char* key : {"attention_bias", "mlp_bias", "rope_interleaved"})
      require_off(config, key);
  } else if (name == "Qwen2ForCausalLM") {
    require_off(config, "use_sliding_window");
    model.has_qkv_bias = true;
  } else {
    throw Error(ErrorCode::kConfig, config.where() + ": architecture " + json::shown(name) +
                                        " is not supported; supported: " + kSupportedArchitectures);
  }
}

/// The sizes, each within limits that keep every product of them within 63 bits.
inline void read_sizes(const json::Object& config, ModelConfig& model) {
  const auto size = [&](const char* key, std::int64_t max) {
    return static_cast<int>(config.integer(key, 1, max));
  };
  model.hidden_size = size("hidden_size", 65536);
  model.intermediate_size = size("intermediate_size", 1 << 20);
  model.n_layers = size("num_hidden_layers", 512);
  model.n_heads = size("num_attention_heads", 1024);
  model.n_kv_heads = size("num_key_value_heads", 1024);
  model.vocab_size = size("vocab_size", 1'000'000);
  model.max_position = size("max_position_embeddings", 1 << 28);
  LMD_REQUIRE(model.n_heads % model.n_kv_heads == 0, ErrorCode::kFormat,
              config.where() + ": num_key_value_heads is " + std::to_string(model.n_kv_heads) +
                  ", expected a divisor of num_attention_heads " + std::to_string(model.n_heads));
  if (config.has("head_dim")) {
    model.head_dim = size("head_dim", 1024);
  } else {
    LMD_REQUIRE(model.hidden_size % model.n_heads == 0, ErrorCode::kFormat,
                config.where() + ": hidden_size " + std::to_string(model.hidden_size) +
                    " is not a multiple of num_attention_heads " + std::to_string(model.n_heads) +
                    ", and head_dim is missing");
    model.head_dim = model.hidden_size / model.n_heads;
  }
  LMD_REQUIRE(model.head_dim % 2 == 0, ErrorCode::kFormat,
              config.where() + ": head_dim is " + std::to_string(model.head_dim) +
                  ", expected an even number");
}

inline ModelConfig read_decoder(const json::Object& config) {
  ModelConfig model;
  model.architecture = architecture_of(config);
  read_family(config, model);
  read_sizes(config, model);
  const std::string& act = config.string("hidden_act");
  LMD_REQUIRE(
      act == "silu", ErrorCode::kConfig,
      config.where() + ": hidden_act " + json::shown(act) + " is not supported; supported: silu");
  LMD_REQUIRE(config.number_or("partial_rotary_factor", 0.0, 1.0, 1.0) == 1.0, ErrorCode::kConfig,
              config.where() + ": partial_rotary_factor is " +
                  json::shown(config.value()["partial_rotary_factor"]) + ", supported: 1");
  model.rms_eps = static_cast<float>(config.number("rms_norm_eps", 1e-12, 0.1));
  model.rope = read_rope(config);
  // Some writers leave the key out where it is true; the tensors that are there decide then.
  model.has_tied_head = config.boolean_or("tie_word_embeddings", true);
  model.bos_id = static_cast<int>(config.integer_or("bos_token_id", 0, model.vocab_size - 1, -1));
  append_eos(config, model.vocab_size, model.eos_ids);
  return model;
}

inline ModuleQuantization read_module_quantization(const json::Object& config) {
  ModuleQuantization q;
  q.bits = static_cast<int>(config.integer("bits", 4, 8));
  q.group_size = static_cast<int>(config.integer("group_size", 32, 32));
  const std::string& layout = config.string("layout");
  q.has_minimum = layout == "affine";
  const bool known = (q.bits == 4 && layout == "affine") || (q.bits == 8 && layout == "symmetric");
  LMD_REQUIRE(known, ErrorCode::kConfig,
              config.where() + ": " + std::to_string(q.bits) + " bits " + json::shown(layout) +
                  " is not supported; supported: 4 affine, 8 symmetric");
  return q;
}

inline QuantizationConfig read_awq(const json::Object& config) {
  std::string version = config.string("version");
  std::transform(version.begin(), version.end(), version.begin(),
                 [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c; });
  LMD_REQUIRE(
      version == "gemm", ErrorCode::kConfig,
      config.where() + ": version " + json::shown(version) + " is not supported; supported: gemm");
  LMD_REQUIRE(config.boolean_or("zero_point", true), ErrorCode::kConfig,
              config.where() + ": zero_point is false, supported: true");
  QuantizationConfig quantization;
  quantization.method = QuantMethod::kAwq;
  const auto bits = config.integer("bits", 1, 64);
  const auto group = config.integer("group_size", -1, 1 << 20);
  LMD_REQUIRE(bits == 4 && (group == 32 || group == 64 || group == 128), ErrorCode::kConfig,
              config.where() + ": " + std::to_string(bits) + " bits in groups of " +
                  std::to_string(group) + " are not supported; supported: 4 bits, groups of" +
                  " 32 64 128");
  quantization.all = {4, static_cast<int>(group), false};
  return quantization;
}

inline QuantizationConfig read_quantization(const json::Object& config) {
  if (!config.has("quantization_config")) return {};
  const json::Object q = config.object("quantization_config");
  const std::string& method = q.string("quant_method");
  if (method == "awq") return read_awq(q);
  LMD_REQUIRE(method == "lmd", ErrorCode::kConfig,
              q.where() + ": quant_method " + json::shown(method) +
                  " is not supported; supported: awq lmd");
  QuantizationConfig quantization;
  quantization.method = QuantMethod::kLmd;
  quantization.all = read_module_quantization(q);
  if (!q.has("modules")) return quantization;
  const json::Object modules = q.object("modules");
  for (const auto& [name, value] : modules.value().items()) {
    const json::Object module(value, modules.where() + ": " + json::shown(name));
    quantization.modules.emplace(name, read_module_quantization(module));
  }
  return quantization;
}

/// Ends of an answer that InternLM2's own chat code adds to what the files say.
inline void append_internlm2_ends(bool is_wrapped, ModelConfig& model) {
  constexpr int kImEnd = 92542;    // <|im_end|>
  constexpr int kImStart = 92543;  // <|im_start|>: InternVL2's template ends on it too
  if (model.architecture != "InternLM2ForCausalLM" || model.vocab_size <= kImStart) return;
  for (const int id : {2, kImEnd, kImStart}) {
    const bool wanted = id != kImStart || is_wrapped;
    const bool known =
        std::find(model.eos_ids.begin(), model.eos_ids.end(), id) != model.eos_ids.end();
    if (wanted && !known) model.eos_ids.push_back(id);
  }
}

/// What the weights were saved as. Newer files say `dtype`.
inline std::string read_torch_dtype(const json::Object& config) {
  for (const char* key : {"torch_dtype", "dtype"}) {
    if (config.has(key)) return config.string(key);
  }
  return {};
}

}  // namespace detail

/// Reads `config.json` and, where it is there, `generation_config.json` (ids that end an answer).
///
/// Errors:  \throws Error(kIo) when there is no config.json; Error(kFormat) for a missing key or a
///          value out of range; Error(kConfig) for what lmd does not support. Each names file, key,
///          value and what is expected.
[[nodiscard]] inline HfConfig read_config(const std::string& folder) {
  constexpr std::int64_t kMaxBytes = 16 << 20;
  const std::string path = folder + "/config.json";
  const json::Json root = json::parse_file(path, kMaxBytes);
  const json::Object top(root, path);
  HfConfig config;
  const bool is_wrapped = detail::architecture_of(top) == "InternVLChatModel";
  if (is_wrapped) config.wrapper = "InternVLChatModel";
  const json::Object decoder = is_wrapped ? top.object("llm_config") : top;
  config.model = detail::read_decoder(decoder);
  config.torch_dtype = detail::read_torch_dtype(decoder);
  if (config.torch_dtype.empty()) config.torch_dtype = detail::read_torch_dtype(top);
  // LMDeploy writes it at the top of a wrapped model, AutoAWQ into the language part.
  config.quantization =
      detail::read_quantization(decoder.has("quantization_config") ? decoder : top);
  const std::string generation_path = folder + "/generation_config.json";
  if (is_there(generation_path)) {
    const json::Json generation = json::parse_file(generation_path, kMaxBytes);
    detail::append_eos(json::Object(generation, generation_path), config.model.vocab_size,
                       config.model.eos_ids);
  }
  detail::append_internlm2_ends(is_wrapped, config.model);
  return config;
}

}  // namespace lmd::model
