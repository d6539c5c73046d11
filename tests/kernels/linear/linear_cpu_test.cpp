/// \file  Linear on the Cpu backend against the Host definition, and against itself: no output may
///        depend on its company.
// SPDX-License-Identifier: Apache-2.0
#include <lmd/core/thread_pool.hpp>
#include <lmd/kernels/linear/linear_cpu.hpp>

#include <cmath>
#include <cstring>
#include <string>
#include <vector>

#include "cases/instruction_sets.hpp"
#include "cases/random.hpp"
#include "cases/weights.hpp"
#include "oracle/compare.hpp"
#include "oracle/guard.hpp"
#include <doctest/doctest.h>

namespace {

using namespace lmd;
using kernels::LinearArgs;
using kernels::LinearEpilogue;

template <class F>
using Paired = kernels::WeightPolicy<F, quant::PairedOrder>;

template <class F>
struct Problem {
  int m, n, k;
  test::StoredWeights w;
  std::vector<float> x, bias, before;

  Problem(int m_, int n_, int k_, std::uint64_t seed)
      : m(m_),
        n(n_),
        k(k_),
        w(test::random_weights<F>(n_, k_, seed)),
        x(test::random_floats(std::int64_t{m_} * k_, seed + 1)),
        bias(test::random_floats(n_, seed + 2)),
        before(test::random_floats(std::int64_t{m_} * n_, seed + 3)) {
    x[0] = 100.0f;  // an outlier
    for (int l = 0; l < k && m > 1; ++l)
      x[static_cast<std::size_t>(k + l)] = 1.0f;  // a constant row
  }

  [[nodiscard]] LinearArgs args(float* y) const {
    return {.y = y,
            .x = x.data(),
            .codes = w.codes.data(),
            .params = w.params.data(),
            .bias = bias.data(),
            .m = m,
            .n = n,
            .k = k,
            .x_stride = k,
            .y_stride = n};
  }

