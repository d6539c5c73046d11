/// \file  Skinny linear layers on Cuda against Host on the same stored bytes.
// SPDX-License-Identifier: Apache-2.0
#include <lmd/core/device_buffer.cuh>
#include <lmd/kernels/linear/skinny.cuh>

#include "gpu.cuh"
#include "kernels/linear/linear_case.hpp"
#include <doctest/doctest.h>

using namespace lmd;
using namespace lmd::kernels;

namespace {

struct Case {
  int m, n, k;
  LinearEpilogue epilogue = LinearEpilogue::kStore;
  bool has_norm = false;
  bool has_bias = false;
};

/// Compares every output; what lies between rows must be untouched.
template <class W, class T>
void count_wrong(const Case& c,
                 const RandomRows<W>& weights,
                 const BasicLinearArgs<T>& a,
                 const std::vector<T>& before,
                 const std::vector<T>& expected,
                 const std::vector<T>& found) {
  const int n_out = c.epilogue == LinearEpilogue::kSiluMul ? c.n / 2 : c.n;
  const auto y_stride = static_cast<int>(a.y_stride);
  int wrong = 0;
  for (int i = 0; i < c.m; ++i) {
    const std::vector<float> row = kernels::detail::linear_input(a, i);
    for (int j = 0; j < y_stride; ++j) {
      const std::size_t at = std::size_t(i) * y_stride + j;
      if (j >= n_out) {
        wrong += found[at].bits != before[at].bits;
        continue;
      }
      const double e = to_float(expected[at]);
      double size = 0;
      if (c.epilogue == LinearEpilogue::kSiluMul) {
        // |d(silu(g) u)| <= 1.1 |u| |dg| + (|g| + 1) |du|, with |g|, |u| below their magnitudes
        const double g = magnitude<W>(weights.rows(), gate_row(j), row);
        const double u = magnitude<W>(weights.rows(), up_row(j), row);
        size = 4 * (g + 1) * (u + 1);
      } else {
        size = magnitude<W>(weights.rows(), j, row);
      }
      // x normalised on the device may differ by one unit in its last place.
      const double bound = kUlp<T> * std::abs(e) + size * sum_error(c.k) +
                           (c.has_norm ? size * kUlp<T> / std::sqrt(c.k) * 4 : 0) + 1e-6;
      const double f = to_float(found[at]);
      if (!(std::abs(f - e) <= bound)) {
        if (++wrong <= 3) MESSAGE("row ", i, " feature ", j, ": ", f, " for ", e, " +- ", bound);
      }
    }
  }
  CHECK(wrong == 0);
}

/// Runs the case on Host and on Cuda, over the same bytes, and compares.
template <class W, class T>
void compare(const Case& c, unsigned seed, Cuda ctx = least_device()) {
  CAPTURE(W::kName);
  CAPTURE(c.m);
  CAPTURE(c.n);
  CAPTURE(c.k);
  CAPTURE(static_cast<int>(c.epilogue));
  CAPTURE(c.has_norm);
  using P = FragmentPolicy<W, T>;
  std::mt19937 rng(seed);
  std::normal_distribution<float> normal;
  const RandomRows<W> weights(c.n, c.k, rng);
  const std::vector<std::uint8_t> stream = weights.fragments();
  const int n_out = c.epilogue == LinearEpilogue::kSiluMul ? c.n / 2 : c.n;
  const int y_stride = n_out + 3;
  const int x_stride = c.k + 8;
  std::vector<T> x(std::size_t(c.m) * x_stride);
  for (auto& v : x)
    v = from_float<T>(normal(rng));
  std::vector<T> y(std::size_t(c.m) * y_stride);
  for (auto& v : y)
    v = from_float<T>(normal(rng));
  std::vector<float> norm(c.k);
  for (auto& v : norm)
    v = 1.0f + 0.2f * normal(rng);
  std::vector<float> bias(c.n);
  for (auto& v : bias)
    v = normal(rng);

  BasicLinearArgs<T> a{.x = x.data(),
                       .codes = stream.data(),
                       .bias = c.has_bias ? bias.data() : nullptr,
                       .m = c.m,
                       .n = c.n,
                       .k = c.k,
                       .x_stride = x_stride,
                       .y_stride = y_stride,
                       .epilogue = c.epilogue,
                       .norm_weight = c.has_norm ? norm.data() : nullptr,
                       .norm_eps = 1e-5f};
  std::vector<T> expected = y;
  a.y = expected.data();
  linear<P>(Host{}, a);

  DeviceBuffer<T> device_x(x.size());
  DeviceBuffer<T> device_y(y.size());
  DeviceBuffer<std::uint8_t> device_stream(stream.size());
  DeviceBuffer<float> device_norm(norm.size());
  DeviceBuffer<float> device_bias(bias.size());
  device_x.copy_from(x);
  device_y.copy_from(y);
  device_stream.copy_from(stream);
  device_norm.copy_from(norm);
  device_bias.copy_from(bias);
  BasicLinearArgs<T> d = a;
  d.y = device_y.data();
  d.x = device_x.data();
  d.codes = device_stream.data();
  if (c.has_norm) d.norm_weight = device_norm.data();
  if (c.has_bias) d.bias = device_bias.data();
  REQUIRE(skinny_linear<P>(ctx, d) == cudaSuccess);
  std::vector<T> found(y.size());
  device_y.copy_to(found);

  count_wrong<W, T>(c, weights, a, y, expected, found);
}

template <class W, class T>
void compare_all() {
  using F = quant::FragmentWeights<W>;
  unsigned seed = 1;
  for (const int m : {1, 2, 7, 8}) {
    for (const int n : {1, 15, 16, 17, 64}) {
      for (const int k : {F::kChunkColumns, F::kChunkColumns * 3})
        compare<W, T>({.m = m, .n = n, .k = k}, seed++);
    }
  }
  compare<W, T>({.m = 1, .n = 2304, .k = F::kChunkColumns * 17}, seed++);  // several tiles a block
  compare<W, T>({.m = 3, .n = 2304 * 4, .k = F::kChunkColumns}, seed++);   // several passes
  compare<W, T>({.m = 11, .n = 48, .k = F::kChunkColumns * 2}, seed++);    // two passes over tokens
  for (const int m : {1, 5}) {
    compare<W, T>({.m = m, .n = 96, .k = 1024, .has_bias = true}, seed++);
    compare<W, T>({.m = m, .n = 96, .k = 1024, .epilogue = LinearEpilogue::kAdd}, seed++);
    compare<W, T>({.m = m, .n = 96, .k = 1024, .has_norm = true}, seed++);
    compare<W, T>(
        {.m = m, .n = 96, .k = 1024, .epilogue = LinearEpilogue::kSiluMul, .has_norm = true},
        seed++);
  }
  if (W::kGroupSize == 32) compare<W, T>({.m = 1, .n = 33, .k = 96}, seed++);  // a padded chunk
}

}  // namespace

