/// \file  16-bit floats against bytes written by hand, and rounding at every midpoint.
// SPDX-License-Identifier: Apache-2.0
#include <lmd/core/bfloat16.hpp>
#include <lmd/core/half.hpp>

#include <cmath>
#include <cstdint>
#include <limits>

#include <doctest/doctest.h>

namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

lmd::Half half(int bits) {
  return {static_cast<std::uint16_t>(bits)};
}

lmd::BFloat16 bfloat16(int bits) {
  return {static_cast<std::uint16_t>(bits)};
}

}  // namespace

TEST_CASE("half: bytes written by hand") {
  struct Case {
    int bits;
    float value;
  };
  constexpr Case kCases[] = {
      {0x0000, 0.0f},
      {0x0001, 5.9604644775390625e-08f},  // the smallest: 2^-24
      {0x03ff, 6.097555160522461e-05f},   // the largest subnormal
      {0x0400, 6.103515625e-05f},         // the smallest normal: 2^-14
      {0x3555, 0.333251953125f},          // nearest to 1/3
      {0x3c00, 1.0f},
      {0xc000, -2.0f},
      {0x7bff, 65504.0f},
      {0x7c00, kInfinity},
      {0xfc00, -kInfinity},
  };
  for (const Case& c : kCases) {
    CAPTURE(c.bits);
    CHECK(lmd::to_float(half(c.bits)) == c.value);
    CHECK(lmd::to_half(c.value).bits == c.bits);
  }
  CHECK(std::signbit(lmd::to_float(half(0x8000))));
  CHECK(lmd::to_half(-0.0f).bits == 0x8000);
  CHECK(lmd::to_half(1.0f / 3.0f).bits == 0x3555);
}

TEST_CASE("half: every value comes back, and every midpoint rounds to even") {
  for (int bits = 0; bits < 0x7bff; ++bits) {
    const float low = lmd::to_float(half(bits));
    const float high = lmd::to_float(half(bits + 1));
    const float middle = (low + high) / 2;
    const bool ok = low < high && lmd::to_half(low).bits == bits &&
                    lmd::to_half(-low).bits == (bits | 0x8000) &&
                    lmd::to_half(middle).bits == bits + (bits & 1) &&
                    lmd::to_half(std::nextafter(middle, low)).bits == bits &&
                    lmd::to_half(std::nextafter(middle, high)).bits == bits + 1;
    REQUIRE_MESSAGE(ok, "at bits ", bits);
  }
}

TEST_CASE("half: the ends of the range") {
  CHECK(lmd::to_half(65519.996f).bits == 0x7bff);
  CHECK(lmd::to_half(65520.0f).bits == 0x7c00);
  CHECK(lmd::to_half(-1e30f).bits == 0xfc00);
  CHECK(lmd::to_half(1e-30f).bits == 0);
  CHECK(std::isnan(lmd::to_float(lmd::to_half(std::nanf("")))));
  CHECK(std::isnan(lmd::to_float(half(0x7c01))));
}

TEST_CASE("bfloat16: bytes written by hand, midpoints, ends of the range") {
  CHECK(lmd::to_float(bfloat16(0x3f80)) == 1.0f);
  CHECK(lmd::to_float(bfloat16(0xc040)) == -3.0f);
  CHECK(lmd::to_bfloat16(1.0f / 3.0f).bits == 0x3eab);
  CHECK(lmd::to_bfloat16(3.3895314e38f).bits == 0x7f7f);
  CHECK(lmd::to_bfloat16(std::numeric_limits<float>::max()).bits == 0x7f80);
  CHECK(lmd::to_bfloat16(-kInfinity).bits == 0xff80);
  CHECK(std::isnan(lmd::to_float(lmd::to_bfloat16(std::nanf("")))));
  for (int bits = 0; bits < 0x7f7f; ++bits) {
    const float low = lmd::to_float(bfloat16(bits));
    const float high = lmd::to_float(bfloat16(bits + 1));
    const float middle = low + (high - low) / 2;
    const bool ok = lmd::to_bfloat16(low).bits == bits &&
                    lmd::to_bfloat16(middle).bits == bits + (bits & 1) &&
                    lmd::to_bfloat16(std::nextafter(middle, low)).bits == bits &&
                    lmd::to_bfloat16(std::nextafter(middle, high)).bits == bits + 1;
    REQUIRE_MESSAGE(ok, "at bits ", bits);
  }
}