  /// sum_l |x w|: what rounding errors of row i, column j are measured by.
  [[nodiscard]] double magnitude(int i, int j) const {
    const typename Paired<F>::Weights weights{
        w.codes.data(), reinterpret_cast<const typename F::Params*>(w.params.data()), k, n};
    double sum = std::fabs(bias[static_cast<std::size_t>(j)]);
    for (int l = 0; l < k; ++l)
      sum += std::fabs(static_cast<double>(x[static_cast<std::size_t>(i) * k + l]) *
                       weights.weight(j, l));
    return sum;
  }
};

template <class F>
std::vector<int> input_sizes() {
  if (F::kGroupSize == 0) return {1, 7, 8, 31, 32, 33, 577, 1024 + 5, 2048 + 33};
  const int group = F::kGroupSize;
  return {group, 3 * group, 640, 640 + group, 1024 - group, 1024, 1024 + group, 2048 + group};
}

template <class F>
void check_against_host(CpuIsa isa, int m, int n, int k, LinearEpilogue epilogue) {
  const std::uint64_t seed = 7;
  const Problem<F> p(m, n, k, seed);
  std::vector<float> expected = p.before;
  LinearArgs host = p.args(expected.data());
  host.epilogue = epilogue;
  kernels::linear<Paired<F>>(Host{}, host);

  test::GuardedFloats y(std::int64_t{m} * n);
  std::memcpy(y.data(), p.before.data(), p.before.size() * sizeof(float));
  LinearArgs args = p.args(y.data());
  args.epilogue = epilogue;
  kernels::select_linear<Paired<F>>(isa)(Cpu{}, args);

  CHECK(y.is_intact());
  test::Comparison comparison;
  for (int i = 0; i < m; ++i) {
    for (int j = 0; j < n; ++j) {
      const std::int64_t at = std::int64_t{i} * n + j;
      // A sum of k products is off by at most k roundings of its magnitude: Host's chain of k, and
      // at most as long a one here; 8 for the tree, the bias and the epilogue.
      const double bound = (2.0 * k + 8.0) * 0x1p-24 *
                           (p.magnitude(i, j) + std::fabs(p.before[static_cast<std::size_t>(at)]));
      comparison.add(i, j, y[at], expected[static_cast<std::size_t>(at)], bound);
    }
  }
  const std::string place = std::string(F::kName) + " " + to_string(isa) + " seed 7 m " +
                            std::to_string(m) + " n " + std::to_string(n) + " k " +
                            std::to_string(k) + " " + comparison.worst();
  CHECK_MESSAGE(comparison.is_within(), place);
}

template <class F>
void check_company(CpuIsa isa, int n, int k, const std::vector<int>& tokens) {
  const Problem<F> p(tokens.back(), n, k, 11);
  const auto linear = kernels::select_linear<Paired<F>>(isa);
  std::vector<float> alone(static_cast<std::size_t>(p.m) * n);
  for (int i = 0; i < p.m; ++i) {
    LinearArgs one = p.args(alone.data() + std::size_t(i) * n);
    one.x += std::int64_t{i} * k;
    one.m = 1;
    linear(Cpu{}, one);
  }
  for (const int threads : {1, 2, 3}) {
    ThreadPool pool(threads);
    for (const int m : tokens) {
      test::GuardedFloats y(std::int64_t{m} * n);
      LinearArgs args = p.args(y.data());
      args.m = m;
      linear(Cpu{&pool}, args);
      const bool is_same = std::memcmp(y.data(), alone.data(), sizeof(float) * m * n) == 0;
      CHECK_MESSAGE(is_same, F::kName, " ", to_string(isa), " m ", m, " n ", n, " k ", k,
                    " threads ", threads);
      CHECK(y.is_intact());
    }
  }
}

template <class F>
void check_format() {
  for (const CpuIsa isa : test::runnable_isas()) {
    for (const int k : input_sizes<F>()) {
      for (const int n : {1, 3, 4, 5, 8, 13, 25})
        check_against_host<F>(isa, 1, n, k, LinearEpilogue::kStore);
      check_against_host<F>(isa, 7, 25, k, LinearEpilogue::kAdd);
      check_against_host<F>(isa, 14, 25, k, LinearEpilogue::kAdd);
    }
    for (const int n : {1, 7, 8, 9, 31, 32, 33, 65}) {
      for (const int m : {4, 13})
        check_against_host<F>(isa, m, n, 384, LinearEpilogue::kStore);
    }
    check_company<F>(isa, 33, 1024 + 128, {1, 2, 3, 4, 5, 6, 7, 8, 9, 12, 13, 24, 25, 64});
    check_company<F>(isa, 5, 128, {1, 7, 191, 192, 193, 512});
    if (F::kGroupSize == 0) check_company<F>(isa, 5, 1024 + 5, {1, 7, 64});
  }
}

TEST_CASE("linear on the Cpu backend: float formats") {
  check_format<quant::WeightFloat>();
  check_format<quant::WeightHalf>();
  check_format<quant::WeightBFloat16>();
}
TEST_CASE("linear on the Cpu backend: 4-bit formats") {
  check_format<quant::WeightInt4<32>>();
  check_format<quant::WeightInt4<64>>();
  check_format<quant::WeightInt4<128>>();
  check_format<quant::WeightAffine4<32>>();
}
TEST_CASE("linear on the Cpu backend: int8") {
  check_format<quant::WeightInt8<32>>();
}

TEST_CASE("linear on the Cpu backend respects strides") {
  using F = quant::WeightAffine4<32>;
  const Problem<F> p(5, 6, 64, 3);
  std::vector<float> dense(30);
  kernels::linear<Paired<F>>(Cpu{}, p.args(dense.data()));
  std::vector<float> x(5 * 70, NAN);
  for (std::size_t i = 0; i < 5; ++i)
    std::memcpy(x.data() + i * 70, p.x.data() + i * 64, 64 * sizeof(float));
  std::vector<float> y(5 * 9, -1.0f);
  LinearArgs args = p.args(y.data());
  args.x = x.data();
  args.x_stride = 70;
  args.y_stride = 9;
  kernels::linear<Paired<F>>(Cpu{}, args);
  for (std::size_t i = 0; i < 5; ++i) {
    CHECK(std::memcmp(y.data() + i * 9, dense.data() + i * 6, 6 * sizeof(float)) == 0);
    for (std::size_t j = 6; j < 9; ++j)
      CHECK(y[i * 9 + j] == -1.0f);
  }
}

TEST_CASE("linear on the Cpu backend of no tokens writes nothing") {
  using F = quant::WeightInt8<32>;
  Problem<F> p(1, 4, 32, 3);
  p.m = 0;
  test::GuardedFloats y(0);
  kernels::linear<Paired<F>>(Cpu{}, p.args(y.data()));
  CHECK(y.is_intact());
}

}  // namespace
