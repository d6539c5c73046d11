/// \file  Random linear layers on Host and on Cuda, over the same bytes, and the comparison of their outputs.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/core/device_buffer.cuh>

#include <string>

#include "kernels/linear/linear_case.hpp"
#include <doctest/doctest.h>

/// The weight formats that go with a type of activations, for TEST_CASE_TEMPLATE.
#define LMD_WEIGHTS_OF_HALF                                                       \
  lmd::quant::WeightHalf, lmd::quant::WeightInt4<32>, lmd::quant::WeightInt4<64>, \
      lmd::quant::WeightInt4<128>, lmd::quant::WeightAffine4<32>, lmd::quant::WeightInt8<32>
#define LMD_WEIGHTS_OF_BFLOAT16                                                       \
  lmd::quant::WeightBFloat16, lmd::quant::WeightInt4<32>, lmd::quant::WeightInt4<64>, \
      lmd::quant::WeightInt4<128>, lmd::quant::WeightAffine4<32>, lmd::quant::WeightInt8<32>

namespace lmd::kernels {

struct LinearCase {
  int m, n, k;
  LinearEpilogue epilogue = LinearEpilogue::kStore;
  bool has_norm = false;
  bool has_bias = false;
  float x_size = 1.0f;   ///< deviation of x
  float outlier = 0.0f;  ///< one element of each row; 0: none
  float norm_eps = 1e-5f;
  int x_padding = 8;  ///< between rows of x
  int y_padding = 3;  ///< and of y

  [[nodiscard]] bool is_gated() const { return epilogue == LinearEpilogue::kSiluMul; }
  [[nodiscard]] int n_out() const { return is_gated() ? n / 2 : n; }
  [[nodiscard]] std::string name() const {
    return std::to_string(m) + " x " + std::to_string(n) + " x " + std::to_string(k) +
           ", epilogue " + std::to_string(static_cast<int>(epilogue)) + (has_norm ? ", norm" : "") +
           (has_bias ? ", bias" : "");
  }
};

/// What a kernel rounds to T beside its inputs and outputs.
struct LinearRoundings {
  bool weights = false;
  bool product = false;  ///< before bias, residual and silu
};

/// A layer's operands in both memories.
template <class W, class T>
class LinearOperands {
 public:
  using P = FragmentPolicy<W, T>;

  LinearOperands(const LinearCase& linear_case, unsigned seed)
      : case_(linear_case), rng_(seed), weights_(case_.n, case_.k, rng_) {
    std::normal_distribution<float> normal;
    const auto fill = [&](auto& numbers, std::size_t n, auto make) {
      numbers.resize(n);
      for (auto& v : numbers)
        v = make();
    };
    const LinearCase& c = case_;
    const int x_stride = c.k + c.x_padding;
    const int y_stride = c.n_out() + c.y_padding;
    fill(x_, std::size_t(c.m) * x_stride, [&] { return from_float<T>(c.x_size * normal(rng_)); });
    if (c.outlier != 0.0f) {
      for (int i = 0; i < c.m; ++i)
        x_[std::size_t(i) * x_stride + (i * 131 + 17) % c.k] = from_float<T>(c.outlier);
    }
    fill(y_, std::size_t(c.m) * y_stride, [&] { return from_float<T>(normal(rng_)); });
    fill(norm_, std::size_t(c.k), [&] { return 1.0f + 0.2f * normal(rng_); });
    fill(bias_, std::size_t(c.n), [&] { return normal(rng_); });
    stream_ = weights_.fragments();
    device_x_ = copy_of(x_);
    device_y_ = copy_of(y_);
    device_norm_ = copy_of(norm_);
    device_bias_ = copy_of(bias_);
    device_stream_ = copy_of(stream_);
  }

  /// Of the layer on the device.
  [[nodiscard]] BasicLinearArgs<T> args() {
    return args(device_y_.data(), device_x_.data(), device_stream_.data(), device_norm_.data(),
                device_bias_.data());
  }

  void set_bias(const std::vector<float>& bias) {
    bias_ = bias;
    device_bias_.copy_from(bias_);
  }

  /// What `launch(args)` leaves in y.
  template <class F>
  [[nodiscard]] std::vector<T> run(F&& launch) {
    device_y_.copy_from(y_);
    REQUIRE(launch(args()) == cudaSuccess);
    std::vector<T> found(y_.size());
    device_y_.copy_to(found);
    return found;
  }

