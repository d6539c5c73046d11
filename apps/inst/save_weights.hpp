/// \file  A decoder's weights -> a Hugging Face style folder, named and laid out as loading expects.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/core/config.hpp>
#include <lmd/core/thread_pool.hpp>
#include <lmd/model/convert.hpp>
#include <lmd/model/load_weights.hpp>
#include <lmd/model/safetensors.hpp>

#include <cstdio>
#include <numeric>
#include <string>
#include <utility>
#include <vector>

#include "pack_awq.hpp"

namespace lmd::apps {

/// A module of the checkpoint: rows of a matrix, or the vector of a norm.
struct SavedModule {
  std::string name;
  const model::Matrix* matrix = nullptr;
  std::vector<int> rows = {};  ///< of the matrix, in the file's order
  const Buffer<float>* norm = nullptr;
};

/// All modules in the order of the files. \pre Each layer's qkv and gate_up are one matrix.
[[nodiscard]] inline std::vector<SavedModule> saved_modules(const model::ModelConfig& c,
                                                            const model::DecoderWeights& weights) {
  const model::detail::DecoderNames names = model::detail::decoder_names(c.architecture);
  std::vector<SavedModule> modules;
  const auto add_rows = [&](std::string name, const model::Matrix& m, int first, int n) {
    std::vector<int> rows(static_cast<std::size_t>(n));
    std::iota(rows.begin(), rows.end(), first);
    modules.push_back({std::move(name), &m, std::move(rows)});
  };
  const auto add = [&](const std::string& name, const model::Matrix& m) {
    add_rows(name, m, 0, m.n);
  };
  const auto add_norm = [&](const std::string& name, const Buffer<float>& norm) {
    modules.push_back({.name = name, .norm = &norm});
  };
  add(names.embedding, weights.embedding);
  for (std::size_t i = 0; i < weights.layers.size(); ++i) {
    const model::LayerWeights& layer = weights.layers[i];
    const std::string prefix = "model.layers." + std::to_string(i) + ".";
    add_norm(prefix + names.attention_norm, layer.attention_norm);
    const model::Matrix& qkv = layer.qkv.at(0);
    if (names.qkv.size() == 1) {
      SavedModule grouped{.name = prefix + names.qkv[0], .matrix = &qkv};
      for (const model::detail::RowRun& run : model::detail::ungroup_qkv(c)) {
        for (int r = 0; r < run.n; ++r)
          grouped.rows.push_back(run.to + r);
      }
      modules.push_back(std::move(grouped));
    } else {
      add_rows(prefix + names.qkv[0], qkv, 0, c.q_size());
      add_rows(prefix + names.qkv[1], qkv, c.q_size(), c.kv_size());
      add_rows(prefix + names.qkv[2], qkv, c.q_size() + c.kv_size(), c.kv_size());
    }
    add(prefix + names.attention_out, layer.attention_out);
    add_norm(prefix + names.mlp_norm, layer.mlp_norm);
    add_rows(prefix + names.gate, layer.gate_up.at(0), 0, c.intermediate_size);
    add_rows(prefix + names.up, layer.gate_up.at(0), c.intermediate_size, c.intermediate_size);
    add(prefix + names.down, layer.down);
  }
  add_norm(names.final_norm, weights.final_norm);
  if (weights.head.n > 0) add(names.head, weights.head);
  return modules;
}

/// Writes modules of one folder. Norms get the dtype of the tables.
class ModuleWriter {
 public:
  ModuleWriter(model::DType norm_dtype, ThreadPool* pool) : norm_dtype_(norm_dtype), pool_(pool) {}

  /// The tensors of a module, in the order in which `write` writes them.
  [[nodiscard]] std::vector<model::TensorSpec> specs(const SavedModule& module) const {
    using model::DType;
    if (module.norm != nullptr) {
      return {{module.name + ".weight", norm_dtype_, {module.norm->size()}}};
    }
    const auto n = static_cast<std::int64_t>(module.rows.size());
    const std::int64_t k = module.matrix->k;
    const model::WeightFormatFacts facts = model::weight_format_facts(module.matrix->format);
    if (facts.group_size == 0) return {{module.name + ".weight", dtype_of(*module.matrix), {n, k}}};
    const std::int64_t groups = k / facts.group_size;
    if (facts.bits == 8) {
      return {{module.name + ".qweight", DType::kI8, {n, k}},
              {module.name + ".scales", DType::kF16, {n, groups}}};
    }
    return {{module.name + ".qweight", DType::kI32, {k, n / 8}},
            {module.name + ".qzeros", DType::kI32, {groups, n / 8}},
            {module.name + ".scales", DType::kF16, {groups, n}}};
  }

  /// \throws Error(kIo).
  void write(const SavedModule& module, model::SafetensorsWriter& out) const {
    if (module.norm != nullptr) {
      std::vector<std::uint8_t> cast(
          static_cast<std::size_t>(module.norm->size() * model::bytes_of(norm_dtype_)));
      (void)model::from_floats(norm_dtype_, module.norm->data(), module.norm->size(), cast.data());
      out.write(module.name + ".weight", cast.data(), static_cast<std::int64_t>(cast.size()));
      return;
    }
    const model::Matrix& m = *module.matrix;
    const model::WeightFormatFacts facts = model::weight_format_facts(m.format);
    if (facts.bits == 4) {
      if (facts.group_size == 32) write_awq<32>(module, out);
      if (facts.group_size == 64) write_awq<64>(module, out);
      if (facts.group_size == 128) write_awq<128>(module, out);
      return;
    }
    const std::string codes = module.name + (facts.group_size == 0 ? ".weight" : ".qweight");
    write_rows(module, codes, m.codes.data(), facts.code_bytes(m.k), out);
    if (facts.group_size > 0)
      write_rows(module, module.name + ".scales", m.params.data(), facts.params_bytes(m.k), out);
  }

  /// Of a matrix without groups.
  [[nodiscard]] static model::DType dtype_of(const model::Matrix& m) {
    if (m.format == model::format_index<quant::WeightFloat>()) return model::DType::kF32;
    return m.format == model::format_index<quant::WeightHalf>() ? model::DType::kF16
                                                                : model::DType::kBF16;
  }

 private:
  static void write_rows(const SavedModule& module,
                         const std::string& tensor,
                         const std::uint8_t* from,
                         std::int64_t row_bytes,
                         model::SafetensorsWriter& out) {
    for (const int row : module.rows)
      out.write(tensor, from + row * row_bytes, row_bytes);
  }

  template <int GroupSize>
  void write_awq(const SavedModule& module, model::SafetensorsWriter& out) const {
    using Params = typename quant::WeightInt4<GroupSize>::Params;
    const model::Matrix& m = *module.matrix;
    const AwqWords words = pack_awq<GroupSize>(
        m.codes.data(), reinterpret_cast<const Params*>(m.params.data()), m.k, module.rows, pool_);
    const auto write = [&](const char* suffix, const auto& values) {
      out.write(module.name + suffix, values.data(),
                static_cast<std::int64_t>(values.size() * sizeof values[0]));
    };
    write(".qweight", words.qweight);
    write(".qzeros", words.qzeros);
    write(".scales", words.scales);
  }

  model::DType norm_dtype_;
  ThreadPool* pool_;
};

}  // namespace lmd::apps
