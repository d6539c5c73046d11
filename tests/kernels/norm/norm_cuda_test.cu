/// \file  Norms: the Cuda backend against the Host definition on the same stored bytes.
// SPDX-License-Identifier: Apache-2.0
#include <lmd/kernels/norm/layer_norm.cuh>
#include <lmd/kernels/norm/rms_norm.cuh>

#include <cmath>
#include <vector>

#include "cases/activations.hpp"
#include "cases/random.hpp"
#include "gpu.cuh"
#include "oracle/compare.hpp"
#include "oracle/device_guard.cuh"
#include <doctest/doctest.h>

namespace {

using namespace lmd;
using kernels::BasicLayerNormArgs;
using kernels::BasicRmsNormArgs;

/// Rows: random; constant; with one outlier; zero; random again.
template <class T>
std::vector<T> rows(int m, int n, std::uint64_t seed) {
  std::vector<T> x = test::random_activations<T>(std::int64_t{m} * n, seed);
  for (int j = 0; j < n; ++j) {
    if (m > 1) x[static_cast<std::size_t>(n + j)] = from_float<T>(0.75f);
    if (m > 3) x[3 * static_cast<std::size_t>(n) + j] = from_float<T>(0.0f);
  }
  if (m > 2) x[2 * static_cast<std::size_t>(n)] = from_float<T>(1000.0f);
  return x;
}

struct Case {
  int m = 1;
  int n = 1;
  bool has_residual = false;
  bool is_in_place = false;
  int shift = 0;  ///< elements off a 16-byte boundary
};

/// How much larger than the result a norm's rounding errors can be: the mean's error is relative to
/// the largest x, which a row's deviation of at least sqrt(eps) magnifies.
template <class T>
double magnified(const std::vector<T>& x, std::size_t row, int n, double eps) {
  double largest = 0.0, mean = 0.0, variance = 0.0;
  for (int l = 0; l < n; ++l) {
    largest = std::fmax(largest, std::fabs(to_float(x[row + l])));
    mean += double{to_float(x[row + l])} / n;
  }
  for (int l = 0; l < n; ++l) {
    const double d = to_float(x[row + l]) - mean;
    variance += d * d / n;
  }
  return 2.0 * largest / std::sqrt(variance + eps);
}

template <template <class> class Args, class T, class Host, class Device>
void check(const Case& c, Host host, Device device) {
  constexpr float kEps = 1e-5f;
  const std::int64_t size = std::int64_t{c.m} * c.n;
  std::vector<T> x = rows<T>(c.m, c.n, 31);
  const std::vector<T> residual = test::random_activations<T>(size, 32);
  const std::vector<float> weight = test::random_floats(c.n, 33);
  const std::vector<float> bias = test::random_floats(c.n, 34);
  test::OnDevice<T> device_residual(residual, c.shift);
  test::OnDevice<float> device_weight(weight), device_bias(bias);
  test::GuardedDevice<T> device_x(size, c.shift), out(size, c.shift);
  LMD_CUDA_TRY(cudaMemcpy(device_x.data(), x.data(), x.size() * sizeof(T), cudaMemcpyDefault));

  Args<T> args{};
  args.x = device_x.data();
  args.out = c.is_in_place ? device_x.data() : out.data();
  args.residual = c.has_residual ? device_residual.data() : nullptr;
  args.weight = device_weight.data();
  if constexpr (requires { args.bias; }) args.bias = device_bias.data();
  args.eps = kEps;
  args.m = c.m;
  args.n = c.n;
  REQUIRE(device(args) == cudaSuccess);
  const std::vector<T> stored = device_x.fetch();
  CHECK(device_x.is_intact());
  const std::vector<T> got = c.is_in_place ? stored : out.fetch();
  if (!c.is_in_place) CHECK(out.is_intact());

  std::vector<T> expected(x.size());
  args.x = x.data();
  args.out = expected.data();
  args.residual = c.has_residual ? residual.data() : nullptr;
  args.weight = weight.data();
  if constexpr (requires { args.bias; }) args.bias = bias.data();
  host(args);
  test::Comparison sums, results;
  for (int i = 0; i < c.m; ++i) {
    const std::size_t row = static_cast<std::size_t>(i) * c.n;
    double spread = 0.0;
    if constexpr (requires { args.bias; }) spread = magnified(x, row, c.n, kEps);
    for (int j = 0; j < c.n; ++j) {
      if (!c.is_in_place) sums.add(i, j, to_float(stored[row + j]), to_float(x[row + j]), 0.0);
      // Sums of n numbers in at least 8 lanes: n / 8 + 8 roundings, relative to the output; then one
      // rounding to T on both sides, which may fall to neighbours.
      const double y = to_float(expected[row + j]);
      double size = std::fabs(y);
      if constexpr (requires { args.bias; }) {
        size += std::fabs(bias[j]) + spread * std::fabs(weight[j]);
      }
      results.add(i, j, to_float(got[row + j]), y,
                  (c.n / 8 + 8) * 0x1p-24 * size + test::spacing<T>(std::fabs(y) * 1.01));
    }
  }
  if (!c.is_in_place) CHECK_MESSAGE(sums.is_within(), "seed 31 n ", c.n, " x ", sums.worst());
  CHECK_MESSAGE(results.is_within(), "seed 31 m ", c.m, " n ", c.n, " residual ", c.has_residual,
                " shift ", c.shift, " ", results.worst());
}

template <class T>
void check_both(const Case& c) {
  check<BasicRmsNormArgs, T>(
      c, [](const auto& a) { kernels::rms_norm(Host{}, a); },
      [](const auto& a) { return kernels::rms_norm(Cuda{}, a); });
  check<BasicLayerNormArgs, T>(
      c, [](const auto& a) { kernels::layer_norm(Host{}, a); },
      [](const auto& a) { return kernels::layer_norm(Cuda{}, a); });
}

TEST_CASE_TEMPLATE(
    "small: norms on Cuda agree with the Host definition", T, Half, BFloat16, float) {
  if (!has_gpu()) return;
  for (const int n : {1, 7, 8, 9, 255, 256, 257}) {
    for (const int m : {1, 5}) {
      for (const bool has_residual : {false, true})
        check_both<T>({.m = m, .n = n, .has_residual = has_residual});
    }
  }
  check_both<T>({.m = 5, .n = 64, .has_residual = true, .is_in_place = true});
  check_both<T>({.m = 5, .n = 64, .has_residual = true, .shift = 1});
  CHECK(kernels::rms_norm<T>(Cuda{}, {.m = 0, .n = 8}) == cudaSuccess);
  CHECK(kernels::layer_norm<T>(Cuda{}, {.m = 0, .n = 8}) == cudaSuccess);
}

TEST_CASE_TEMPLATE("norms of models' sizes on Cuda agree with Host", T, Half, BFloat16, float) {
  if (!has_gpu()) return;
  // Around one, two and four packs a thread, and beyond what registers hold.
  for (const int n :
       {576, 3200, 4095, 4096, 4097, 4104, 6144, 16383, 16384, 16392, 32768, 32776, 40001}) {
    check_both<T>({.m = 5, .n = n});
    check_both<T>({.m = 5, .n = n, .has_residual = true, .is_in_place = n % 2 == 0});
  }
  check_both<T>({.m = 70'000, .n = 16, .has_residual = true});
}

TEST_CASE("a row's norm on Cuda does not depend on its company") {
  if (!has_gpu()) return;
  constexpr int kM = 300, kN = 4096;
  test::OnDevice<Half> x(rows<Half>(kM, kN, 3));
  test::OnDevice<float> weight(test::random_floats(kN, 4));
  test::GuardedDevice<Half> all(std::int64_t{kM} * kN), one(kN);
  BasicRmsNormArgs<Half> args{
      .out = all.data(), .x = x.data(), .weight = weight.data(), .m = kM, .n = kN};
  REQUIRE(kernels::rms_norm(Cuda{}, args) == cudaSuccess);
  const std::vector<Half> together = all.fetch();
  for (const int i : {0, 1, 150, 299}) {
    args.x = x.data() + std::int64_t{i} * kN;
    args.out = one.data();
    args.m = 1;
    REQUIRE(kernels::rms_norm(Cuda{.overlap = true}, args) == cudaSuccess);
    const std::vector<Half> alone = one.fetch();
    CHECK(std::memcmp(alone.data(), together.data() + std::size_t(i) * kN, kN * 2) == 0);
  }
}

}  // namespace