  /// Compares every output with Host's; what lies between rows must be untouched.
  void check(const std::vector<T>& found, const LinearRoundings& roundings = {}) {
    std::vector<T> expected = y_;
    const BasicLinearArgs<T> host =
        args(expected.data(), x_.data(), stream_.data(), norm_.data(), bias_.data());
    linear<P>(Host{}, host);
    const auto y_stride = static_cast<int>(host.y_stride);
    int wrong = 0;
    for (int i = 0; i < case_.m; ++i) {
      const std::vector<float> row = kernels::detail::linear_input(host, i);
      for (int j = 0; j < y_stride; ++j) {
        const std::size_t at = std::size_t(i) * y_stride + j;
        if (j >= case_.n_out()) {
          wrong += found[at].bits != y_[at].bits;
          continue;
        }
        const double e = to_float(expected[at]);
        const double f = to_float(found[at]);
        const double small = kUlp<T> * std::abs(e) + 1e-6;
        if (std::abs(f - e) <= small) continue;  // most: what follows is slow
        const double bound = small + error(row, j, to_float(y_[at]), roundings);
        if (!(std::abs(f - e) <= bound)) {
          if (++wrong <= 3) MESSAGE("row ", i, " feature ", j, ": ", f, " for ", e, " +- ", bound);
        }
      }
    }
    CHECK(wrong == 0);
  }

 private:
  template <class U>
  static DeviceBuffer<U> copy_of(const std::vector<U>& from) {
    DeviceBuffer<U> made(static_cast<std::int64_t>(from.size()));
    made.copy_from(from);
    return made;
  }

  [[nodiscard]] BasicLinearArgs<T> args(
      T* y, const T* x, const std::uint8_t* stream, const float* norm, const float* bias) const {
    return {.y = y,
            .x = x,
            .codes = stream,
            .bias = case_.has_bias ? bias : nullptr,
            .m = case_.m,
            .n = case_.n,
            .k = case_.k,
            .x_stride = case_.k + case_.x_padding,
            .y_stride = case_.n_out() + case_.y_padding,
            .epilogue = case_.epilogue,
            .norm_weight = case_.has_norm ? norm : nullptr,
            .norm_eps = case_.norm_eps};
  }

  /// A product with its bias, and how far the device's may be from it.
  struct Product {
    double value = 0.0;
    double error = 0.0;
  };
  [[nodiscard]] Product product(const std::vector<float>& x,
                                int j,
                                const LinearRoundings& roundings) const {
    const auto rows = weights_.rows();
    double sum = 0;
    double variance = 0;
    for (int l = 0; l < case_.k; ++l) {
      const double w = rows.weight(j, l);
      sum += x[l] * w;
      // An x that is normalised is rounded by both, each in its way: halves below 2^-14 by 2^-25.
      variance += std::pow((kUlp<T> * std::abs(x[l]) + 0x1p-24) * w, 2);
    }
    const double size = magnitude<W>(rows, j, x);
    const double bias = case_.has_bias ? bias_[j] : 0.0;
    double error = size * sum_error(case_.k);
    if (roundings.weights && W::kGroupSize > 0) error += size * kUlp<T>;
    if (roundings.product) error += kUlp<T> * (2 * std::abs(sum) + std::abs(bias));
    if (case_.has_norm) error += 4 * std::sqrt(variance);  // roundings are independent
    return {sum + bias, error};
  }

  /// Beside one unit in the last place of the output j of a row.
  [[nodiscard]] double error(const std::vector<float>& x,
                             int j,
                             double y,
                             const LinearRoundings& roundings) const {
    if (!case_.is_gated()) {
      const bool is_added = case_.epilogue == LinearEpilogue::kAdd;
      return product(x, j, roundings).error +
             (roundings.product && is_added ? 2 * kUlp<T> * std::abs(y) : 0.0);
    }
    const Product g = product(x, gate_row(j), roundings);
    const Product u = product(x, up_row(j), roundings);
    const double silu = g.value / (1 + std::exp(-g.value));
    // |silu'| <= 1.1 and |silu(g)| <= |g|; __expf is wrong by 2 + 1.2 |g| units.
    return 1.1 * g.error * (std::abs(u.value) + u.error) + std::abs(g.value) * u.error +
           (2 + 1.2 * std::abs(g.value)) * 0x1p-23 * std::abs(silu * u.value);
  }

  LinearCase case_;
  std::mt19937 rng_;
  RandomRows<W> weights_;
  std::vector<std::uint8_t> stream_;
  std::vector<T> x_, y_;
  std::vector<float> norm_, bias_;
  DeviceBuffer<T> device_x_, device_y_;
  DeviceBuffer<float> device_norm_, device_bias_;
  DeviceBuffer<std::uint8_t> device_stream_;
};

}  // namespace lmd::kernels
