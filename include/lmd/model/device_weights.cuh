/// \file  The tensors of a decoder in device memory, packed for the Cuda kernels.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/core/device_buffer.cuh>
#include <lmd/model/ops.cuh>
#include <lmd/model/weight_shapes.hpp>
#include <lmd/model/weights.hpp>

#include <algorithm>
#include <cstdlib>
#include <string_view>
#include <vector>

namespace lmd::model {

/// Whether each kernel is waited for and nothing is recorded, so that one that fails while it runs is
/// named: LMD_CUDA_SYNC=1 in the environment. Slow.
[[nodiscard]] inline bool waits_for_kernels() {
  static const bool is_set = [] {
    const char* value = std::getenv("LMD_CUDA_SYNC");
    return value != nullptr && std::string_view(value) == "1";
  }();
  return is_set;
}

/// \throws Error(kCuda) that names kernel and shape, where a launch has failed, or, if kernels are
///         waited for, the kernel.
inline void try_kernel(cudaError_t error, const char* kernel, int m, int n) {
  if (error == cudaSuccess && waits_for_kernels()) error = cudaDeviceSynchronize();
  if (error == cudaSuccess) return;
  (void)cudaGetLastError();
  throw Error(ErrorCode::kCuda, std::string(kernel) + " [" + std::to_string(m) + ", " +
                                    std::to_string(n) + "]: " + cudaGetErrorName(error) + ", " +
                                    cudaGetErrorString(error));
}

/// "linear awq4g128, f16 activations"
template <Activation T>
[[nodiscard]] std::string kernel_name(const char* kernel, int format) {
  return std::string(kernel) + ' ' + weight_format_facts(format).name + ", " +
         quant::NumberFormat<T>::kName + " activations";
}

/// \throws Error(kConfig) for a format without kernels.
template <Activation T>
[[nodiscard]] const CudaLinearOps<T>& linear_ops(const CudaOps<T>& ops, int format) {
  const CudaLinearOps<T>& found = ops.formats[static_cast<std::size_t>(format)];
  LMD_REQUIRE(found.pack != nullptr, ErrorCode::kConfig,
              std::string("weights of format ") + weight_format_facts(format).name +
                  " have no kernels on the GPU; use --device cpu, or lmd convert --dtype float16");
  return found;
}

/// One matrix [n out, k in] as a fragment stream.
struct DeviceMatrix {
  int format = -1;  ///< place in quant::WeightFormats
  int n = 0;
  int k = 0;
  DeviceBuffer<std::uint8_t> stream;
  DeviceBuffer<float> bias;  ///< [n] or empty
};

/// As LayerWeights. Where gate and up are one matrix, its rows lie in blocks of eight gates and the
/// eight values that they gate (see kernels::gate_row), so that one kernel does both.
struct DeviceLayer {
  DeviceBuffer<float> attention_norm;  ///< [hidden]
  std::vector<DeviceMatrix> qkv;
  DeviceMatrix attention_out;
  DeviceBuffer<float> mlp_norm;  ///< [hidden]
  std::vector<DeviceMatrix> gate_up;
  DeviceMatrix down;
};

struct DeviceWeights {
  DeviceMatrix embedding;
  std::vector<DeviceLayer> layers;
  DeviceBuffer<float> final_norm;  ///< [hidden]
  DeviceMatrix head;               ///< n = 0 when the embedding is reused
};

[[nodiscard]] inline bool has_split_gate(const DeviceWeights& w) {
  return std::ranges::any_of(w.layers, [](const DeviceLayer& l) { return l.gate_up.size() > 1; });
}

[[nodiscard]] inline std::int64_t held_bytes(const DeviceMatrix& m) {
  return static_cast<std::int64_t>(m.stream.size_bytes() + m.bias.size_bytes());
}

/// Bytes of weights that a step of `rows` tokens reads: all of them once, and of an embedding that
/// is not the head as well one row for each token.
[[nodiscard]] inline std::int64_t step_bytes(const DeviceWeights& w, int rows) {
  const std::int64_t table = held_bytes(w.embedding);
  std::int64_t bytes =
      w.head.n == 0 ? table
                    : table / w.embedding.n * std::min(rows, w.embedding.n) + held_bytes(w.head);
  bytes += static_cast<std::int64_t>(w.final_norm.size_bytes());
  for (const DeviceLayer& l : w.layers) {
    bytes += static_cast<std::int64_t>(l.attention_norm.size_bytes() + l.mlp_norm.size_bytes());
    bytes += held_bytes(l.attention_out) + held_bytes(l.down);
    for (const DeviceMatrix& m : l.qkv)
      bytes += held_bytes(m);
    for (const DeviceMatrix& m : l.gate_up)
      bytes += held_bytes(m);
  }
  return bytes;
}

/// Bytes that DeviceWeights of these shapes will take.
/// \throws Error(kConfig) for a format without kernels.
template <Activation T>
[[nodiscard]] std::int64_t device_bytes(const WeightShapes& shapes, const CudaOps<T>& ops) {
  constexpr auto kFloat = static_cast<std::int64_t>(sizeof(float));
  std::int64_t bytes = shapes.norm_elements * kFloat;
  for (const MatrixShape& m : shapes.matrices) {
    bytes += linear_ops(ops, m.format).stream_bytes(m.n, m.k);
    if (m.has_bias) bytes += m.n * kFloat;
  }
  return bytes;
}

/// A matrix of this shape, not packed yet. \throws Error(kConfig) for a format without kernels;
/// Error(kCapacity).
template <Activation T>
[[nodiscard]] DeviceMatrix device_matrix(const CudaOps<T>& ops,
                                         const MatrixShape& shape,
                                         cudaStream_t stream) {
  DeviceMatrix m;
  m.format = shape.format;
  m.n = shape.n;
  m.k = shape.k;
  m.stream = DeviceBuffer<std::uint8_t>(linear_ops(ops, m.format).stream_bytes(m.n, m.k), stream);
  return m;
}

/// How the rows of gate and up lie in the stream; `n_matrices` is 1 where they are one matrix of `rows`.
[[nodiscard]] inline quant::RowOrder gate_up_order(std::size_t n_matrices, int rows) {
  return n_matrices == 1 && rows % 16 == 0 ? quant::RowOrder::kGateUpBlocks
                                           : quant::RowOrder::kAsTheyAre;
}

/// Waits for the packing. \throws Error(kConfig) where a weight did not fit into 16 bits.
inline void require_no_overflow(const DeviceBuffer<int>& flag) {
  int overflow = 0;
  flag.copy_to({&overflow, 1});
  LMD_REQUIRE(overflow == 0, ErrorCode::kConfig,
              "a weight is too large for the 16 bits of activations: use --dtype bfloat16, or "
              "--device cpu");
}

/// Uploads host matrices and packs them on the device. Holds room for the largest matrix met so far.
template <Activation T>
class WeightUploader {
 public:
  WeightUploader(const CudaOps<T>& ops, Cuda ctx)
      : ops_(&ops), ctx_(ctx), overflow_(1, ctx.stream) {
    overflow_.fill_bytes(0);
  }

