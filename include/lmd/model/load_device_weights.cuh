/// \file  A Hugging Face folder's safetensors -> the tensors of a decoder in device memory. Rows are brought
///        in order while they are read, words of AWQ while they are packed; the host converts nothing.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/model/device_weights.cuh>
#include <lmd/model/file_upload.cuh>
#include <lmd/model/load_weights.hpp>

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

namespace lmd::model {

namespace detail {

/// Where a row of a matrix lies in the files.
struct FileRow {
  int part = 0;  ///< of MatrixPlan::parts
  int row = 0;   ///< of the part's tensors
};

/// For every row of the stream.
[[nodiscard]] inline std::vector<FileRow> file_rows(const MatrixPlan& plan, quant::RowOrder order) {
  std::vector<FileRow> in_matrix;
  for (std::size_t p = 0; p < plan.parts.size(); ++p) {
    const ModuleSource& part = plan.parts[p];
    const std::size_t first = in_matrix.size();
    in_matrix.resize(first + static_cast<std::size_t>(part.n));
    for (const RowRun& run : part.runs) {
      for (int i = 0; i < run.n; ++i)
        in_matrix[first + static_cast<std::size_t>(run.to + i)] = {static_cast<int>(p),
                                                                   run.from + i};
    }
  }
  std::vector<FileRow> rows(in_matrix.size());
  const int n = static_cast<int>(rows.size());
  for (int j = 0; j < n; ++j)
    rows[static_cast<std::size_t>(j)] =
        in_matrix[static_cast<std::size_t>(quant::source_row(order, j, n))];
  return rows;
}

[[nodiscard]] inline bool is_awq(const MatrixPlan& plan) {
  const ModuleSource& part = plan.parts[0];
  return part.zeros && part.codes.entry->dtype == DType::kI32;
}

[[nodiscard]] inline quant::AwqScaleType awq_scale_type(DType dtype) {
  if (dtype == DType::kF16) return quant::AwqScaleType::kHalf;
  return dtype == DType::kBF16 ? quant::AwqScaleType::kBFloat16 : quant::AwqScaleType::kFloat;
}

/// Bytes of the files that hold it.
[[nodiscard]] inline std::int64_t file_bytes(const MatrixPlan& plan) {
  std::int64_t bytes = 0;
  for (const ModuleSource& part : plan.parts) {
    for (const TensorRef* tensor : {&part.codes, &part.scales, &part.zeros})
      bytes += *tensor ? tensor->entry->bytes : 0;
  }
  return bytes;
}

[[nodiscard]] inline std::int64_t file_bytes(const DecoderPlan& plan) {
  std::int64_t bytes = file_bytes(plan.embedding) + (plan.head ? file_bytes(*plan.head) : 0);
  for (const LayerPlan& layer : plan.layers) {
    bytes += file_bytes(layer.attention_out) + file_bytes(layer.down);
    for (const auto* parts : {&layer.qkv, &layer.gate_up}) {
      for (const MatrixPlan& matrix : *parts)
        bytes += file_bytes(matrix);
    }
  }
  return bytes;
}

/// Memory on the device that grows to what it was last asked for. In stream order.
class DeviceRoom {
 public:
  explicit DeviceRoom(cudaStream_t stream) : stream_(stream) {}
  [[nodiscard]] std::uint8_t* sized(std::int64_t bytes) {
    if (buffer_.size() < bytes) buffer_ = DeviceBuffer<std::uint8_t>(bytes, stream_);
    return buffer_.data();
  }

 private:
  cudaStream_t stream_;
  DeviceBuffer<std::uint8_t> buffer_;
};

}  // namespace detail

/// Reads matrices and packs them, one after the other.
template <Activation T>
class DeviceWeightLoader {
 public:
  /// `total_bytes` of files are going to be read.
  DeviceWeightLoader(const CudaOps<T>& ops, Cuda ctx, std::int64_t total_bytes, Progress progress)
      : ops_(&ops),
        ctx_(ctx),
        upload_(ctx.stream, total_bytes, std::move(progress)),
        room_(ctx.stream),
        overflow_(1, ctx.stream) {
    overflow_.fill_bytes(0);
  }

