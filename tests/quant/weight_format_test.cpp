/// \file  Hand-written codes of every weight format, in both orders.
// SPDX-License-Identifier: Apache-2.0
#include <lmd/quant/weight_format.hpp>
#include <lmd/quant/weight_layout.hpp>

#include <cstdint>
#include <cstring>
#include <set>
#include <string>
#include <vector>

#include <doctest/doctest.h>

namespace {

using namespace lmd;
using namespace lmd::quant;

constexpr Half kHalf{0x3800};     // 0.5
constexpr Half kQuarter{0x3400};  // 0.25
constexpr Half kMinusOneAndHalf{0xbe00};

/// One row of 32 inputs whose code at input l is l % 16, in PlainOrder: bytes 10 32 54 ... fe twice.
std::vector<std::uint8_t> counting_row() {
  return {0x10, 0x32, 0x54, 0x76, 0x98, 0xba, 0xdc, 0xfe,
          0x10, 0x32, 0x54, 0x76, 0x98, 0xba, 0xdc, 0xfe};
}

}  // namespace

TEST_CASE("weights without groups are the numbers that their bits spell") {
  const std::uint8_t f32[] = {0x00, 0x00, 0xc0, 0x3f, 0x00, 0x00, 0x20, 0xc1};  // 1.5, -10
  const RowWeights<WeightFloat> floats{f32, nullptr, 2, 1};
  CHECK(floats.weight(0, 0) == 1.5f);
  CHECK(floats.weight(0, 1) == -10.0f);

  const std::uint8_t f16[] = {0x00, 0x3e, 0x00, 0xc9, 0xff, 0x7b, 0x01, 0x00};
  const RowWeights<WeightHalf> halves{f16, nullptr, 2, 2};  // two rows of two
  CHECK(halves.weight(0, 0) == 1.5f);
  CHECK(halves.weight(0, 1) == -10.0f);
  CHECK(halves.weight(1, 0) == 65504.0f);
  CHECK(halves.weight(1, 1) == 5.9604644775390625e-8f);

  const std::uint8_t bf16[] = {0xc0, 0x3f, 0x20, 0xc1};
  const RowWeights<WeightBFloat16> brains{bf16, nullptr, 2, 1};
  CHECK(brains.weight(0, 0) == 1.5f);
  CHECK(brains.weight(0, 1) == -10.0f);
}

TEST_CASE("AWQ: the zero point is subtracted before the scale multiplies") {
  const std::vector<std::uint8_t> codes = counting_row();
  const WeightInt4<32>::Params params[] = {{kHalf, 8, 0}};
  const RowWeights<WeightInt4<32>> row{codes.data(), params, 32, 1};
  CHECK(row.code(0, 0) == 0);
  CHECK(row.code(0, 1) == 1);
  CHECK(row.code(0, 17) == 1);
  CHECK(row.weight(0, 0) == -4.0f);
  CHECK(row.weight(0, 8) == 0.0f);
  CHECK(row.weight(0, 31) == 3.5f);
}

TEST_CASE("AWQ: a group's parameters start at its first input") {
  const std::vector<std::uint8_t> codes(128, 0x11);  // 2 rows of 128 codes 1
  const WeightInt4<64>::Params params[] = {
      {kHalf, 0, 0}, {kQuarter, 0, 0}, {kHalf, 1, 0}, {kQuarter, 15, 0}};
  const RowWeights<WeightInt4<64>> rows{codes.data(), params, 128, 2};
  CHECK(rows.weight(0, 63) == 0.5f);
  CHECK(rows.weight(0, 64) == 0.25f);
  CHECK(rows.weight(1, 0) == 0.0f);
  CHECK(rows.weight(1, 127) == -3.5f);
  const RowWeights<WeightInt4<128>> wide{
      codes.data(), reinterpret_cast<const WeightInt4<128>::Params*>(params), 128, 2};
  CHECK(wide.weight(0, 127) == 0.5f);
  CHECK(wide.weight(1, 0) == 0.25f);
}

