/// \file  A GGUF file -> a Hugging Face style folder that keeps the file's own codes.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/core/config.hpp>
#include <lmd/core/error.hpp>
#include <lmd/core/file.hpp>
#include <lmd/core/shown_name.hpp>
#include <lmd/json/json.hpp>
#include <lmd/model/dtype.hpp>
#include <lmd/model/gguf.hpp>
#include <lmd/model/gguf_decoder.hpp>
#include <lmd/model/new_folder.hpp>
#include <lmd/model/safetensors.hpp>

#include <charconv>
#include <functional>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace lmd::model {

struct ConvertOptions {
  /// F16, BF16 or F32: every weight becomes that. Empty: codes stay as they are where lmd has their
  /// format (Q4_1, Q8_0, Q4_0, F32, F16, BF16), the rest becomes F16.
  std::optional<DType> dtype;
};

/// Writes tokenizer files into a folder. The text layer implements it.
using TokenizerWriter =
    std::function<void(const GgufTokenizer& tokenizer, const std::string& folder)>;

/// The dtype that a command line names: "keep" is empty.
/// \throws Error(kConfig) for another word.
[[nodiscard]] inline std::optional<DType> convert_dtype_named(std::string_view name) {
  if (name == "keep") return std::nullopt;
  if (name == "float16") return DType::kF16;
  if (name == "bfloat16") return DType::kBF16;
  if (name == "float32") return DType::kF32;
  throw Error(ErrorCode::kConfig,
              "dtype " + shown_name(name) + " is unknown; known: keep float16 bfloat16 float32");
}

/// As config.json spells it.
[[nodiscard]] inline const char* torch_dtype_name(DType dtype) {
  if (dtype == DType::kF32) return "float32";
  return dtype == DType::kF16 ? "float16" : "bfloat16";
}