  [[nodiscard]] DeviceMatrix load(const detail::MatrixPlan& plan,
                                  quant::RowOrder order = quant::RowOrder::kAsTheyAre) {
    DeviceMatrix to = device_matrix(*ops_, plan.shape(), ctx_.stream);
    const std::vector<detail::FileRow> rows = detail::file_rows(plan, order);
    if (detail::is_awq(plan)) {
      pack_words(plan, rows, to);
    } else {
      pack_rows(plan, rows, to);
    }
    if (plan.parts[0].bias) load_bias(plan, to);
    return to;
  }

  [[nodiscard]] DeviceBuffer<float> load(const TensorRef& vector) {
    const Buffer<float> values = detail::read_vector(vector);
    DeviceBuffer<float> to(values.size(), ctx_.stream);
    to.copy_from({values.data(), static_cast<std::size_t>(values.size())});
    return to;
  }

  /// Waits for everything. \throws Error(kConfig) where a weight does not fit into 16 bits.
  void finish() { require_no_overflow(overflow_); }

 private:
  /// Bytes of rows that are packed at once: the next ones are read meanwhile.
  static constexpr std::int64_t kSlabBytes = std::int64_t{64} << 20;
  static constexpr std::int64_t kAlignment = 256;

  void pack_rows(const detail::MatrixPlan& plan,
                 const std::vector<detail::FileRow>& rows,
                 DeviceMatrix& to) {
    constexpr std::int64_t kTileRows = 16;
    const CudaLinearOps<T>& ops = linear_ops(*ops_, to.format);
    const WeightFormatFacts facts = weight_format_facts(to.format);
    const std::int64_t code_bytes = facts.code_bytes(to.k);
    const std::int64_t param_bytes = facts.params_bytes(to.k);
    const auto n = static_cast<std::int64_t>(rows.size());
    const std::int64_t step =
        std::max(kSlabBytes / (code_bytes + param_bytes) / kTileRows * kTileRows, kTileRows);
    for (std::int64_t first = 0; first < n; first += step) {
      const std::int64_t count = std::min(step, n - first);
      const std::int64_t params_at = round_up(count * code_bytes, kAlignment);
      std::uint8_t* const codes = room_.sized(params_at + count * param_bytes);
      std::uint8_t* const params = codes + params_at;
      add_runs(rows, first, count, [&](const detail::FileRow& from, std::int64_t i, int m) {
        const detail::ModuleSource& part = plan.parts[static_cast<std::size_t>(from.part)];
        upload_.add(part.codes, from.row * code_bytes, m * code_bytes, codes + i * code_bytes);
        std::uint8_t* const to_params = params + i * param_bytes;
        if (part.zeros) {
          upload_.add_pairs(part.scales, part.zeros, from.row * param_bytes / 2,
                            m * param_bytes / 2, to_params);
        } else if (part.scales) {
          upload_.add(part.scales, from.row * param_bytes, m * param_bytes, to_params);
        }
      });
      upload_.flush();
      const int m = static_cast<int>(count);
      try_kernel(ops.pack(ctx_, {.stream = to.stream.data() +
                                           ops.stream_bytes(static_cast<int>(first), to.k),
                                 .codes = codes,
                                 .params = params,
                                 .n = m,
                                 .k = to.k,
                                 .overflow = overflow_.data()}),
                 kernel_name<T>("pack_fragments", to.format).c_str(), m, to.k);
    }
  }

  /// Calls f(first row, its place among these, how many) for rows of the files that follow one another.
  template <class F>
  static void add_runs(const std::vector<detail::FileRow>& rows,
                       std::int64_t first,
                       std::int64_t count,
                       F&& f) {
    const auto at = [&](std::int64_t i) { return rows[static_cast<std::size_t>(first + i)]; };
    for (std::int64_t i = 0; i < count;) {
      int m = 1;
      while (i + m < count && at(i + m).part == at(i).part && at(i + m).row == at(i).row + m)
        ++m;
      f(at(i), i, m);
      i += m;
    }
  }

