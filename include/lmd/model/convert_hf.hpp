/// \file  A Hugging Face folder -> the same model in another floating-point type.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/core/error.hpp>
#include <lmd/core/shown_name.hpp>
#include <lmd/json/json.hpp>
#include <lmd/model/convert.hpp>
#include <lmd/model/hf_config.hpp>
#include <lmd/model/load_weights.hpp>
#include <lmd/model/new_folder.hpp>
#include <lmd/model/safetensors.hpp>
#include <lmd/model/weight_source.hpp>
#include <lmd/quant/weight_layout.hpp>

#include <algorithm>
#include <filesystem>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace lmd::model {

namespace detail {

/// One row of a matrix as floats: to [k].
inline void decode_row(const Matrix& from, int row, float* to) {
  int i = 0;
  for_each_type(quant::WeightFormats{}, [&](auto t) {
    using W = typename decltype(t)::type;
    if (i++ != from.format) return;
    const quant::RowWeights<W> rows{from.codes.data(),
                                    reinterpret_cast<const typename W::Params*>(from.params.data()),
                                    from.k, from.n};
    for (int l = 0; l < from.k; ++l)
      to[l] = rows.weight(row, l);
  });
}

/// A tensor that will be written: one that is copied or cast, or a quantised module.
struct HfItem {
  TensorRef tensor;     ///< `weight`, or the module's `qweight`
  std::string module;   ///< non-empty: quantised
  ModuleSource source;  ///< of a quantised module
  TensorSpec to;
};

/// The sizes of a quantised module follow from its codes, since any module may be one.
inline ModuleSource plan_quantised(const SafetensorsModel& files,
                                   const QuantizationConfig& quantization,
                                   const TensorRef& qweight,
                                   const std::string& module) {
  const Shape& shape = qweight.entry->shape;
  constexpr std::int64_t kMaxFeatures = 1 << 24;
  const bool fits = shape.size() == 2 && std::max(shape[0], shape[1]) <= kMaxFeatures &&
                    std::min(shape[0], shape[1]) > 0;
  LMD_REQUIRE(fits, ErrorCode::kFormat,
              qweight.where() + ": shape is " + to_string(shape) +
                  ", expected two sizes from 1 to " + std::to_string(kMaxFeatures));
  const auto rows = static_cast<int>(shape[0]);
  const auto columns = static_cast<int>(shape[1]);
  if (qweight.entry->dtype == DType::kI32)
    return plan_module(files, quantization, module, 8 * columns, rows);
  const int per_byte = qweight.entry->dtype == DType::kU8 ? 2 : 1;
  return plan_module(files, quantization, module, rows, per_byte * columns);
}

inline std::vector<HfItem> plan_cast(const SafetensorsModel& files,
                                     const QuantizationConfig& quantization,
                                     DType dtype) {
  constexpr std::string_view kQweight = ".qweight";
  std::vector<HfItem> items;
  for (const auto& [name, tensor] : files.tensors()) {
    const auto dot = name.rfind('.');
    const std::string module = name.substr(0, dot == std::string::npos ? 0 : dot);
    HfItem item{tensor, "", {}, {name, tensor.entry->dtype, tensor.entry->shape}};
    if (std::string_view(name).ends_with(kQweight)) {
      item.module = module;
      item.source = plan_quantised(files, quantization, tensor, module);
      item.to = {module + ".weight", dtype, {item.source.n, item.source.k}};
    } else if (files.find(module + ".qweight") && name != module + ".bias") {
      continue;  // scales and zeros go into the weight
    } else if (is_weight_float(tensor.entry->dtype)) {
      item.to.dtype = dtype;
    }
    items.push_back(std::move(item));
  }
  return items;
}

/// Writes floats of one tensor in another type.
class CastWriter {
 public:
  CastWriter(const HfItem& item, SafetensorsWriter& out) : item_(&item), out_(&out) {}

  void write(const float* values, std::int64_t n) {
    cast_.resize(static_cast<std::size_t>(n * bytes_of(item_->to.dtype)));
    const std::int64_t overflow = from_floats(item_->to.dtype, values, n, cast_.data());
    LMD_REQUIRE(overflow < 0, ErrorCode::kFormat,
                item_->tensor.where() + ": " + std::to_string(values[overflow]) +
                    " is too large for " + torch_dtype_name(item_->to.dtype) +
                    "; convert with dtype bfloat16 or float32");
    out_->write(item_->to.name, cast_.data(), static_cast<std::int64_t>(cast_.size()));
  }

