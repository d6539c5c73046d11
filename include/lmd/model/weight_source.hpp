/// \file  One linear layer of a checkpoint: which tensors hold it, in which format, and how its
///        rows come into a Matrix.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/core/buffer.hpp>
#include <lmd/core/error.hpp>
#include <lmd/model/hf_config.hpp>
#include <lmd/model/safetensors.hpp>
#include <lmd/model/weight_shapes.hpp>
#include <lmd/model/weights.hpp>
#include <lmd/quant/awq_checkpoint.hpp>
#include <lmd/quant/weight_format.hpp>

#include <array>
#include <cstdint>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

namespace lmd::model {

namespace detail {

/// `n` neighbouring rows of a stored module and where they go.
struct RowRun {
  int from = 0;
  int to = 0;
  int n = 0;
};

/// The checked tensors of one module [n out, k in]; nothing is read yet.
struct ModuleSource {
  int format = -1;
  int n = 0;
  int k = 0;
  TensorRef codes;           ///< `weight` or `qweight`
  TensorRef scales;          ///< quantised formats
  TensorRef zeros;           ///< awq: qzeros; affine: mins
  TensorRef bias;            ///< [n] or empty
  std::vector<RowRun> runs;  ///< all n rows, in another order where the family asks for it
};

inline void require_shape(const TensorRef& tensor, const Shape& expected) {
  LMD_REQUIRE(tensor.entry->shape == expected, ErrorCode::kFormat,
              tensor.where() + ": shape is " + to_string(tensor.entry->shape) + ", expected " +
                  to_string(expected));
}

inline void require_dtype(const TensorRef& tensor, DType expected) {
  LMD_REQUIRE(tensor.entry->dtype == expected, ErrorCode::kFormat,
              tensor.where() + ": dtype is " + name_of(tensor.entry->dtype) + ", expected " +
                  name_of(expected));
}

inline void require_float(const TensorRef& tensor) {
  LMD_REQUIRE(is_weight_float(tensor.entry->dtype), ErrorCode::kFormat,
              tensor.where() + ": dtype is " + name_of(tensor.entry->dtype) +
                  ", expected F32, F16 or BF16");
}

/// A vector [n] of any float type.
inline TensorRef plan_vector(const SafetensorsModel& files, const std::string& name, int n) {
  TensorRef tensor = files.at(name);
  require_float(tensor);
  require_shape(tensor, {n});
  return tensor;
}

inline Buffer<float> read_vector(const TensorRef& tensor) {
  Buffer<std::uint8_t> stored(tensor.entry->bytes);
  tensor.read(stored.data());
  Buffer<float> values(tensor.entry->shape.at(0));
  to_floats(tensor.entry->dtype, stored.data(), values.size(), values.data());
  return values;
}

inline int float_format(DType dtype) {
  if (dtype == DType::kF32) return format_index<quant::WeightFloat>();
  if (dtype == DType::kF16) return format_index<quant::WeightHalf>();
  return format_index<quant::WeightBFloat16>();
}

inline int awq_format(int group_size) {
  if (group_size == 32) return format_index<quant::WeightInt4<32>>();
  if (group_size == 64) return format_index<quant::WeightInt4<64>>();
  return format_index<quant::WeightInt4<128>>();
}

/// \throws Error(kFormat) unless k splits into whole groups.
inline void require_groups(const TensorRef& qweight, int k, int group_size) {
  LMD_REQUIRE(k % group_size == 0, ErrorCode::kFormat,
              qweight.where() + ": " + std::to_string(k) + " input features are not a multiple" +
                  " of the group size " + std::to_string(group_size));
}

inline void plan_awq(const SafetensorsModel& files,
                     const std::string& module,
                     int group_size,
                     ModuleSource& source) {
  require_groups(source.codes, source.k, group_size);
  LMD_REQUIRE(source.n % 8 == 0, ErrorCode::kFormat,
              source.codes.where() + ": " + std::to_string(source.n) +
                  " output features are not a multiple of 8");
  source.format = awq_format(group_size);
  source.scales = files.at(module + ".scales");
  source.zeros = files.at(module + ".qzeros");
  const std::int64_t groups = source.k / group_size;
  require_dtype(source.codes, DType::kI32);
  require_shape(source.codes, {source.k, source.n / 8});
  require_dtype(source.zeros, DType::kI32);
  require_shape(source.zeros, {groups, source.n / 8});
  require_float(source.scales);
  require_shape(source.scales, {groups, source.n});
}

inline void plan_lmd(const SafetensorsModel& files,
                     const std::string& module,
                     const ModuleQuantization& quantization,
                     ModuleSource& source) {
  require_groups(source.codes, source.k, quantization.group_size);
  const std::int64_t groups = source.k / quantization.group_size;
  source.scales = files.at(module + ".scales");
  require_dtype(source.scales, DType::kF16);
  require_shape(source.scales, {source.n, groups});
  if (quantization.has_minimum) {
    source.format = format_index<quant::WeightAffine4<32>>();
    source.zeros = files.at(module + ".mins");
    require_dtype(source.zeros, DType::kF16);
    require_shape(source.zeros, {source.n, groups});
    require_dtype(source.codes, DType::kU8);
    require_shape(source.codes, {source.n, source.k / 2});
  } else {
    source.format = format_index<quant::WeightInt8<32>>();
    require_dtype(source.codes, DType::kI8);
    require_shape(source.codes, {source.n, source.k});
  }
}

/// Finds and checks the tensors of `module` [n, k]. Whether it is quantised is decided by the
/// tensors that are there, as lists in config.json are known to be wrong.
inline ModuleSource plan_module(const SafetensorsModel& files,
                                const QuantizationConfig& quantization,
                                const std::string& module,
                                int n,
                                int k) {
  ModuleSource source;
  source.n = n;
  source.k = k;
  source.runs = {{0, 0, n}};
  source.codes = files.find(module + ".qweight");
  if (!source.codes) {
    source.codes = files.at(module + ".weight");
    require_float(source.codes);
    require_shape(source.codes, {n, k});
    source.format = float_format(source.codes.entry->dtype);
    return source;
  }
  LMD_REQUIRE(quantization.method != QuantMethod::kNone, ErrorCode::kFormat,
              source.codes.where() + ": is quantised, but config.json has no quantization_config");
  if (quantization.method == QuantMethod::kAwq) {
    plan_awq(files, module, quantization.all.group_size, source);
  } else {
    const auto own = quantization.modules.find(module);
    plan_lmd(files, module, own == quantization.modules.end() ? quantization.all : own->second,
             source);
  }
  return source;
}

/// Memory that is kept from one module to the next.
struct ReadScratch {
  std::vector<std::uint8_t> first, second, third, rows, params;

