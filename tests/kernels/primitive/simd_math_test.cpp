/// \file  exp, silu and gelu on registers against the standard library, on every instruction set.
// SPDX-License-Identifier: Apache-2.0
#include <lmd/kernels/primitive/partial.hpp>
#include <lmd/kernels/primitive/simd_math.hpp>

#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <vector>

#include "cases/instruction_sets.hpp"
#include "cases/random.hpp"
#include <doctest/doctest.h>

#define LMD_SIMD_BODY_ "kernels/primitive/simd_math_calls.inc"
#include <lmd/kernels/primitive/for_each_isa.inc>

namespace {

using namespace lmd;

/// The functions of a namespace on arrays.
struct Functions {
  void (*exp)(const float* x, int n, float* out);
  void (*store_sums)(const float* registers, float* out);
  void (*store_eight_sums)(const float* registers, float* out);
  int lanes;
};

Functions functions_of(CpuIsa isa) {
#if defined(__x86_64__)
  if (isa == CpuIsa::kAvx512)
    return {&kernels::avx512::exp_of, &kernels::avx512::sums_of, &kernels::avx512::eight_sums_of,
            simd::avx512::kLanes};
  if (isa == CpuIsa::kAvx2)
    return {&kernels::avx2::exp_of, &kernels::avx2::sums_of, &kernels::avx2::eight_sums_of,
            simd::avx2::kLanes};
#endif
  return {&kernels::scalar::exp_of, &kernels::scalar::sums_of, &kernels::scalar::eight_sums_of,
          simd::scalar::kLanes};
}

TEST_CASE("exp on registers is within 2 ulp") {
  std::vector<float> x;
  for (double a = -87.3; a < 88.3; a += 0.00137)
    x.push_back(static_cast<float>(a));
  for (const CpuIsa isa : test::runnable_isas()) {
    std::vector<float> y(x.size());
    functions_of(isa).exp(x.data(), static_cast<int>(x.size()), y.data());
    double worst = 0.0;
    for (std::size_t i = 0; i < x.size(); ++i) {
      const double exact = std::exp(double{x[i]});
      const auto near = static_cast<float>(exact);
      const double ulp = double{std::nextafter(near, INFINITY)} - near;
      worst = std::fmax(worst, std::fabs(y[i] - exact) / ulp);
    }
    CHECK_MESSAGE(worst <= 2.0, to_string(isa), ": ", worst, " ulp");
  }
}

TEST_CASE("exp on registers at its borders") {
  const float inf = std::numeric_limits<float>::infinity();
  const std::vector<float> x = {0.0f, -0.0f, -inf, inf, -88.0f, -1e30f, 89.0f, 1e30f, NAN};
  const std::vector<float> expected = {1.0f, 1.0f, 0.0f, inf, 0.0f, 0.0f, inf, inf};
  for (const CpuIsa isa : test::runnable_isas()) {
    std::vector<float> y(x.size());
    functions_of(isa).exp(x.data(), static_cast<int>(x.size()), y.data());
    for (std::size_t i = 0; i < expected.size(); ++i)
      CHECK_MESSAGE(y[i] == expected[i], to_string(isa), " exp(", x[i], ")");
    CHECK(std::isnan(y.back()));
    const float above[] = {88.5f, 88.7f};
    float got[2];
    functions_of(isa).exp(above, 2, got);
    for (int i = 0; i < 2; ++i)
      CHECK(std::fabs(got[i] / std::exp(double{above[i]}) - 1.0) <= 2e-5);
  }
}

TEST_CASE("store_sums adds every register in the same order") {
  for (const CpuIsa isa : test::runnable_isas()) {
    const Functions f = functions_of(isa);
    const auto lanes = static_cast<std::size_t>(f.lanes);
    std::vector<float> registers(4 * lanes);
    for (std::size_t r = 0; r < 4; ++r) {
      for (std::size_t i = 0; i < lanes; ++i)
        registers[r * lanes + i] = 1.0f / static_cast<float>(3 + i * i);
    }
    float sums[4];
    f.store_sums(registers.data(), sums);
    for (int r = 1; r < 4; ++r)
      CHECK(sums[r] == sums[0]);
    for (std::size_t r = 0; r < 4; ++r) {
      for (std::size_t i = 0; i < lanes; ++i)
        registers[r * lanes + i] = static_cast<float>((r + 1) << i);
    }
    f.store_sums(registers.data(), sums);
    for (int r = 0; r < 4; ++r)
      CHECK(sums[r] == static_cast<float>((r + 1) * ((1 << f.lanes) - 1)));
  }
}

TEST_CASE("eight sums are those of four and four registers") {
  for (const CpuIsa isa : test::runnable_isas()) {
    const Functions f = functions_of(isa);
    const std::vector<float> registers = test::random_floats(8 * f.lanes, 5);
    float at_once[8];
    f.store_eight_sums(registers.data(), at_once);
    float in_turn[8];
    f.store_sums(registers.data(), in_turn);
    f.store_sums(registers.data() + std::ptrdiff_t{4} * f.lanes, in_turn + 4);
    CHECK(std::memcmp(at_once, in_turn, sizeof(at_once)) == 0);
  }
}

}  // namespace
