/// \file  Decoded weights, linear layers for hundreds of tokens and the choice of a kernel on Cuda,
///        against Host on the same stored bytes.
// SPDX-License-Identifier: Apache-2.0
#include <lmd/core/device_buffer.cuh>
#include <lmd/kernels/linear/linear_cuda.cuh>

#include <cstring>

#include "gpu.cuh"
#include "kernels/linear/linear_case.hpp"
#include <doctest/doctest.h>

using namespace lmd;
using namespace lmd::kernels;

namespace {

constexpr std::int64_t kDenseBytes = std::int64_t{32} << 20;

template <class W, class T>
void unpack_exactly(int n, int k, unsigned seed) {
  CAPTURE(W::kName);
  CAPTURE(n);
  CAPTURE(k);
  std::mt19937 rng(seed);
  const RandomRows<W> weights(n, k, rng);
  const std::vector<std::uint8_t> stream = weights.fragments();
  constexpr int kGuard = 64;
  std::vector<T> expected(std::size_t(n) * k + kGuard, T{0x5a5a});
  for (int j = 0; j < n; ++j) {
    for (int l = 0; l < k; ++l)
      expected[std::size_t(j) * k + l] = from_float<T>(weights.rows().weight(j, l));
  }
  DeviceBuffer<std::uint8_t> device_stream(stream.size());
  DeviceBuffer<T> rows(expected.size());
  device_stream.copy_from(stream);
  rows.fill_bytes(0x5a);
  REQUIRE(unpack_rows<FragmentPolicy<W, T>>(Cuda{}, device_stream.data(), n, k, rows.data()) ==
          cudaSuccess);
  std::vector<T> found(expected.size());
  rows.copy_to(found);
  int wrong = 0;
  for (std::size_t i = 0; i < found.size(); ++i) {
    if (found[i].bits == expected[i].bits) continue;
    if (++wrong <= 3) MESSAGE("at ", i, ": ", to_float(found[i]), " for ", to_float(expected[i]));
  }
  CHECK(wrong == 0);
}

struct Case {
  int m, n, k;
  LinearEpilogue epilogue = LinearEpilogue::kStore;
  bool has_norm = false;
  bool has_bias = false;
};

/// One product before its epilogue, in f64, and how far a rounded one may be from it.
struct Product {
  double value;
  double bound;
};

template <class W, class T>
Product product(const Case& c,
                const RandomRows<W>& weights,
                const std::vector<float>& bias,
                const std::vector<float>& x,
                int j) {
  const auto rows = weights.rows();
  double sum = c.has_bias ? bias[j] : 0.0;
  for (int l = 0; l < c.k; ++l)
    sum += double{x[l]} * rows.weight(j, l);
  // Weights are rounded to T, and so are x where it is normalised, the product and the biased one.
  const double size = magnitude<W>(rows, j, x);
  const double added = c.has_bias ? std::abs(bias[j]) : 0.0;
  return {sum, size * (sum_error(c.k) + kUlp<T>)+kUlp<T> * (2 * std::abs(sum) + added) + 1e-6};
}

/// Compares some outputs of every token; what lies between rows must be untouched.
template <class W, class T>
void count_wrong(const Case& c,
                 const RandomRows<W>& weights,
                 const std::vector<float>& bias,
                 const BasicLinearArgs<T>& a,
                 const std::vector<T>& before,
                 const std::vector<T>& found) {
  const bool is_gated = c.epilogue == LinearEpilogue::kSiluMul;
  const int n_out = is_gated ? c.n / 2 : c.n;
  const auto y_stride = static_cast<int>(a.y_stride);
  int wrong = 0;
  for (int i = 0; i < c.m; ++i) {
    const std::vector<float> row = kernels::detail::linear_input(a, i);
    for (int j = n_out; j < y_stride; ++j) {
      const std::size_t at = std::size_t(i) * y_stride + j;
      wrong += found[at].bits != before[at].bits;
    }
    for (int j = i % 7; j < n_out; j += 7) {
      const std::size_t at = std::size_t(i) * y_stride + j;
      double expected = 0;
      double bound = 0;
      if (is_gated) {
        const Product g = product<W, T>(c, weights, bias, row, gate_row(j));
        const Product u = product<W, T>(c, weights, bias, row, up_row(j));
        expected = g.value / (1 + std::exp(-g.value)) * u.value;
        // |silu'| <= 1.1 and |silu(g)| <= |g|
        bound = 1.1 * g.bound * (std::abs(u.value) + u.bound) + std::abs(g.value) * u.bound;
      } else {
        const Product p = product<W, T>(c, weights, bias, row, j);
        const double y = c.epilogue == LinearEpilogue::kAdd ? to_float(before[at]) : 0.0;
        expected = p.value + y;
        bound = p.bound + 2 * kUlp<T> * std::abs(y);
      }
      bound += kUlp<T> * std::abs(expected) + 1e-6;
      const double f = to_float(found[at]);
      if (!(std::abs(f - expected) <= bound)) {
        if (++wrong <= 3)
          MESSAGE("row ", i, " feature ", j, ": ", f, " for ", expected, " +- ", bound);
      }
    }
  }
  CHECK(wrong == 0);
}

/// Runs the case by wide_linear, or by the kernel that `linear` chooses, and compares.
template <class W, class T>
void compare(const Case& c, unsigned seed, bool is_wide) {
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
  const int y_stride = (c.epilogue == LinearEpilogue::kSiluMul ? c.n / 2 : c.n) + 3;
  const int x_stride = c.has_norm ? c.k : c.k + 8;
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
  BasicLinearArgs<T> a{.x = x.data(),
                       .m = c.m,
                       .n = c.n,
                       .k = c.k,
                       .x_stride = x_stride,
                       .y_stride = y_stride,
                       .epilogue = c.epilogue,
                       .norm_weight = c.has_norm ? norm.data() : nullptr,
                       .norm_eps = 1e-5f};
  BasicLinearArgs<T> d = a;
  d.y = device_y.data();
  d.x = device_x.data();
  d.codes = device_stream.data();
  if (c.has_norm) d.norm_weight = device_norm.data();
  if (c.has_bias) d.bias = device_bias.data();

  Cuda ctx = least_device();
  LMD_CUDA_TRY(multiprocessors(ctx, &ctx.multiprocessors));
  DeviceBuffer<float> parts(tile_part_elements(ctx.multiprocessors));
  DeviceBuffer<int> counters(tile_counters(c.n));
  counters.fill_bytes(0);
  DeviceBuffer<std::uint8_t> scratch(
      std::max(linear_scratch_bytes(c.m, c.n, c.k), warpgroup_scratch_bytes(c.k)));
  DeviceBuffer<std::uint8_t> dense_memory(kDenseBytes);
  LMD_CUDA_TRY(cudaDeviceSynchronize());
  DenseGemm dense(dense_memory.data(), kDenseBytes);
  const LinearWorkspace workspace{.parts = parts.data(),
                                  .counters = counters.data(),
                                  .scratch = scratch.data(),
                                  .scratch_bytes = scratch.size(),
                                  .dense = &dense};
  REQUIRE((is_wide ? wide_linear<P>(ctx, d, workspace) : linear<P>(ctx, d, workspace)) ==
          cudaSuccess);
  std::vector<T> found(y.size());
  device_y.copy_to(found);
  count_wrong<W, T>(c, weights, bias, a, y, found);
}

template <class W, class T>
void compare_all() {
  unsigned seed = 1;
  for (const int m : {70, 130}) {
    for (const LinearEpilogue epilogue :
         {LinearEpilogue::kStore, LinearEpilogue::kAdd, LinearEpilogue::kSiluMul}) {
      for (const bool has_extras : {false, true}) {
        compare<W, T>({.m = m,
                       .n = 272,
                       .k = 640,
                       .epilogue = epilogue,
                       .has_norm = has_extras,
                       .has_bias = has_extras},
                      seed++, true);
      }
    }
  }
}

}  // namespace

