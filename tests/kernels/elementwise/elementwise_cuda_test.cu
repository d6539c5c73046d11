/// \file  SiLU, GELU and embedding: the Cuda backend against the Host definition on the same bytes.
// SPDX-License-Identifier: Apache-2.0
#include <lmd/kernels/elementwise/embed.cuh>
#include <lmd/kernels/elementwise/gelu.cuh>
#include <lmd/kernels/elementwise/silu_mul.cuh>

#include <climits>
#include <cmath>
#include <vector>

#include "cases/activations.hpp"
#include "cases/weights.hpp"
#include "gpu.cuh"
#include "oracle/compare.hpp"
#include "oracle/device_guard.cuh"
#include <doctest/doctest.h>

namespace {

using namespace lmd;

template <class T>
void check_silu_mul(int m, int n, int shift = 0) {
  std::vector<T> gate_up = test::random_activations<T>(2 * std::int64_t{m} * n, 5, 10.0f);
  gate_up[0] = from_float<T>(-200.0f);  // exp(200) is infinite: the result is 0
  test::OnDevice<T> device(gate_up, shift);
  test::GuardedDevice<T> out(std::int64_t{m} * n, shift);
  REQUIRE(kernels::silu_mul<T>(Cuda{}, {out.data(), device.data(), m, n}) == cudaSuccess);
  const std::vector<T> got = out.fetch();
  CHECK(out.is_intact());
  std::vector<T> expected(got.size());
  kernels::silu_mul<T>(Host{}, {expected.data(), gate_up.data(), m, n});
  test::Comparison comparison;
  for (std::size_t i = 0; i < got.size(); ++i) {
    const double y = to_float(expected[i]);
    // exp within 2 ulp on both sides, three roundings on both, one rounding to T.
    comparison.add(static_cast<std::int64_t>(i) / n, static_cast<std::int64_t>(i) % n,
                   to_float(got[i]), y,
                   8 * 0x1p-23 * std::fabs(y) + test::spacing<T>(std::fabs(y) * 1.01));
  }
  CHECK_MESSAGE(comparison.is_within(), "m ", m, " n ", n, " ", comparison.worst());
}

template <class T>
void check_gelu(std::int64_t n, int shift = 0) {
  std::vector<T> x = test::random_activations<T>(n, 6, 4.0f);
  x[0] = from_float<T>(n > 1 ? -INFINITY : -30.0f);
  test::OnDevice<T> device(x, shift);
  test::GuardedDevice<T> out(n, shift);
  REQUIRE(kernels::gelu<T>(Cuda{}, {out.data(), device.data(), n}) == cudaSuccess);
  const std::vector<T> got = out.fetch();
  CHECK(out.is_intact());
  std::vector<T> expected(got.size());
  kernels::gelu<T>(Host{}, {expected.data(), x.data(), n});
  test::Comparison comparison;
  for (std::int64_t i = 0; i < n; ++i) {
    const auto at = static_cast<std::size_t>(i);
    const double y = to_float(expected[at]);
    comparison.add(
        0, i, to_float(got[at]), y,
        1e-6 * std::fmax(1.0, std::fabs(to_float(x[at]))) + test::spacing<T>(std::fabs(y) * 1.01));
  }
  CHECK_MESSAGE(comparison.is_within(), "n ", n, " ", comparison.worst());
}

/// The codes of a table [n, k] in the policy's order. Any bytes are codes in the order of rows.
template <class P>
std::vector<std::uint8_t> codes_of(const test::StoredWeights& w, int n, int k) {
  using F = typename P::Format;
  if constexpr (requires { typename P::Order; }) {
    return {w.codes.begin(), w.codes.end()};
  } else {
    using Params = typename F::Params;
    std::vector<std::uint8_t> stream(
        static_cast<std::size_t>(quant::FragmentWeights<F>::stream_bytes(n, k)));
    quant::pack_fragments<F>(
        {w.codes.data(), reinterpret_cast<const Params*>(w.params.data()), k, n}, stream.data());
    return stream;
  }
}

/// Ids without a row give zeros: those outside the table, and with `drawn` those that stand for one.
template <class P, class T>
void check_embed_of(const std::vector<int>& ids, const std::vector<int>& drawn, int k, int shift) {
  using F = typename P::Format;
  constexpr int kRows = 19;
  const test::StoredWeights w = test::random_weights<F>(kRows, k, 8);
  const std::vector<std::uint8_t> host_codes = codes_of<P>(w, kRows, k);
  const int m = static_cast<int>(ids.size());
  test::OnDevice<std::uint8_t> codes(host_codes);
  test::OnDevice<std::uint8_t> params({w.params.begin(), w.params.end()});
  test::OnDevice<int> device_ids(ids);
  test::OnDevice<int> device_drawn(drawn);
  test::GuardedDevice<T> out(std::int64_t{m} * k, shift);
  kernels::BasicEmbedArgs<T> args{.out = out.data(),
                                  .ids = device_ids.data(),
                                  .codes = codes.data(),
                                  .params = params.data(),
                                  .m = m,
                                  .n = kRows,
                                  .k = k,
                                  .drawn = drawn.empty() ? nullptr : device_drawn.data()};
  CAPTURE(drawn.size());
  REQUIRE(kernels::embed<P>(Cuda{}, args) == cudaSuccess);
  const std::vector<T> got = out.fetch();
  CHECK(out.is_intact());
  std::vector<T> expected(got.size());
  args.out = expected.data();
  args.ids = ids.data();
  args.drawn = drawn.empty() ? nullptr : drawn.data();
  args.codes = host_codes.data();
  args.params = w.params.data();
  kernels::embed<P>(Host{}, args);
  for (std::size_t i = 0; i < got.size(); ++i) {
    if (to_float(got[i]) == to_float(expected[i])) continue;
    FAIL_CHECK(F::kName, " k ", k, " at ", i, ": ", to_float(got[i]), ", expected ",
               to_float(expected[i]));
    break;
  }
}

template <class P, class T>
void check_embed(int k, int shift = 0) {
  check_embed_of<P, T>({8, 0, 18, -1, 18, 19, 7, INT_MIN, INT_MAX}, {}, k, shift);
  check_embed_of<P, T>({-1, 16, -3, -2, -4, 19, INT_MAX}, {5, -1, 15, 19}, k, shift);
}

TEST_CASE_TEMPLATE("silu_mul on Cuda agrees with the Host definition", T, Half, BFloat16, float) {
  if (!has_gpu()) return;
  for (const int n : {1, 7, 8, 9, 1536, 2047, 2048, 2049}) {
    for (const int m : {1, 3})
      check_silu_mul<T>(m, n);
  }
  check_silu_mul<T>(3, 64, 1);
  check_silu_mul<T>(70'000, 8);
  check_silu_mul<T>(3, 14336);
  CHECK(kernels::silu_mul<T>(Cuda{}, {}) == cudaSuccess);
}

TEST_CASE_TEMPLATE("gelu on Cuda agrees with the Host definition", T, Half, BFloat16, float) {
  if (!has_gpu()) return;
  for (const std::int64_t n : {1, 7, 8, 9, 2047, 2048, 2049, 300'001})
    check_gelu<T>(n);
  check_gelu<T>(100, 1);
  CHECK(kernels::gelu<T>(Cuda{}, {}) == cudaSuccess);
}

TEST_CASE_TEMPLATE("embedding on Cuda gives the numbers of the definition", T, Half, BFloat16) {
  if (!has_gpu()) return;
  for_each_type(quant::WeightFormats{}, [&](auto t) {
    using F = typename decltype(t)::type;
    if (F::kGroupSize == 0) {
      for (const int k : {1, 7, 8, 9, 576, 2047, 2048, 2049})
        check_embed<kernels::WeightPolicy<F>, T>(k);
      check_embed<kernels::WeightPolicy<F>, T>(64, 1);
    } else {
      for (const int k : {F::kGroupSize, 3 * F::kGroupSize, 2048 + F::kGroupSize}) {
        check_embed<kernels::WeightPolicy<F>, T>(k);
        check_embed<kernels::WeightPolicy<F, quant::PairedOrder>, T>(k);
      }
    }
    if constexpr (F::kBits < 32) {
      constexpr int kGroup = F::kGroupSize == 0 ? 8 : F::kGroupSize;
      for (const int k : {kGroup, 3 * kGroup, 2048 + kGroup})
        check_embed<kernels::FragmentPolicy<F, T>, T>(k);
      check_embed<kernels::FragmentPolicy<F, T>, T>(kGroup, 1);
    }
  });
}

}  // namespace

TEST_CASE_TEMPLATE("small: elementwise operations and embedding", T, Half, BFloat16) {
  if (!has_gpu()) return;
  check_silu_mul<T>(3, 136);
  check_silu_mul<T>(3, 64, 1);
  check_gelu<T>(2049);
  check_embed<kernels::WeightPolicy<quant::WeightHalf>, T>(65);
  check_embed<kernels::WeightPolicy<quant::WeightInt4<32>, quant::PairedOrder>, T>(96);
}
