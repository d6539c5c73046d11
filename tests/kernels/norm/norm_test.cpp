/// \file  Norms: by hand, and the Cpu backend against the Host definition.
// SPDX-License-Identifier: Apache-2.0
#include <lmd/core/thread_pool.hpp>
#include <lmd/kernels/norm/layer_norm_cpu.hpp>
#include <lmd/kernels/norm/rms_norm_cpu.hpp>

#include <cmath>
#include <cstring>
#include <vector>

#include "cases/instruction_sets.hpp"
#include "cases/random.hpp"
#include "oracle/compare.hpp"
#include "oracle/guard.hpp"
#include <doctest/doctest.h>

namespace {

using namespace lmd;
using kernels::LayerNormArgs;
using kernels::RmsNormArgs;

TEST_CASE("rms_norm by hand") {
  float x[] = {1, 2, 3, 6};
  const float residual[] = {0, -1, 1, 1};  // sum 1, 1, 4, 7: mean of squares 67 / 4
  const float weight[] = {1, 2, 0.5f, -1};
  float out[4];
  kernels::rms_norm(
      Host{},
      {.out = out, .x = x, .residual = residual, .weight = weight, .eps = 0.25f, .m = 1, .n = 4});
  const double scale = 1.0 / std::sqrt(17.0);
  CHECK(out[0] == doctest::Approx(scale));
  CHECK(out[1] == doctest::Approx(2 * scale));
  CHECK(out[2] == doctest::Approx(2 * scale));
  CHECK(out[3] == doctest::Approx(-7 * scale));
  CHECK(x[3] == 7.0f);  // the sum stays for the next residual
}

TEST_CASE("layer_norm by hand") {
  float x[] = {1, 3, 5, 7};  // mean 4, variance 5
  const float weight[] = {1, 1, 2, 1};
  const float bias[] = {0, 10, 0, 0};
  float out[4];
  kernels::layer_norm(
      Host{}, {.out = out, .x = x, .weight = weight, .bias = bias, .eps = 4.0f, .m = 1, .n = 4});
  CHECK(out[0] == doctest::Approx(-1.0));
  CHECK(out[1] == doctest::Approx(10.0 - 1.0 / 3));
  CHECK(out[2] == doctest::Approx(2.0 / 3));
  CHECK(out[3] == doctest::Approx(1.0));
}

/// Rows: random; constant; with one outlier; random again.
std::vector<float> rows(int m, int n, std::uint64_t seed) {
  std::vector<float> x = test::random_floats(std::int64_t{m} * n, seed);
  for (int j = 0; j < n; ++j) {
    if (m > 1) x[static_cast<std::size_t>(n + j)] = 0.75f;
  }
  if (m > 2) x[2 * static_cast<std::size_t>(n)] = 1000.0f;
  return x;
}

constexpr int kSizes[] = {1, 7, 8, 9, 15, 16, 17, 31, 32, 33, 64, 100, 576, 4097};

template <class Args, class F>
void check(CpuIsa isa, F select, void (*host)(Host, const Args&), bool has_residual) {
  for (const int n : kSizes) {
    for (const int m : {1, 4}) {
      const std::vector<float> x = rows(m, n, 31);
      const std::vector<float> residual = test::random_floats(std::int64_t{m} * n, 32);
      const std::vector<float> weight = test::random_floats(n, 33);
      const std::vector<float> bias = test::random_floats(n, 34);
      Args args{};
      args.weight = weight.data();
      if constexpr (requires { args.bias; }) args.bias = bias.data();
      if (has_residual) args.residual = residual.data();
      args.eps = 1e-5f;
      args.m = m;
      args.n = n;
      std::vector<float> host_x = x;
      std::vector<float> cpu_x = x;
      std::vector<float> expected(x.size());
      test::GuardedFloats out(std::int64_t{m} * n);
      args.x = host_x.data();
      args.out = expected.data();
      host(Host{}, args);
      args.x = cpu_x.data();
      args.out = out.data();
      select(isa)(Cpu{}, args);
      CHECK(out.is_intact());
      CHECK(host_x == cpu_x);
      test::Comparison comparison;
      for (int i = 0; i < m; ++i) {
        for (int j = 0; j < n; ++j) {
          const std::size_t at = static_cast<std::size_t>(i) * n + j;
          // Sums of n numbers in at least 8 lanes: n / 8 + 8 roundings, relative to the output; the
          // mean's error is relative to the largest x, which a row's deviation of at least
          // sqrt(eps) magnifies.
          double size = std::fabs(expected[at]);
          if constexpr (requires { args.bias; }) {
            double largest = 0.0;
            for (int l = 0; l < n; ++l)
              largest = std::fmax(largest, std::fabs(host_x[static_cast<std::size_t>(i) * n + l]));
            double mean = 0.0, variance = 0.0;
            for (int l = 0; l < n; ++l)
              mean += double{host_x[static_cast<std::size_t>(i) * n + l]} / n;
            for (int l = 0; l < n; ++l) {
              const double d = host_x[static_cast<std::size_t>(i) * n + l] - mean;
              variance += d * d / n;
            }
            size += std::fabs(bias[j]) +
                    2.0 * largest / std::sqrt(variance + 1e-5) * std::fabs(weight[j]);
          }
          comparison.add(i, j, out[static_cast<std::int64_t>(at)], expected[at],
                         (n / 8 + 8) * 0x1p-24 * size + 1e-30);
        }
      }
      CHECK_MESSAGE(comparison.is_within(), to_string(isa), " seed 31 n ", n, " ",
                    comparison.worst());
    }
  }
}

TEST_CASE("norms on the Cpu backend agree with the Host definition") {
  for (const CpuIsa isa : test::runnable_isas()) {
    for (const bool has_residual : {false, true}) {
      check<RmsNormArgs>(isa, &kernels::select_rms_norm, &kernels::rms_norm, has_residual);
      check<LayerNormArgs>(isa, &kernels::select_layer_norm, &kernels::layer_norm, has_residual);
    }
  }
}

TEST_CASE("a row's norm does not depend on its company") {
  constexpr int kN = 1000, kM = 300;  // enough for several threads
  const std::vector<float> weight = test::random_floats(kN, 1);
  const std::vector<float> bias = test::random_floats(kN, 2);
  ThreadPool pool(3);
  for (const CpuIsa isa : test::runnable_isas()) {
    std::vector<float> x = rows(kM, kN, 3);
    std::vector<float> all(x.size());
    std::vector<float> one(kN);
    RmsNormArgs rms{.out = all.data(), .x = x.data(), .weight = weight.data(), .m = kM, .n = kN};
    LayerNormArgs layer{.out = all.data(),
                        .x = x.data(),
                        .weight = weight.data(),
                        .bias = bias.data(),
                        .eps = 1e-6f,
                        .m = kM,
                        .n = kN};
    const auto row_is_same = [&](int i) {
      return std::memcmp(one.data(), all.data() + std::size_t(i) * kN, kN * sizeof(float)) == 0;
    };
    kernels::select_rms_norm(isa)(Cpu{&pool}, rms);
    for (const int i : {0, 1, 2, 150, 299}) {
      RmsNormArgs alone = rms;
      alone.x += std::int64_t{i} * kN;
      alone.out = one.data();
      alone.m = 1;
      kernels::select_rms_norm(isa)(Cpu{}, alone);
      CHECK(row_is_same(i));
    }
    kernels::select_layer_norm(isa)(Cpu{&pool}, layer);
    for (const int i : {0, 1, 2, 150, 299}) {
      LayerNormArgs alone = layer;
      alone.x += std::int64_t{i} * kN;
      alone.out = one.data();
      alone.m = 1;
      kernels::select_layer_norm(isa)(Cpu{}, alone);
      CHECK(row_is_same(i));
    }
  }
}

}  // namespace