namespace detail {

enum class Storage {
  kFloat,    ///< one tensor `weight`
  kAffine4,  ///< `qweight` U8, `scales`, `mins`: w = scale * code + minimum, groups of 32
  kInt8,     ///< `qweight` I8, `scales`: w = scale * code, groups of 32
};

/// A tensor of the file and how it will be stored.
struct ConvertItem {
  const GgufTensor* tensor = nullptr;
  std::string gguf_name;
  std::string module;             ///< Hugging Face name without suffix
  std::string suffix = "weight";  ///< of a float
  Storage storage = Storage::kFloat;
  DType dtype = DType::kF16;  ///< of a float
  int rope_heads = 0;         ///< > 0: rows go back from adjacent pairs to halves
};

inline std::optional<DType> float_type(GgufType type) {
  if (type == GgufType::kF32) return DType::kF32;
  if (type == GgufType::kF16) return DType::kF16;
  if (type == GgufType::kBF16) return DType::kBF16;
  return std::nullopt;
}

inline std::vector<std::uint8_t> read_tensor(const GgufFile& file, const GgufTensor& tensor) {
  std::vector<std::uint8_t> bytes(static_cast<std::size_t>(tensor.bytes));
  file.read(tensor, 0, bytes.data(), tensor.bytes);
  return bytes;
}

/// Minimum of an affine group that means the same as a Q4_0 scale: w = d * code - 8 d.
inline Half q4_0_minimum(Half scale) {
  return to_half(-8.0f * to_float(scale));
}

/// Whether -8 d is a half for every block, so that Q4_0 is affine without rounding.
inline bool is_affine_q4_0(const std::vector<std::uint8_t>& bytes) {
  const int block = facts_of(GgufType::kQ4_0).block_bytes;
  for (std::size_t at = 0; at < bytes.size(); at += static_cast<std::size_t>(block)) {
    const float wanted = -8.0f * half_at(&bytes[at]);
    if (to_float(to_half(wanted)) != wanted) return false;
  }
  return true;
}

inline void choose_storage(const GgufFile& file,
                           const std::optional<DType>& dtype,
                           ConvertItem& item) {
  const std::optional<DType> own = float_type(item.tensor->type);
  item.dtype = dtype ? *dtype : own ? *own : DType::kF16;
  if (dtype || item.tensor->shape.size() != 2) return;
  const GgufType type = item.tensor->type;
  if (type == GgufType::kQ8_0) item.storage = Storage::kInt8;
  if (type == GgufType::kQ4_1) item.storage = Storage::kAffine4;
  if (type == GgufType::kQ4_0 && is_affine_q4_0(read_tensor(file, *item.tensor)))
    item.storage = Storage::kAffine4;
}

/// Everything that will be written. \throws Error for a tensor that is missing, misshapen or of no
/// use: what cannot be used would change the model's answers.
inline std::vector<ConvertItem> plan_conversion(const GgufFile& file,
                                                const ModelConfig& config,
                                                const ConvertOptions& options) {
  std::vector<ConvertItem> items;
  std::set<std::string, std::less<>> used;
  const auto add = [&](const ModuleName& name, const char* suffix, const Shape& shape) {
    ConvertItem item;
    item.gguf_name = name.gguf + "." + suffix;
    item.tensor = &gguf_tensor(file, item.gguf_name, shape);
    item.module = name.hf;
    item.suffix = suffix;
    item.rope_heads = name.rope_heads;
    choose_storage(file, options.dtype, item);
    used.insert(item.gguf_name);
    items.push_back(std::move(item));
  };
  for (const ModuleName& name : gguf_modules(config)) {
    const Shape shape = module_shape(config, name.gguf);
    add(name, "weight", shape);
    const bool is_qkv = name.gguf.ends_with("attn_q") || name.gguf.ends_with("attn_k") ||
                        name.gguf.ends_with("attn_v");
    if (is_qkv && config.has_qkv_bias) add(name, "bias", {shape[0]});
  }
  for (const std::string& name : file.tensor_names()) {
    LMD_REQUIRE(used.contains(name), ErrorCode::kConfig,
                file.path() + ": tensor " + shown_name(name) + " has no place in " +
                    config.architecture + " and cannot be converted");
  }
  return items;
}

inline std::vector<TensorSpec> tensor_specs(const std::vector<ConvertItem>& items) {
  std::vector<TensorSpec> specs;
  for (const ConvertItem& item : items) {
    const Shape& shape = item.tensor->shape;
    if (item.storage == Storage::kFloat) {
      specs.push_back({item.module + "." + item.suffix, item.dtype, shape});
      continue;
    }
    const bool is_affine = item.storage == Storage::kAffine4;
    const Shape codes = {shape[0], is_affine ? shape[1] / 2 : shape[1]};
    const Shape groups = {shape[0], shape[1] / 32};
    specs.push_back({item.module + ".qweight", is_affine ? DType::kU8 : DType::kI8, codes});
    specs.push_back({item.module + ".scales", DType::kF16, groups});
    if (is_affine) specs.push_back({item.module + ".mins", DType::kF16, groups});
  }
  return specs;
}

/// Writes one item's tensors; rows in Hugging Face order.
class ItemWriter {
 public:
  ItemWriter(const GgufFile& file, const ConvertItem& item, SafetensorsWriter& out)
      : file_(&file),
        item_(&item),
        out_(&out),
        bytes_(read_tensor(file, *item.tensor)),
        blocks_(item.tensor->columns() / facts_of(item.tensor->type).block_elements) {}

  void write() {
    if (item_->storage == Storage::kFloat) {
      write_floats();
      return;
    }
    const int offset = item_->tensor->type == GgufType::kQ4_1 ? 4 : 2;
    if (item_->storage == Storage::kAffine4) {
      write_blocks(".qweight", 16, [offset](const std::uint8_t* block, std::uint8_t* to) {
        for (int b = 0; b < 16; ++b) {
          to[b] = static_cast<std::uint8_t>(code4(block + offset, 2 * b) |
                                            code4(block + offset, 2 * b + 1) << 4);
        }
      });
    } else {
      write_blocks(".qweight", 32, [offset](const std::uint8_t* block, std::uint8_t* to) {
        std::memcpy(to, block + offset, 32);
      });
    }
    write_blocks(".scales", 2,
                 [](const std::uint8_t* block, std::uint8_t* to) { std::memcpy(to, block, 2); });
    if (item_->storage == Storage::kAffine4) write_minima();
  }

 private:
  /// Element j of a block whose nibbles pair j with j + 16.
  static int code4(const std::uint8_t* nibbles, int j) {
    return j < 16 ? nibbles[j] & 15 : nibbles[j - 16] >> 4;
  }

  /// The stored row that becomes row r.
  [[nodiscard]] const std::uint8_t* row(std::int64_t r) const {
    if (item_->rope_heads > 0) {
      const std::int64_t n =
          item_->suffix == "bias" ? item_->tensor->columns() : item_->tensor->rows();
      r = gguf_row(r, static_cast<int>(n / item_->rope_heads));
    }
    return bytes_.data() + r * item_->tensor->row_bytes();
  }