  /// Frees the host's copy of the codes and parameters when they are on their way.
  /// \throws Error(kConfig) for a format without kernels; Error(kCapacity).
  [[nodiscard]] DeviceMatrix upload(Matrix& from,
                                    quant::RowOrder order = quant::RowOrder::kAsTheyAre) {
    if (from.n == 0) return {};
    const CudaLinearOps<T>& ops = linear_ops(*ops_, from.format);
    DeviceMatrix to = device_matrix(*ops_, {from.format, from.n, from.k}, ctx_.stream);
    const std::uint8_t* codes = stage(codes_, from.codes);
    const std::uint8_t* params = stage(params_, from.params);
    try_kernel(ops.pack(ctx_, {.stream = to.stream.data(),
                               .codes = codes,
                               .params = params,
                               .n = from.n,
                               .k = from.k,
                               .order = order,
                               .overflow = overflow_.data()}),
               kernel_name<T>("pack_fragments", from.format).c_str(), from.n, from.k);
    if (from.bias.size() > 0) to.bias = upload(from.bias);
    from.codes = {};
    from.params = {};
    return to;
  }

  /// Waits for everything. \throws Error(kConfig) where a weight does not fit into 16 bits.
  void finish() { require_no_overflow(overflow_); }

  [[nodiscard]] DeviceBuffer<float> upload(const Buffer<float>& from) {
    DeviceBuffer<float> to(from.size(), ctx_.stream);
    to.copy_from({from.data(), static_cast<std::size_t>(from.size())});
    return to;
  }

 private:
  /// The stream orders the copy behind the packing of the matrix before.
  const std::uint8_t* stage(DeviceBuffer<std::uint8_t>& room, const Buffer<std::uint8_t>& from) {
    if (from.size() == 0) return nullptr;
    if (room.size() < from.size()) room = DeviceBuffer<std::uint8_t>(from.size(), ctx_.stream);
    LMD_CUDA_TRY(cudaMemcpyAsync(room.data(), from.data(), from.size_bytes(), cudaMemcpyDefault,
                                 ctx_.stream));
    return room.data();
  }

  const CudaOps<T>* ops_;
  Cuda ctx_;
  DeviceBuffer<std::uint8_t> codes_;
  DeviceBuffer<std::uint8_t> params_;
  DeviceBuffer<int> overflow_;
};

/// Moves a decoder to the device, matrix after matrix; the host's memory is freed on the way.
/// \throws as WeightUploader.
template <Activation T>
[[nodiscard]] DeviceWeights upload_weights(DecoderWeights from, const CudaOps<T>& ops, Cuda ctx) {
  WeightUploader<T> uploader(ops, ctx);
  DeviceWeights to;
  to.embedding = uploader.upload(from.embedding);
  for (LayerWeights& layer : from.layers) {
    DeviceLayer made;
    made.attention_norm = uploader.upload(layer.attention_norm);
    for (Matrix& m : layer.qkv)
      made.qkv.push_back(uploader.upload(m));
    made.attention_out = uploader.upload(layer.attention_out);
    made.mlp_norm = uploader.upload(layer.mlp_norm);
    for (Matrix& m : layer.gate_up)
      made.gate_up.push_back(uploader.upload(m, gate_up_order(layer.gate_up.size(), m.n)));
    made.down = uploader.upload(layer.down);
    to.layers.push_back(std::move(made));
  }
  to.final_norm = uploader.upload(from.final_norm);
  to.head = uploader.upload(from.head);
  uploader.finish();
  return to;
}

}  // namespace lmd::model
