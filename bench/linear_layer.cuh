/// \file  Linear layers of InternLM2.5-7B with cold weights, as several GPU benchmarks time them.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/kernels/linear/linear_cuda.cuh>

#include <memory>
#include <span>

#include "harness.cuh"
#include "kernels/linear/linear_case.hpp"

namespace lmd::bench {

struct LinearShape {
  const char* name;
  int n;
  int k;
  kernels::LinearEpilogue epilogue = kernels::LinearEpilogue::kStore;
  bool has_norm = false;
};

/// One layer as the engine runs it, norms apart.
inline constexpr LinearShape kLayerShapes[] = {
    {"wqkv", 6144, 4096},
    {"wo+residual", 4096, 4096, kernels::LinearEpilogue::kAdd},
    {"w1w3+silu", 28672, 4096, kernels::LinearEpilogue::kSiluMul},
    {"w2+residual", 4096, 14336, kernels::LinearEpilogue::kAdd},
};
inline constexpr LinearShape kHeadShape = {"lm_head", 92544, 4096};

/// One layer of InternLM2-20B, the same way.
inline constexpr LinearShape kLayerShapes20b[] = {
    {"wqkv", 8192, 6144},
    {"wo+residual", 6144, 6144, kernels::LinearEpilogue::kAdd},
    {"w1w3+silu", 32768, 6144, kernels::LinearEpilogue::kSiluMul},
    {"w2+residual", 6144, 16384, kernels::LinearEpilogue::kAdd},
};

/// What all layers share; large enough for `max_tokens` of each of `shapes`, and of lm_head.
class LinearMemory {
 public:
  explicit LinearMemory(int max_tokens, std::span<const LinearShape> shapes = kLayerShapes)
      : parts_(kernels::tile_part_elements(device_multiprocessors())),
        counters_(kernels::tile_counters(kHeadShape.n)) {
    std::int64_t bytes = kernels::linear_scratch_bytes(max_tokens, kHeadShape.n, kHeadShape.k);
    for (const LinearShape& s : shapes)
      bytes = std::max(bytes, kernels::linear_scratch_bytes(max_tokens, s.n, s.k));
    scratch_ = DeviceBuffer<std::uint8_t>(bytes);
    counters_.fill_bytes(0);
  }
  [[nodiscard]] kernels::LinearWorkspace view() {
    return {.parts = parts_.data(),
            .counters = counters_.data(),
            .scratch = scratch_.data(),
            .scratch_bytes = scratch_.size(),
            .dense = &dense_};
  }
  [[nodiscard]] kernels::DenseGemm& dense() { return dense_; }

 private:
  static constexpr std::int64_t kDenseBytes = std::int64_t{32} << 20;
  static int device_multiprocessors() {
    int n = 0;
    LMD_CUDA_TRY(multiprocessors(Cuda{}, &n));
    return n;
  }

  DeviceBuffer<float> parts_;
  DeviceBuffer<int> counters_;
  DeviceBuffer<std::uint8_t> scratch_;
  DeviceBuffer<std::uint8_t> dense_memory_{kDenseBytes};
  kernels::DenseGemm dense_{dense_memory_.data(), kDenseBytes};
};

/// Weights of a shape on the device, as many copies as make a cold cycle, and x and y.
template <class P>
class LinearLayer {
 public:
  using W = typename P::Format;
  using T = typename P::Act;
  using Args = kernels::BasicLinearArgs<T>;

  LinearLayer(const LinearShape& s, int max_tokens)
      : shape_(s),
        pitch_(round_up<std::int64_t>(stream_bytes(), 256)),
        copies_(cold_copies(pitch_)),
        weights_(random_rows(s.k)),
        stream_(pitch_ * copies_),
        x_(normal_buffer<T>(std::int64_t{max_tokens} * s.k, 3)),
        y_(std::int64_t{max_tokens} * s.n),
        norm_(s.k) {
    const std::vector<std::uint8_t> rows = weights_.fragments();
    const auto row_bytes = static_cast<std::int64_t>(rows.size());
    copy(stream_.data(), rows.data(), std::min(row_bytes, stream_bytes()));
    for (std::int64_t at = row_bytes; at < stream_bytes(); at += row_bytes)
      copy(stream_.data() + at, stream_.data(), std::min(row_bytes, stream_bytes() - at));
    for (int c = 1; c < copies_; ++c)
      copy(stream_.data() + c * pitch_, stream_.data(), stream_bytes());
    norm_.copy_from(std::vector<float>(static_cast<std::size_t>(s.k), 1.0f));
    y_.fill_bytes(0);
    LMD_CUDA_TRY(cudaDeviceSynchronize());
  }