TEST_CASE_TEMPLATE("unpack_rows is W::decode rounded, Half",
                   W,
                   quant::WeightHalf,
                   quant::WeightInt4<32>,
                   quant::WeightInt4<64>,
                   quant::WeightInt4<128>,
                   quant::WeightAffine4<32>,
                   quant::WeightInt8<32>) {
  if (!has_gpu()) return;
  constexpr int kChunk = quant::FragmentWeights<W>::kChunkColumns;
  for (const int n : {1, 8, 9, 16, 33, 300})
    unpack_exactly<W, Half>(n, kChunk * 3, static_cast<unsigned>(n));
  if (W::kGroupSize == 32) unpack_exactly<W, Half>(17, 96, 7);  // a padded chunk
}

TEST_CASE_TEMPLATE("unpack_rows is W::decode rounded, BFloat16",
                   W,
                   quant::WeightBFloat16,
                   quant::WeightInt4<128>,
                   quant::WeightAffine4<32>,
                   quant::WeightInt8<32>) {
  if (!has_gpu()) return;
  constexpr int kChunk = quant::FragmentWeights<W>::kChunkColumns;
  for (const int n : {1, 33, 300})
    unpack_exactly<W, BFloat16>(n, kChunk * 3, static_cast<unsigned>(n));
}

TEST_CASE_TEMPLATE("wide linear on Cuda is Host's, Half activations",
                   W,
                   quant::WeightHalf,
                   quant::WeightInt4<128>,
                   quant::WeightAffine4<32>,
                   quant::WeightInt8<32>) {
  if (!has_gpu()) return;
  compare_all<W, Half>();
}

TEST_CASE_TEMPLATE("wide linear on Cuda is Host's, BFloat16 activations",
                   W,
                   quant::WeightBFloat16,
                   quant::WeightInt4<128>) {
  if (!has_gpu()) return;
  compare_all<W, BFloat16>();
}

TEST_CASE("linear on Cuda, any number of tokens") {
  if (!has_gpu()) return;
  using W = quant::WeightInt4<128>;
  unsigned seed = 1;
  for (const int m : {1, 8, 9, 64, 128, 129}) {
    compare<W, Half>({.m = m, .n = 272, .k = 640}, seed++, false);
    compare<W, Half>({.m = m,
                      .n = 272,
                      .k = 640,
                      .epilogue = LinearEpilogue::kSiluMul,
                      .has_norm = true,
                      .has_bias = true},
                     seed++, false);
  }
}

TEST_CASE("wide linear refuses too little scratch") {
  if (!has_gpu()) return;
  using P = FragmentPolicy<quant::WeightInt4<128>, Half>;
  DenseGemm dense(nullptr, 0);
  CHECK(wide_linear<P>(Cuda{}, {.m = 9, .n = 16, .k = 128}, {.dense = &dense}) ==
        cudaErrorInvalidValue);
}