  static std::uint8_t* sized(std::vector<std::uint8_t>& bytes, std::int64_t n) {
    if (bytes.size() < static_cast<std::size_t>(n)) bytes.resize(static_cast<std::size_t>(n));
    return bytes.data();
  }
};

/// AWQ words -> rows. The group size becomes a type here, because unpack_awq's layout is one.
template <int GroupSize>
void unpack_module(const ModuleSource& source,
                   ReadScratch& scratch,
                   std::uint8_t* codes,
                   std::uint8_t* params) {
  const auto read = [](const TensorRef& tensor, std::vector<std::uint8_t>& to) {
    std::uint8_t* at = ReadScratch::sized(to, tensor.entry->bytes);
    tensor.read(at);
    return at;
  };
  std::uint8_t* const scales = read(source.scales, scratch.third);
  const std::int64_t n_scales = std::int64_t{source.k} / GroupSize * source.n;
  std::vector<Half> cast(static_cast<std::size_t>(n_scales));
  for (std::int64_t i = 0; i < n_scales; ++i) {
    float scale = 0.0f;
    const DType dtype = source.scales.entry->dtype;
    to_floats(dtype, scales + i * bytes_of(dtype), 1, &scale);
    cast[static_cast<std::size_t>(i)] = to_half(scale);
  }
  const quant::AwqTensors<GroupSize> from{
      reinterpret_cast<const std::uint32_t*>(read(source.codes, scratch.first)),
      reinterpret_cast<const std::uint32_t*>(read(source.zeros, scratch.second)), cast.data(),
      source.k, source.n};
  quant::unpack_awq<GroupSize>(
      from, codes, reinterpret_cast<typename quant::WeightInt4<GroupSize>::Params*>(params));
}

inline void read_awq(const ModuleSource& source, ReadScratch& scratch, Matrix& to, int first_row) {
  const WeightFormatFacts facts = weight_format_facts(source.format);
  const std::int64_t code_bytes = facts.code_bytes(source.k);
  const std::int64_t params_bytes = facts.params_bytes(source.k);
  const bool in_order = source.runs.size() == 1;
  std::uint8_t* codes = to.codes.data() + first_row * code_bytes;
  std::uint8_t* params = to.params.data() + first_row * params_bytes;
  if (!in_order) {
    codes = ReadScratch::sized(scratch.rows, source.n * code_bytes);
    params = ReadScratch::sized(scratch.params, source.n * params_bytes);
  }
  if (facts.group_size == 32) unpack_module<32>(source, scratch, codes, params);
  if (facts.group_size == 64) unpack_module<64>(source, scratch, codes, params);
  if (facts.group_size == 128) unpack_module<128>(source, scratch, codes, params);
  if (in_order) return;
  for (const RowRun& run : source.runs) {
    const std::int64_t row = first_row + run.to;
    std::memcpy(to.codes.data() + row * code_bytes, codes + run.from * code_bytes,
                static_cast<std::size_t>(run.n * code_bytes));
    std::memcpy(to.params.data() + row * params_bytes, params + run.from * params_bytes,
                static_cast<std::size_t>(run.n * params_bytes));
  }
}

/// Copies the rows of a row-major tensor straight to their places.
inline void read_rows(const TensorRef& tensor,
                      const std::vector<RowRun>& runs,
                      std::int64_t row_bytes,
                      std::uint8_t* to) {
  for (const RowRun& run : runs)
    tensor.read(run.from * row_bytes, to + run.to * row_bytes, run.n * row_bytes);
}

/// Scales and minima, two tensors in the file, become pairs.
inline void read_scale_pairs(const ModuleSource& source, ReadScratch& scratch, std::uint8_t* to) {
  const std::int64_t bytes = source.scales.entry->bytes;
  std::uint8_t* const scales = ReadScratch::sized(scratch.first, bytes);
  std::uint8_t* const minima = ReadScratch::sized(scratch.second, bytes);
  const std::int64_t row_bytes = bytes / source.n;
  read_rows(source.scales, source.runs, row_bytes, scales);
  read_rows(source.zeros, source.runs, row_bytes, minima);
  for (std::int64_t i = 0; i < bytes; i += 2) {
    std::memcpy(to + 2 * i, scales + i, 2);
    std::memcpy(to + 2 * i + 2, minima + i, 2);
  }
}

/// Reads a module into rows [first_row, first_row + n) of `to`.
inline void read_module(const ModuleSource& source,
                        ReadScratch& scratch,
                        Matrix& to,
                        int first_row) {
  const WeightFormatFacts facts = weight_format_facts(source.format);
  if (source.zeros && facts.bits == 4 && source.codes.entry->dtype == DType::kI32) {
    read_awq(source, scratch, to, first_row);
  } else {
    const std::int64_t code_bytes = facts.code_bytes(source.k);
    read_rows(source.codes, source.runs, code_bytes, to.codes.data() + first_row * code_bytes);
    const std::int64_t params_bytes = facts.params_bytes(source.k);
    std::uint8_t* const params = to.params.data() + first_row * params_bytes;
    if (source.zeros) {
      read_scale_pairs(source, scratch, params);
    } else if (source.scales) {
      read_rows(source.scales, source.runs, params_bytes, params);
    }
  }
  if (!source.bias) return;
  const Buffer<float> bias = read_vector(source.bias);
  for (const RowRun& run : source.runs) {
    for (int i = 0; i < run.n; ++i)
      to.bias[first_row + run.to + i] = bias[run.from + i];
  }
}

}  // namespace detail

}  // namespace lmd::model