TEST_CASE_TEMPLATE("skinny linear on Cuda is Host's, Half activations",
                   W,
                   quant::WeightHalf,
                   quant::WeightInt4<32>,
                   quant::WeightInt4<64>,
                   quant::WeightInt4<128>,
                   quant::WeightAffine4<32>,
                   quant::WeightInt8<32>) {
  if (!has_gpu()) return;
  compare_all<W, Half>();
}

TEST_CASE_TEMPLATE("skinny linear on Cuda is Host's, BFloat16 activations",
                   W,
                   quant::WeightBFloat16,
                   quant::WeightInt4<32>,
                   quant::WeightInt4<128>,
                   quant::WeightAffine4<32>,
                   quant::WeightInt8<32>) {
  if (!has_gpu()) return;
  compare_all<W, BFloat16>();
}

TEST_CASE("skinny linear on Cuda: the shapes of a 7B layer, long sums") {
  if (!has_gpu()) return;
  using W = quant::WeightInt4<128>;
  compare<W, Half>({.m = 1, .n = 256, .k = 14336}, 1);
  compare<W, Half>({.m = 8, .n = 64, .k = 14336}, 2);
  compare<W, Half>({.m = 1, .n = 28672, .k = 256, .epilogue = LinearEpilogue::kSiluMul}, 3);
  compare<W, Half>({.m = 1, .n = 64, .k = 18944}, 4);
  compare<W, Half>({.m = 6, .n = 64, .k = 18944}, 5, Cuda{});
  // Small groups have many sums of x: fewer tokens fit.
  compare<quant::WeightInt4<32>, Half>({.m = 8, .n = 64, .k = 14336}, 6);
  compare<quant::WeightInt4<32>, Half>({.m = 8, .n = 64, .k = 14336}, 7, Cuda{});
  compare<W, Half>({.m = 1, .n = 92544, .k = 256}, 8);  // two passes
}

TEST_CASE("skinny linear refuses an x too long for one token") {
  if (!has_gpu()) return;
  using P = FragmentPolicy<quant::WeightInt4<128>, Half>;
  const Cuda ctx = least_device();
  CHECK(skinny_linear<P>(ctx, {.m = 1, .n = 16, .k = ctx.shared_bytes / 2 / 128 * 128}) ==
        cudaErrorInvalidValue);
}

TEST_CASE("skinny linear refuses shapes it cannot read") {
  using P = FragmentPolicy<quant::WeightInt4<128>, Half>;
  CHECK(skinny_linear<P>(Cuda{}, {.m = 1, .n = 16, .k = 100}) == cudaErrorInvalidValue);
  CHECK(skinny_linear<P>(Cuda{}, {.m = 1, .n = 0, .k = 128}) == cudaErrorInvalidValue);
}