  [[nodiscard]] const LinearShape& shape() const { return shape_; }
  [[nodiscard]] int copies() const { return copies_; }
  [[nodiscard]] std::int64_t stream_bytes() const {
    return P::Weights::stream_bytes(shape_.n, shape_.k);
  }
  [[nodiscard]] double flops(int m) const { return 2.0 * m * shape_.n * shape_.k; }
  /// Of m tokens' x and y.
  [[nodiscard]] std::int64_t activation_bytes(int m) const {
    return std::int64_t{m} * 2 * (shape_.k + shape_.n);
  }

  [[nodiscard]] Args args(int call, int m) {
    return {.y = y_.data(),
            .x = x_.data(),
            .codes = stream_.data() + call % copies_ * pitch_,
            .m = m,
            .n = shape_.n,
            .k = shape_.k,
            .x_stride = shape_.k,
            .y_stride = shape_.n,
            .epilogue = shape_.epilogue,
            .norm_weight = shape_.has_norm ? norm_.data() : nullptr,
            .norm_eps = 1e-5f};
  }

  /// The same weights as rows of T, as many copies as make a cold cycle; made by the first call.
  [[nodiscard]] kernels::DenseArgs<T> dense_args(int call, int m) {
    const std::int64_t size = std::int64_t{shape_.n} * shape_.k;
    const int copies = cold_copies(size * 2);
    if (rows_.size() == 0) {
      rows_ = DeviceBuffer<T>(size * copies);
      for (int c = 0; c < copies; ++c) {
        LMD_CUDA_TRY(kernels::unpack_rows<P>(Cuda{}, stream_.data(), shape_.n, shape_.k,
                                             rows_.data() + c * size));
      }
      LMD_CUDA_TRY(cudaDeviceSynchronize());
    }
    return {.y = y_.data(),
            .x = x_.data(),
            .w = rows_.data() + call % copies * size,
            .m = m,
            .n = shape_.n,
            .k = shape_.k,
            .x_stride = shape_.k,
            .y_stride = shape_.n,
            .w_stride = shape_.k,
            .accumulate = shape_.epilogue == kernels::LinearEpilogue::kAdd};
  }

  /// Some features of some of m tokens of y, which holds the plain product, against f64. Returns the
  /// relative error.
  /// \throws Error where it is more than two roundings of T.
  double check(int m) {
    std::vector<T> x(shape_.k);
    std::vector<T> y(shape_.n);
    double error = 0;
    double size = 0;
    for (int i = 0; i < m; i += std::max(1, m / 3)) {
      copy(x.data(), x_.data() + std::int64_t{i} * shape_.k, std::int64_t{2} * shape_.k);
      copy(y.data(), y_.data() + std::int64_t{i} * shape_.n, std::int64_t{2} * shape_.n);
      for (int j = i % 50; j < shape_.n; j += shape_.n / 50) {
        double sum = 0;
        for (int l = 0; l < shape_.k; ++l)
          sum += double{to_float(x[l])} * weights_.rows().weight(j % kDistinctRows, l);
        const double d = to_float(y[j]) - sum;
        error += d * d;
        size += sum * sum;
      }
    }
    y_.fill_bytes(0);
    LMD_CUDA_TRY(cudaDeviceSynchronize());
    const double relative = std::sqrt(error / size);
    LMD_REQUIRE(relative < kernels::kUlp<T>, ErrorCode::kInternal,
                std::string(shape_.name) + " of " + std::to_string(m) + " tokens: wrong by " +
                    std::to_string(relative));
    return relative;
  }

 private:
  /// Random rows repeated: the time does not depend on which rows are equal, making them does.
  static constexpr int kDistinctRows = 256;

  static kernels::RandomRows<W> random_rows(int k) {
    std::mt19937 rng(1);
    return {kDistinctRows, k, rng};
  }
  template <class U>
  static void copy(U* to, const U* from, std::int64_t bytes) {
    LMD_CUDA_TRY(cudaMemcpy(to, from, static_cast<std::size_t>(bytes), cudaMemcpyDefault));
  }

  LinearShape shape_;
  std::int64_t pitch_;
  int copies_;
  kernels::RandomRows<W> weights_;
  DeviceBuffer<std::uint8_t> stream_;
  DeviceBuffer<T> x_, y_, rows_;
  DeviceBuffer<float> norm_;
};

}  // namespace lmd::bench