  /// `to_bytes` of every block, made by `f(block, to)`.
  template <class F>
  void write_blocks(const char* suffix, int to_bytes, F&& f) {
    const int block_bytes = facts_of(item_->tensor->type).block_bytes;
    std::vector<std::uint8_t> to(static_cast<std::size_t>(blocks_ * to_bytes));
    for (std::int64_t r = 0; r < item_->tensor->rows(); ++r) {
      const std::uint8_t* const from = row(r);
      for (std::int64_t b = 0; b < blocks_; ++b)
        f(from + b * block_bytes, to.data() + b * to_bytes);
      out_->write(item_->module + suffix, to.data(), blocks_ * to_bytes);
    }
  }

  void write_minima() {
    const bool is_stored = item_->tensor->type == GgufType::kQ4_1;
    write_blocks(".mins", 2, [is_stored](const std::uint8_t* block, std::uint8_t* to) {
      if (is_stored) {
        std::memcpy(to, block + 2, 2);
      } else {
        Half scale;
        std::memcpy(&scale, block, sizeof scale);
        const Half minimum = q4_0_minimum(scale);
        std::memcpy(to, &minimum, sizeof minimum);
      }
    });
  }

  void write_floats() {
    const GgufTensor& tensor = *item_->tensor;
    const std::string name = item_->module + "." + item_->suffix;
    const bool as_is = float_type(tensor.type) == item_->dtype;
    const std::int64_t n = tensor.columns();
    std::vector<float> values(static_cast<std::size_t>(n));
    std::vector<std::uint8_t> to(static_cast<std::size_t>(n * bytes_of(item_->dtype)));
    for (std::int64_t r = 0; r < tensor.rows(); ++r) {
      if (as_is) {
        out_->write(name, row(r), tensor.row_bytes());
        continue;
      }
      dequantise(tensor.type, row(r), n, values.data());
      const std::int64_t overflow = from_floats(item_->dtype, values.data(), n, to.data());
      LMD_REQUIRE(overflow < 0, ErrorCode::kFormat,
                  file_->path() + ": tensor " + shown_name(item_->gguf_name) + ": " +
                      std::to_string(values[static_cast<std::size_t>(overflow)]) +
                      " is too large for " + torch_dtype_name(item_->dtype) +
                      "; convert with dtype bfloat16 or float32");
      out_->write(name, to.data(), static_cast<std::int64_t>(to.size()));
    }
  }

