/// \file  Rotary embedding against numbers computed elsewhere in double precision.
// SPDX-License-Identifier: Apache-2.0
#include <lmd/kernels/elementwise/rope.hpp>

#include <cmath>

#include <doctest/doctest.h>

namespace {

using namespace lmd;

TEST_CASE("a head of 128 at position 5, base 1e6") {
  float rotation[128];
  const int position = 5;
  const double base = 1e6;
  kernels::rope_rotation(
      Host{},
      {.rotation = rotation, .positions = &position, .bases = &base, .n = 1, .head_dim = 128});
  float head[128];
  for (int i = 0; i < 128; ++i)
    head[i] = static_cast<float>(i) / 128.0f;
  kernels::rotate_head(head, rotation, 128);
  const struct {
    int i;
    double y;
  } golden[] = {{0, 0.4794621373},  {1, 0.3889126502},   {2, 0.0386645508},   {63, 0.4921813438},
                {64, 0.1418310927}, {65, -0.3266213723}, {66, -0.5144106665}, {127, 0.9921905539}};
  for (const auto& [i, y] : golden)
    CHECK_MESSAGE(std::fabs(head[i] - y) <= 2e-7, i, ": ", head[i], ", expected ", y);
  double sum = 0.0;
  for (const float x : head)
    sum += x;
  CHECK(sum == doctest::Approx(53.8368477149).epsilon(1e-7));
}

TEST_CASE("linear scaling multiplies positions") {
  float scaled[64], plain[64];
  const int position = 8, quarter = 2;
  const double base = 1e4;
  kernels::rope_rotation(Host{}, {.rotation = scaled,
                                  .positions = &position,
                                  .bases = &base,
                                  .position_scale = 0.25,
                                  .n = 1,
                                  .head_dim = 64});
  kernels::rope_rotation(
      Host{}, {.rotation = plain, .positions = &quarter, .bases = &base, .n = 1, .head_dim = 64});
  for (int i = 0; i < 64; ++i)
    CHECK(scaled[i] == plain[i]);
}

TEST_CASE("the base of dynamic NTK scaling") {
  const struct {
    double base, factor;
    int max_position, length;
    double expected;
  } golden[] = {
      {1e6, 2.0, 32768, 32768, 1000000.0},      {1e6, 2.0, 32768, 32769, 1000062.004},
      {1e6, 2.0, 32768, 40000, 1449795.742},    {1e6, 2.0, 32768, 65536, 3052773.675},
      {1e6, 2.0, 32768, 131072, 7219586.009},   {1e6, 2.0, 32768, 200000, 11645259.310},
      {1e6, 2.0, 32768, 262144, 15658832.346},  {1e6, 2.0, 32768, 1000000, 64066987.921},
      {1e6, 3.0, 32768, 32769, 1000093.006},    {1e6, 3.0, 32768, 65536, 4088994.243},
      {1e6, 3.0, 32768, 131072, 10372250.954},  {1e6, 3.0, 32768, 200000, 17049594.517},
      {5e7, 2.5, 262144, 262145, 50000484.406}, {5e7, 2.5, 262144, 1000000, 415352132.398}};
  for (const auto& g : golden) {
    const double base = kernels::dynamic_ntk_base(g.base, g.factor, g.max_position, 128, g.length);
    CHECK_MESSAGE(std::fabs(base - g.expected) <= 1e-3, g.length, ": ", base, ", expected ",
                  g.expected);
  }
  CHECK(kernels::dynamic_ntk_base(1e6, 1.0, 32768, 128, 100000) == 1e6);  // no scaling asked for
}

}  // namespace
