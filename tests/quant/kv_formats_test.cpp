/// \file  KV formats: parameters, codes and their meaning, by hand.
// SPDX-License-Identifier: Apache-2.0
#include <lmd/quant/kv_formats.hpp>

#include <string>

#include <doctest/doctest.h>

using namespace lmd;
using namespace lmd::quant;

namespace {

constexpr AffineParams params(std::uint16_t scale_bits, std::uint16_t zero_bits) {
  return {Half{scale_bits}, Half{zero_bits}};
}

}  // namespace

TEST_CASE("int4 spreads 15 steps over the range") {
  const AffineParams p = KvInt4::fit(-1.5f, 6.0f);  // step 7.5 / 15
  CHECK(p.scale.bits == 0x3800);                    // 0.5
  CHECK(p.zero.bits == 0xbe00);                     // -1.5
  CHECK(KvInt4::encode(-1.5f, p) == 0);
  CHECK(KvInt4::encode(6.0f, p) == 15);
  CHECK(KvInt4::encode(0.0f, p) == 3);
  CHECK(KvInt4::encode(0.2f, p) == 3);    // 3.4 steps
  CHECK(KvInt4::encode(0.25f, p) == 4);   // 3.5: half goes up
  CHECK(KvInt4::encode(-1.25f, p) == 1);  // 0.5: half goes up, not to even
  CHECK(KvInt4::decode(0, p) == -1.5f);
  CHECK(KvInt4::decode(7, p) == 2.0f);
  CHECK(KvInt4::decode(15, p) == 6.0f);
}

TEST_CASE("int8 spreads 255 steps over the range") {
  const AffineParams p = KvInt8::fit(0.0f, 63.75f);
  CHECK(p.scale.bits == 0x3400);  // 0.25
  CHECK(p.zero.bits == 0x0000);
  CHECK(KvInt8::encode(63.75f, p) == 255);
  CHECK(KvInt8::encode(31.9f, p) == 128);  // 127.6 steps
  CHECK(KvInt8::decode(200, p) == 50.0f);
}

TEST_CASE("codes saturate at both ends") {
  const AffineParams p = params(0x3c00, 0x0000);  // 1, 0
  CHECK(KvInt4::encode(-3.0f, p) == 0);
  CHECK(KvInt4::encode(15.4f, p) == 15);
  CHECK(KvInt4::encode(1e30f, p) == 15);
  CHECK(KvInt8::encode(256.0f, p) == 255);
  CHECK(KvInt8::encode(-INFINITY, p) == 0);
  CHECK(KvInt8::encode(INFINITY, p) == 255);
}

TEST_CASE("a constant row comes back as it was") {
  for (const float x : {0.0f, 0.75f, -1000.0f, 65504.0f}) {
    const AffineParams p = KvInt4::fit(x, x);
    CHECK(p.scale.bits == 0x3c00);
    CHECK(KvInt4::encode(x, p) == 0);
    CHECK(KvInt4::decode(0, p) == x);
    CHECK(KvInt8::decode(KvInt8::encode(x, KvInt8::fit(x, x)), KvInt8::fit(x, x)) == x);
  }
}

TEST_CASE("an outlier costs the others their precision, not their place") {
  const AffineParams p = KvInt4::fit(-1.0f, 149.0f);  // step 10
  CHECK(p.scale.bits == 0x4900);
  CHECK(KvInt4::decode(KvInt4::encode(149.0f, p), p) == 149.0f);
  CHECK(KvInt4::encode(3.9f, p) == 0);
  CHECK(KvInt4::encode(4.0f, p) == 1);
  CHECK(KvInt4::decode(1, p) == 9.0f);
}

TEST_CASE("ranges below a normal half: the stored step counts, not the wanted one") {
  // 2^-24 is the smallest step. 15 x 2^-24 wide: exactly that step.
  const float step = 0x1p-24f;
  const AffineParams exact = KvInt4::fit(0.0f, 15.0f * step);
  CHECK(exact.scale.bits == 0x0001);
  CHECK(KvInt4::encode(9.0f * step, exact) == 9);
  CHECK(KvInt4::decode(9, exact) == 9.0f * step);
  // 22 steps wide: 1.47 steps round to one, and what lies beyond 15 of them saturates.
  const AffineParams narrow = KvInt4::fit(0.0f, 22.0f * step);
  CHECK(narrow.scale.bits == 0x0001);
  CHECK(KvInt4::encode(22.0f * step, narrow) == 15);
  // 7 steps wide: 0.47 of a step rounds to nothing, which counts as a constant.
  const AffineParams constant = KvInt4::fit(0.0f, 7.0f * step);
  CHECK(constant.scale.bits == 0x3c00);
  CHECK(KvInt4::encode(7.0f * step, constant) == 0);
}

TEST_CASE("parameters are rounded before codes are made with them") {
  // 0.1 as a half is 0.0999755859375: 15 of its steps end below 1.5.
  const AffineParams p = KvInt4::fit(0.0f, 1.5f);
  CHECK(p.scale.bits == 0x2e66);
  CHECK(KvInt4::decode(15, p) == 15 * 0.0999755859375f);
}

TEST_CASE("half precision keeps the bits") {
  CHECK(KvHalf::encode(1.0f, {}) == 0x3c00);
  CHECK(KvHalf::encode(2049.0f, {}) == 0x6800);  // 2048: ties to even
  CHECK(KvHalf::decode(0xc500, {}) == -5.0f);
}

TEST_CASE("every scheme has a name and a policy number of its own") {
  int n = 0;
  for_each_type(KvSchemes{}, [&](auto a) {
    ++n;
    for_each_type(KvSchemes{}, [&](auto b) {
      using A = typename decltype(a)::type;
      using B = typename decltype(b)::type;
      if (std::is_same_v<A, B>) return;
      CHECK(std::string(A::kName) != B::kName);
    });
  });
  CHECK(n == 5);
}