 private:
  const HfItem* item_;
  SafetensorsWriter* out_;
  std::vector<std::uint8_t> cast_;
};

inline void write_cast(const HfItem& item, SafetensorsWriter& out) {
  constexpr std::int64_t kChunk = 1 << 18;  // elements: keeps memory small for any tensor
  CastWriter writer(item, out);
  if (!item.module.empty()) {
    ReadScratch scratch;
    const Matrix matrix = read_matrix(MatrixPlan{{item.source}}, scratch);
    std::vector<float> row(static_cast<std::size_t>(matrix.k));
    for (int j = 0; j < matrix.n; ++j) {
      decode_row(matrix, j, row.data());
      writer.write(row.data(), matrix.k);
    }
    return;
  }
  const TensorEntry& from = *item.tensor.entry;
  const int element = bytes_of(from.dtype);
  const std::int64_t n = from.bytes / element;
  std::vector<std::uint8_t> stored(static_cast<std::size_t>(std::min(kChunk, n) * element));
  std::vector<float> values(static_cast<std::size_t>(std::min(kChunk, n)));
  for (std::int64_t at = 0; at < n; at += kChunk) {
    const std::int64_t count = std::min(kChunk, n - at);
    item.tensor.read(at * element, stored.data(), count * element);
    if (item.to.dtype == from.dtype) {
      out.write(item.to.name, stored.data(), count * element);
    } else {
      to_floats(from.dtype, stored.data(), count, values.data());
      writer.write(values.data(), count);
    }
  }
}

/// The configuration without quantisation, naming the new type.
inline json::Json cast_config(const std::string& folder, DType dtype) {
  json::Json config = json::parse_file(folder + "/config.json");
  const auto change = [&](json::Json& part) {
    part.erase("quantization_config");
    part.erase("dtype");
    part["torch_dtype"] = torch_dtype_name(dtype);
  };
  change(config);
  if (config.contains("llm_config") && config["llm_config"].is_object())
    change(config["llm_config"]);
  return config;
}

/// Tokenizer and other small files go along; weights in any form do not.
inline void copy_small_files(const std::string& from, const std::string& to) {
  constexpr std::string_view kKept[] = {".json", ".model", ".txt", ".jinja", ".py", ".md"};
  std::error_code error;
  const std::filesystem::directory_iterator entries(from, error);
  LMD_REQUIRE(!error, ErrorCode::kIo, from + ": " + error.message());
  for (const auto& entry : entries) {
    const std::string name = entry.path().filename().string();
    const std::string extension = entry.path().extension().string();
    const bool is_kept =
        std::find(std::begin(kKept), std::end(kKept), extension) != std::end(kKept);
    if (!entry.is_regular_file(error) || !is_kept || name == "config.json") continue;
    if (name.ends_with(".index.json")) continue;
    std::filesystem::copy_file(entry.path(), to + "/" + name, error);
    LMD_REQUIRE(!error, ErrorCode::kIo, to + "/" + shown_name(name) + ": " + error.message());
  }
}

}  // namespace detail

/// Writes the model of `folder` to `out_folder` with every float tensor and every quantised module
/// as `dtype` (F32, F16 or BF16), and with its tokenizer files.
///
/// Units:   progress in bytes written.
/// Errors:  as convert_gguf.
inline void convert_hf(const std::string& folder,
                       const std::string& out_folder,
                       DType dtype,
                       const Progress& progress = {}) {
  LMD_REQUIRE(is_weight_float(dtype), ErrorCode::kConfig,
              std::string("dtype ") + name_of(dtype) + " is not one to convert to: F32 F16 BF16");
  const HfConfig config = read_config(folder);
  const SafetensorsModel files(folder);
  const std::vector<detail::HfItem> items = detail::plan_cast(files, config.quantization, dtype);
  NewFolder to(out_folder);
  detail::write_json(to.partial_path() + "/config.json", detail::cast_config(folder, dtype));
  detail::copy_small_files(folder, to.partial_path());
  std::vector<TensorSpec> specs;
  specs.reserve(items.size());
  for (const detail::HfItem& item : items)
    specs.push_back(item.to);
  SafetensorsWriter out(to.partial_path() + "/model.safetensors", std::move(specs));
  for (const detail::HfItem& item : items) {
    detail::write_cast(item, out);
    if (progress) progress(out.bytes_done(), out.bytes_total());
  }
  out.commit();
  to.commit();
}

}  // namespace lmd::model
