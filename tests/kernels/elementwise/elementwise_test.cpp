/// \file  SiLU, GELU and embedding: by hand, and the Cpu backend against the Host definition.
// SPDX-License-Identifier: Apache-2.0
#include <lmd/core/thread_pool.hpp>
#include <lmd/kernels/elementwise/embed_cpu.hpp>
#include <lmd/kernels/elementwise/gelu_cpu.hpp>
#include <lmd/kernels/elementwise/silu_mul_cpu.hpp>

#include <cmath>
#include <cstring>
#include <vector>

#include "cases/instruction_sets.hpp"
#include "cases/random.hpp"
#include "cases/weights.hpp"
#include "oracle/compare.hpp"
#include "oracle/guard.hpp"
#include <doctest/doctest.h>

namespace {

using namespace lmd;

constexpr int kSizes[] = {1, 7, 8, 9, 15, 16, 17, 32, 33, 1536};

TEST_CASE("silu_mul by hand") {
  const float gate_up[] = {0, 1, -2, 5, 3, 4};
  float out[3];
  kernels::silu_mul(Host{}, {.out = out, .gate_up = gate_up, .m = 1, .n = 3});
  CHECK(out[0] == 0.0f);
  CHECK(out[1] == doctest::Approx(3 * 0.7310585786));
  CHECK(out[2] == doctest::Approx(4 * -2 * 0.1192029220));
}

TEST_CASE("gelu by hand: the form with erf") {
  const float x[] = {0, 1, -1, 3, -10};
  float out[5];
  kernels::gelu(Host{}, {.out = out, .x = x, .n = 5});
  CHECK(out[0] == 0.0f);
  CHECK(out[1] == doctest::Approx(0.8413447461).epsilon(1e-6));
  CHECK(out[2] == doctest::Approx(-0.1586552539).epsilon(1e-6));
  CHECK(out[3] == doctest::Approx(2.9959503059).epsilon(1e-6));
  CHECK(std::fabs(out[4]) < 1e-6f);
}

TEST_CASE("silu_mul on the Cpu backend agrees with the Host definition") {
  ThreadPool pool(3);
  for (const CpuIsa isa : test::runnable_isas()) {
    for (const int n : kSizes) {
      for (const int m : {1, 3, 150}) {
        std::vector<float> gate_up = test::random_floats(2 * std::int64_t{m} * n, 5);
        for (float& x : gate_up)
          x *= 10.0f;
        gate_up[0] = -200.0f;  // exp(200) is infinite: the result is 0
        std::vector<float> expected(static_cast<std::size_t>(m) * n);
        test::GuardedFloats out(std::int64_t{m} * n);
        kernels::silu_mul(Host{},
                          {.out = expected.data(), .gate_up = gate_up.data(), .m = m, .n = n});
        kernels::select_silu_mul(isa)(
            Cpu{&pool}, {.out = out.data(), .gate_up = gate_up.data(), .m = m, .n = n});
        CHECK(out.is_intact());
        test::Comparison comparison;
        for (std::int64_t i = 0; i < out.size(); ++i) {
          const double y = expected[static_cast<std::size_t>(i)];
          // exp within 2 ulp on both sides, then three roundings on both.
          comparison.add(i / n, i % n, out[i], y, 8 * 0x1p-23 * std::fabs(y) + 1e-30);
        }
        CHECK_MESSAGE(comparison.is_within(), to_string(isa), " n ", n, " ", comparison.worst());
      }
    }
  }
}

TEST_CASE("gelu on the Cpu backend agrees with the Host definition") {
  ThreadPool pool(3);
  for (const CpuIsa isa : test::runnable_isas()) {
    for (const std::int64_t n : {1, 7, 8, 9, 1000, 300001}) {
      std::vector<float> x = test::random_floats(n, 6);
      for (float& value : x)
        value *= 4.0f;
      x[0] = n > 1 ? -INFINITY : -30.0f;
      std::vector<float> expected(x.size());
      test::GuardedFloats out(n);
      kernels::gelu(Host{}, {.out = expected.data(), .x = x.data(), .n = n});
      kernels::select_gelu(isa)(Cpu{&pool}, {.out = out.data(), .x = x.data(), .n = n});
      CHECK(out.is_intact());
      test::Comparison comparison;
      for (std::int64_t i = 0; i < n; ++i) {
        const auto at = static_cast<std::size_t>(i);
        comparison.add(0, i, out[i], expected[at], 1e-6 * std::fmax(1.0, std::fabs(x[at])));
      }
      CHECK_MESSAGE(comparison.is_within(), to_string(isa), " n ", n, " ", comparison.worst());
    }
  }
}

TEST_CASE("embedding by hand: ids that stand for drawn tokens, and ids without a row") {
  const float table[] = {1, 2, 3, 4, 5, 6};
  const int ids[] = {2, -1, -2, -3, 3, 0};
  const int drawn[] = {1, -1, 3};
  float out[12];
  kernels::EmbedArgs args{.out = out,
                          .ids = ids,
                          .codes = reinterpret_cast<const std::uint8_t*>(table),
                          .m = 6,
                          .n = 3,
                          .k = 2,
                          .drawn = drawn};
  using P = kernels::WeightPolicy<quant::WeightFloat>;
  kernels::embed<P>(Host{}, args);
  CHECK(std::vector<float>(out, out + 12) ==
        std::vector<float>{5, 6, 3, 4, 0, 0, 0, 0, 0, 0, 1, 2});
  args.drawn = nullptr;  // negative ids have no row
  kernels::embed<P>(Host{}, args);
  CHECK(std::vector<float>(out, out + 12) ==
        std::vector<float>{5, 6, 0, 0, 0, 0, 0, 0, 0, 0, 1, 2});
}

template <class F>
void check_embed_of_fragments(int k) {
  using Params = typename F::Params;
  constexpr int kRows = 19;  // the second tile of 16 is not full
  const test::StoredWeights w = test::random_weights<F>(kRows, k, 8);
  std::vector<std::uint8_t> stream(
      static_cast<std::size_t>(quant::FragmentWeights<F>::stream_bytes(kRows, k)));
  quant::pack_fragments<F>(
      {w.codes.data(), reinterpret_cast<const Params*>(w.params.data()), k, kRows}, stream.data());
  const int ids[] = {18, 0, 7, 8, -2, -1, 15, 16};
  const int drawn[] = {17, -1};
  constexpr int kTokens = 8;
  std::vector<float> expected(kTokens * static_cast<std::size_t>(k));
  kernels::EmbedArgs args{.out = expected.data(),
                          .ids = ids,
                          .codes = w.codes.data(),
                          .params = w.params.data(),
                          .m = kTokens,
                          .n = kRows,
                          .k = k,
                          .drawn = drawn};
  kernels::embed<kernels::WeightPolicy<F>>(Host{}, args);
  std::vector<float> found(expected.size());
  args.out = found.data();
  args.codes = stream.data();
  args.params = nullptr;  // they lie in the stream
  kernels::embed<kernels::FragmentPolicy<F, Half>>(Host{}, args);
  CHECK_MESSAGE(found == expected, F::kName, " k ", k);
}

TEST_CASE("embedding of a fragment stream is that of its rows") {
  for_each_type(quant::WeightFormats{}, [&](auto t) {
    using F = typename decltype(t)::type;
    if constexpr (F::kBits < 32) {
      constexpr int kGroup = F::kGroupSize == 0 ? 8 : F::kGroupSize;
      for (const int k : {kGroup, 3 * kGroup, 512 + kGroup})
        check_embed_of_fragments<F>(k);
    }
  });
}

/// With `drawn` or without: then negative ids have no row.
template <class F>
void check_embed(CpuIsa isa, int k, const int* drawn) {
  using P = kernels::WeightPolicy<F, quant::PairedOrder>;
  constexpr int kRows = 9;
  const test::StoredWeights w = test::random_weights<F>(kRows, k, 8);
  const int ids[] = {8, 0, 3, -1, 3, kRows, 7, -2, -3};
  constexpr int kTokens = 9;
  std::vector<float> expected(kTokens * static_cast<std::size_t>(k));
  test::GuardedFloats out(kTokens * std::int64_t{k});
  kernels::EmbedArgs args{.out = expected.data(),
                          .ids = ids,
                          .codes = w.codes.data(),
                          .params = w.params.data(),
                          .m = kTokens,
                          .n = kRows,
                          .k = k,
                          .drawn = drawn};
  kernels::embed<P>(Host{}, args);
  args.out = out.data();
  kernels::select_embed<P>(isa)(Cpu{}, args);
  CHECK(out.is_intact());
  for (std::int64_t i = 0; i < out.size(); ++i) {
    if (out[i] == expected[static_cast<std::size_t>(i)]) continue;
    FAIL_CHECK(F::kName, " ", to_string(isa), " k ", k, " at ", i,
               drawn == nullptr ? "" : ", with drawn ids");
    break;
  }
}

TEST_CASE("embedding on the Cpu backend gives the very floats of the definition") {
  const int drawn[] = {4, -1, 6};
  for (const CpuIsa isa : test::runnable_isas()) {
    for_each_type(quant::WeightFormats{}, [&](auto t) {
      using F = typename decltype(t)::type;
      const std::vector<int> sizes =
          F::kGroupSize == 0
              ? std::vector<int>{1, 31, 33, 577, 2049}
              : std::vector<int>{F::kGroupSize, 3 * F::kGroupSize, 2048 + F::kGroupSize};
      for (const int k : sizes) {
        check_embed<F>(isa, k, nullptr);
        check_embed<F>(isa, k, drawn);
      }
    });
  }
}

}  // namespace