  const GgufFile* file_;
  const ConvertItem* item_;
  SafetensorsWriter* out_;
  std::vector<std::uint8_t> bytes_;
  std::int64_t blocks_;  ///< of a row
};

/// The double that prints as the float does: 1e-05, not 9.99999974e-06.
inline double as_printed(float x) {
  char text[32];
  const char* const end = std::to_chars(text, text + sizeof text, x).ptr;
  double value = 0.0;
  std::from_chars(text, end, value);
  return value;
}

inline json::Json quantization_json(const std::vector<ConvertItem>& items) {
  json::Json modules = json::Json::object();
  std::size_t n_affine = 0;
  const json::Json affine = {{"bits", 4}, {"group_size", 32}, {"layout", "affine"}};
  const json::Json symmetric = {{"bits", 8}, {"group_size", 32}, {"layout", "symmetric"}};
  for (const ConvertItem& item : items) {
    if (item.storage == Storage::kFloat) continue;
    const bool is_affine = item.storage == Storage::kAffine4;
    modules[item.module] = is_affine ? affine : symmetric;
    n_affine += is_affine ? 1 : 0;
  }
  if (modules.empty()) return nullptr;
  json::Json quantization = 2 * n_affine >= modules.size() ? affine : symmetric;
  quantization["quant_method"] = "lmd";
  quantization["modules"] = std::move(modules);
  return quantization;
}

/// What every decoder's config.json says of its shape.
inline json::Json shape_json(const ModelConfig& c, const char* model_type, DType dtype) {
  return {{"architectures", {c.architecture}},
          {"model_type", model_type},
          {"hidden_act", "silu"},
          {"hidden_size", c.hidden_size},
          {"intermediate_size", c.intermediate_size},
          {"num_hidden_layers", c.n_layers},
          {"num_attention_heads", c.n_heads},
          {"num_key_value_heads", c.n_kv_heads},
          {"vocab_size", c.vocab_size},
          {"max_position_embeddings", c.max_position},
          {"rms_norm_eps", as_printed(c.rms_eps)},
          {"rope_theta", c.rope.base},
          {"rope_scaling", nullptr},
          {"tie_word_embeddings", c.has_tied_head},
          {"torch_dtype", torch_dtype_name(dtype)},
          {"lmd_version", kVersion}};
}

inline json::Json config_json(const ModelConfig& c, const std::vector<ConvertItem>& items) {
  const bool is_llama = c.architecture == "LlamaForCausalLM";
  const DType dtype = items.at(0).storage == Storage::kFloat ? items[0].dtype : DType::kF16;
  json::Json j = shape_json(c, is_llama ? "llama" : "qwen2", dtype);
  j["head_dim"] = c.head_dim;
  if (c.rope.linear_factor != 1.0)
    j["rope_scaling"] = {{"type", "linear"}, {"factor", c.rope.linear_factor}};
  if (is_llama) {
    j["attention_bias"] = false;
    j["mlp_bias"] = false;
  } else {
    j["use_sliding_window"] = false;
  }
  if (c.bos_id >= 0) j["bos_token_id"] = c.bos_id;
  if (!c.eos_ids.empty()) j["eos_token_id"] = c.eos_ids[0];
  json::Json quantization = quantization_json(items);
  if (!quantization.is_null()) j["quantization_config"] = std::move(quantization);
  return j;
}

inline void write_json(const std::string& path, const json::Json& value) {
  NewFile out(path);
  out.write(value.dump(2, ' ', false, json::Json::error_handler_t::replace) + "\n");
  out.commit();
}

inline json::Json generation_json(const GgufFile& file, const ModelConfig& c) {
  json::Json j = json::Json::object();
  const int pad = gguf_token_id(file, "padding_token_id", c.vocab_size);
  if (c.bos_id >= 0) j["bos_token_id"] = c.bos_id;
  if (!c.eos_ids.empty()) j["eos_token_id"] = c.eos_ids;
  if (pad >= 0) j["pad_token_id"] = pad;
  return j;
}

/// Writers of tokenizers do not know which file they refuse.
inline void write_tokenizer_of(const GgufFile& file,
                               int vocab_size,
                               const TokenizerWriter& write,
                               const std::string& folder) {
  const GgufTokenizer tokenizer = read_gguf_tokenizer(file, vocab_size);
  try {
    write(tokenizer, folder);
  } catch (const Error& e) {
    if (e.code() == ErrorCode::kIo) throw;
    throw Error(e.code(), file.path() + ": " + e.what());
  }
}

}  // namespace detail

/// Writes config.json, generation_config.json, model.safetensors and, through `write_tokenizer`
/// (may be empty), the tokenizer's files.
///
/// Layout:  q and k rows go back to rotate-half order; whole rows move, codes stay. 4-bit codes are
///          re-paired from (j, j + 16) to (2j, 2j + 1).
/// Units:   progress in bytes written.
/// Errors:  \throws Error(kConfig) for an architecture or tensor that is not supported, or an
///          `out_folder` that is not free; Error(kFormat), Error(kIo). Nothing stays behind then.
inline void convert_gguf(const std::string& path,
                         const std::string& out_folder,
                         const ConvertOptions& options,
                         const TokenizerWriter& write_tokenizer = {},
                         const Progress& progress = {}) {
  const GgufFile file(path);
  const ModelConfig config = detail::read_gguf_config(file);
  const std::vector<detail::ConvertItem> items = detail::plan_conversion(file, config, options);
  NewFolder folder(out_folder);
  const std::string& to = folder.partial_path();
  detail::write_json(to + "/config.json", detail::config_json(config, items));
  detail::write_json(to + "/generation_config.json", detail::generation_json(file, config));
  if (write_tokenizer) detail::write_tokenizer_of(file, config.vocab_size, write_tokenizer, to);
  SafetensorsWriter out(to + "/model.safetensors", detail::tensor_specs(items));
  for (const detail::ConvertItem& item : items) {
    detail::ItemWriter(file, item, out).write();
    if (progress) progress(out.bytes_done(), out.bytes_total());
  }
  out.commit();
  folder.commit();
}

}  // namespace lmd::model