TEST_CASE("affine: the minimum is added after the scale multiplies") {
  const std::vector<std::uint8_t> codes = counting_row();
  const WeightAffine4<32>::Params params[] = {{kQuarter, kMinusOneAndHalf}};
  const RowWeights<WeightAffine4<32>> row{codes.data(), params, 32, 1};
  CHECK(row.weight(0, 0) == -1.5f);
  CHECK(row.weight(0, 15) == 2.25f);
  CHECK(row.weight(0, 22) == 0.0f);
}

TEST_CASE("int8: codes are signed") {
  std::vector<std::uint8_t> codes(32, 0);
  codes[0] = 0x7f;
  codes[1] = 0x80;
  codes[31] = 0xff;
  const WeightInt8<32>::Params params[] = {{kQuarter}};
  const RowWeights<WeightInt8<32>> row{codes.data(), params, 32, 1};
  CHECK(row.weight(0, 0) == 31.75f);
  CHECK(row.weight(0, 1) == -32.0f);
  CHECK(row.weight(0, 31) == -0.25f);
  CHECK(row.weight(0, 2) == 0.0f);
}

TEST_CASE("paired order: byte b holds inputs b and b + 16") {
  std::vector<std::uint8_t> codes(32);  // one row of 64: inputs 0 .. 63 have code (5 l) % 16
  for (int b = 0; b < 32; ++b)
    codes[static_cast<std::size_t>(b)] =
        static_cast<std::uint8_t>(5 * (2 * b) % 16 | 5 * (2 * b + 1) % 16 << 4);
  const WeightAffine4<32>::Params params[] = {{kQuarter, kHalf}, {kHalf, kQuarter}};
  const RowWeights<WeightAffine4<32>> plain{codes.data(), params, 64, 1};
  std::vector<std::uint8_t> paired_codes = codes;
  pair_nibbles(paired_codes.data(), 64);
  // By hand: byte 0 = input 0 (0) | input 16 (80 % 16 = 0) << 4; byte 1 = input 1 (5), 17 (5).
  CHECK(paired_codes[0] == 0x00);
  CHECK(paired_codes[1] == 0x55);
  CHECK(paired_codes[3] == 0xff);
  CHECK(paired_codes[16] == 0x00);
  const RowWeights<WeightAffine4<32>, PairedOrder> paired{paired_codes.data(), params, 64, 1};
  for (int l = 0; l < 64; ++l) {
    CAPTURE(l);
    CHECK(plain.code(0, l) == static_cast<std::uint32_t>(5 * l % 16));
    CHECK(paired.code(0, l) == plain.code(0, l));
    CHECK(paired.weight(0, l) == plain.weight(0, l));
  }
}

TEST_CASE("paired order moves different nibbles, and nothing of 8 or 16 bits") {
  std::uint8_t codes[16];
  for (int b = 0; b < 16; ++b)
    codes[b] = static_cast<std::uint8_t>((2 * b) % 16 | (15 - b) << 4);  // odd inputs count down
  std::uint8_t paired[16];
  std::memcpy(paired, codes, sizeof codes);
  pair_nibbles(paired, 32);
  CHECK(paired[0] == 0x00);   // input 0 is 0; input 16 is (2 * 8) % 16 = 0
  CHECK(paired[1] == 0x7f);   // input 1 is 15; input 17 is 15 - 8
  CHECK(paired[15] == 0x08);  // input 15 is 15 - 7; input 31 is 15 - 15
  CHECK(PairedOrder::first_bit<8>(33) == 33 * 8);
  CHECK(PairedOrder::first_bit<16>(33) == 33 * 16);
}

TEST_CASE("every format has a name of its own") {
  std::set<std::string> names;
  for_each_type(WeightFormats{}, [&](auto t) { names.insert(decltype(t)::type::kName); });
  CHECK(names.size() == WeightFormats::kSize);
}