  void pack_words(const detail::MatrixPlan& plan,
                  const std::vector<detail::FileRow>& rows,
                  DeviceMatrix& to) {
    std::vector<quant::AwqWord> words;
    for (std::size_t j = 0; j < rows.size(); j += 8) {
      for (int c = 0; c < 8; ++c) {
        const detail::FileRow& row = rows[j + static_cast<std::size_t>(c)];
        LMD_REQUIRE(row.part == rows[j].part && row.row == rows[j].row + c && rows[j].row % 8 == 0,
                    ErrorCode::kInternal, "rows of one AWQ word are torn apart");
      }
      words.push_back({rows[j].part, rows[j].row / 8});
    }
    quant::AwqPackArgs args{.stream = to.stream.data(), .n = to.n, .k = to.k};
    LMD_REQUIRE(plan.parts.size() <= std::size(args.modules), ErrorCode::kInternal,
                "a matrix of " + std::to_string(plan.parts.size()) + " AWQ modules");
    const std::span<const quant::AwqWord> all_words(words);
    std::int64_t used = round_up(static_cast<std::int64_t>(all_words.size_bytes()), kAlignment);
    const std::int64_t words_bytes = used;
    for (const detail::ModuleSource& part : plan.parts) {
      for (const TensorRef* tensor : {&part.codes, &part.zeros, &part.scales})
        used += round_up(tensor->entry->bytes, kAlignment);
    }
    std::uint8_t* at = room_.sized(used);
    args.words = reinterpret_cast<const quant::AwqWord*>(at);
    upload_.add(all_words, at);
    at += words_bytes;
    const auto stage = [&](const TensorRef& tensor) {
      std::uint8_t* const there = at;
      upload_.add(tensor, 0, tensor.entry->bytes, there);
      at += round_up(tensor.entry->bytes, kAlignment);
      return there;
    };
    for (std::size_t p = 0; p < plan.parts.size(); ++p) {
      const detail::ModuleSource& part = plan.parts[p];
      args.modules[p] = {.qweight = reinterpret_cast<const std::uint32_t*>(stage(part.codes)),
                         .qzeros = reinterpret_cast<const std::uint32_t*>(stage(part.zeros)),
                         .scales = stage(part.scales),
                         .n = part.n,
                         .scale_type = detail::awq_scale_type(part.scales.entry->dtype)};
    }
    upload_.flush();
    try_kernel(linear_ops(*ops_, to.format).pack_awq(ctx_, args),
               kernel_name<T>("pack_awq", to.format).c_str(), to.n, to.k);
  }

  /// In the order of the matrix: a matrix with a bias is never interleaved.
  void load_bias(const detail::MatrixPlan& plan, DeviceMatrix& to) {
    std::vector<float> bias;
    for (const detail::ModuleSource& part : plan.parts) {
      const Buffer<float> stored = detail::read_vector(part.bias);
      const std::size_t first = bias.size();
      bias.resize(first + static_cast<std::size_t>(part.n));
      for (const detail::RowRun& run : part.runs)
        std::copy_n(stored.data() + run.from, run.n,
                    bias.begin() + static_cast<std::ptrdiff_t>(first) + run.to);
    }
    to.bias = DeviceBuffer<float>(to.n, ctx_.stream);
    to.bias.copy_from(bias);
  }

  const CudaOps<T>* ops_;
  Cuda ctx_;
  FileUpload upload_;
  detail::DeviceRoom room_;
  DeviceBuffer<int> overflow_;
};

/// As upload_weights(load_weights(...)), byte by byte, without the detour over host memory.
///
/// Units:   progress in bytes of the files.
/// Errors:  \throws as load_weights and WeightUploader.
template <Activation T>
[[nodiscard]] DeviceWeights load_device_weights(const std::string& folder,
                                                const ModelConfig& config,
                                                const QuantizationConfig& quantization,
                                                const CudaOps<T>& ops,
                                                Cuda ctx,
                                                const Progress& progress = {}) {
  const SafetensorsModel files(folder);
  const detail::DecoderPlan plan = detail::DecoderPlanner(files, config, quantization).plan();
  DeviceWeightLoader<T> loader(ops, ctx, detail::file_bytes(plan), progress);
  DeviceWeights to;
  to.embedding = loader.load(plan.embedding);
  for (const detail::LayerPlan& layer : plan.layers) {
    DeviceLayer made;
    made.attention_norm = loader.load(layer.attention_norm);
    for (const detail::MatrixPlan& m : layer.qkv)
      made.qkv.push_back(loader.load(m));
    made.attention_out = loader.load(layer.attention_out);
    made.mlp_norm = loader.load(layer.mlp_norm);
    for (const detail::MatrixPlan& m : layer.gate_up)
      made.gate_up.push_back(loader.load(m, gate_up_order(layer.gate_up.size(), m.rows())));
    made.down = loader.load(layer.down);
    to.layers.push_back(std::move(made));
  }
  to.final_norm = loader.load(plan.final_norm);
  if (plan.head) to.head = loader.load(*plan.head);
  loader.finish();
  return to;
}

}  // namespace lmd::model
