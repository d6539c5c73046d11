/// \file  Angles of rotary embedding on Cuda against the Host definition.
// SPDX-License-Identifier: Apache-2.0
#include <lmd/kernels/elementwise/rope.cuh>

#include <cmath>
#include <cstdint>
#include <vector>

#include "cases/random.hpp"
#include "gpu.cuh"
#include "oracle/compare.hpp"
#include "oracle/device_guard.cuh"
#include <doctest/doctest.h>

namespace {

using namespace lmd;

struct Tokens {
  std::vector<int> positions;
  std::vector<double> bases;
};

/// Tokens of sequences of different bases, positions near and far, the largest int too.
Tokens mixed_tokens(int n, std::uint64_t seed) {
  constexpr double kBases[] = {1e4, 1e6, 5e7, 1.5658832346e7, 500000.0, 2.0};
  constexpr int kPositions[] = {0, 1, 63, 64, 4095, 32767, 262143, 1'000'000, INT32_MAX};
  test::Random random(seed);
  Tokens tokens;
  for (int i = 0; i < n; ++i) {
    tokens.positions.push_back(i % 3 == 0 ? random.below(2'000'000) : kPositions[i % 9]);
    tokens.bases.push_back(kBases[i % 6]);
  }
  return tokens;
}

void compare(const Tokens& tokens, int head_dim, double scale, bool overlap) {
  CAPTURE(tokens.positions.size());
  CAPTURE(head_dim);
  CAPTURE(scale);
  const auto n = static_cast<int>(tokens.positions.size());
  std::vector<float> expected(static_cast<std::size_t>(n) * head_dim);
  kernels::rope_rotation(Host{}, {.rotation = expected.data(),
                                  .positions = tokens.positions.data(),
                                  .bases = tokens.bases.data(),
                                  .position_scale = scale,
                                  .n = n,
                                  .head_dim = head_dim});
  test::OnDevice<int> positions(tokens.positions);
  test::OnDevice<double> bases(tokens.bases);
  test::GuardedDevice<float> rotation(static_cast<std::int64_t>(expected.size()));
  REQUIRE(kernels::rope_rotation(Cuda{.overlap = overlap}, {.rotation = rotation.data(),
                                                            .positions = positions.data(),
                                                            .bases = bases.data(),
                                                            .position_scale = scale,
                                                            .n = n,
                                                            .head_dim = head_dim}) == cudaSuccess);
  const std::vector<float> found = rotation.fetch();
  CHECK(rotation.is_intact());
  test::Comparison comparison;
  comparison.add(-1, -1, 0.0, 0.0, 0.0);
  for (int i = 0; i < n; ++i) {
    for (int d = 0; d < head_dim; ++d) {
      const int r = d % (head_dim / 2);
      const std::size_t at = static_cast<std::size_t>(i) * head_dim + d;
      const double angle =
          tokens.positions[i] * scale * std::pow(tokens.bases[i], -2.0 * r / head_dim);
      // The power within 2 ulp on both sides, a product, a cosine within 2 ulp; one rounding to
      // float that may fall on either side.
      const double bound =
          std::ldexp(4.0 * angle + 4.0, -52) + std::ldexp(std::fabs(expected[at]), -23);
      comparison.add(i, d, found[at], expected[at], bound);
    }
  }
  CHECK_MESSAGE(comparison.is_within(), comparison.worst());
}

}  // namespace

TEST_CASE("angles on Cuda are Host's") {
  if (!has_gpu()) return;
  std::uint64_t seed = 1;
  for (const int head_dim : {2, 6, 64, 96, 98, 128, 256}) {
    for (const int n : {0, 1, 2, 3, 127, 128, 129, 1000})
      compare(mixed_tokens(n, seed++), head_dim, 1.0, n % 2 == 0);
  }
}

TEST_CASE("angles on Cuda: positions divided by a factor") {
  if (!has_gpu()) return;
  std::uint64_t seed = 100;
  for (const double scale : {0.25, 0.5, 1.0 / 3.0, 1.0 / 7.3, 2.0})
    compare(mixed_tokens(77, seed++), 128, scale, false);
}

TEST_CASE("angles on Cuda: every position of a long context") {
  if (!has_gpu()) return;
  Tokens tokens;
  for (int i = 0; i < 40000; ++i) {
    tokens.positions.push_back(i);
    tokens.bases.push_back(1e6);
  }
  compare(tokens, 128, 1.0, true);
}

TEST_CASE("angles on Cuda: more than a grid has blocks is refused") {
  CHECK(kernels::rope_rotation(Cuda{}, {.n = INT32_MAX, .head_dim = 1024}) ==
        cudaErrorInvalidValue);
  CHECK(kernels::rope_rotation(Cuda{}, {.n = 0, .head_dim = 128}) == cudaSuccess);
}

TEST_CASE("small: angles on Cuda are Host's") {
  if (!has_gpu()) return;
  compare(mixed_tokens(129, 500), 128, 1.0, false);
  compare(mixed_tokens(3, 501), 64, 0.25, true);
}
