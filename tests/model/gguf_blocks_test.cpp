/// \file  Blocks of GGUF types against vectors made with gguf-py's dequantiser.
// SPDX-License-Identifier: Apache-2.0
#include <lmd/json/json.hpp>
#include <lmd/model/gguf_blocks.hpp>

#include <cmath>
#include <cstdint>
#include <initializer_list>
#include <string>
#include <utility>
#include <vector>

#include <doctest/doctest.h>
#include <oracle/skip.hpp>

namespace {

using namespace lmd::model;

struct Golden {
  GgufType type;
  double sum;
  std::vector<std::pair<int, float>> selected;
};

const std::vector<Golden>& goldens() {
  static const std::vector<Golden> kGoldens = {
      {GgufType::kQ4_0,
       -5.25,
       {{0, -0.75f}, {1, 0.5f}, {2, 1.75f}, {15, -2}, {16, -0.75f}, {17, -0.25f}, {31, 0}}},
      {GgufType::kQ4_1,
       13.25,
       {{0, 2.25f}, {1, -0.5f}, {2, 0.75f}, {15, 1}, {16, 0.75f}, {17, 1.5f}, {31, 1.5f}}},
      {GgufType::kQ5_0,
       3.75,
       {{0, 2.25f}, {1, -0.5f}, {2, 0.75f}, {15, -3}, {16, 3.5f}, {17, 0}, {31, 0.25f}}},
      {GgufType::kQ5_1,
       78.25,
       {{0, 3.25f}, {1, 4.5f}, {2, 5.75f}, {15, 6}, {16, 3.25f}, {17, -0.25f}, {31, -0.25f}}},
      {GgufType::kQ8_0,
       -44,
       {{0, 21.25f}, {1, 30.5f}, {2, -24.25f}, {15, -32}, {16, -22.75f}, {31, -12}}},
      {GgufType::kQ4_K,
       13610,
       {{0, 78.875f},
        {1, -6.375f},
        {2, 32.375f},
        {32, 2},
        {63, 10},
        {64, 105.125f},
        {96, 48.25f},
        {128, 105.75f},
        {160, 131.25f},
        {192, 132.625f},
        {224, 0.125f},
        {255, 12.125f}}},
      {GgufType::kQ5_K,
       29054,
       {{0, 202.875f},
        {1, -6.375f},
        {32, 28},
        {63, 20},
        {64, 105.125f},
        {95, 217.875f},
        {96, 83.25f},
        {128, 261.75f},
        {160, 41.25f},
        {192, 328.625f},
        {224, 15.125f},
        {255, 27.125f}}},
      {GgufType::kQ6_K,
       288.25,
       {{0, -89.4375f},
        {1, 106},
        {16, -27},
        {32, 14.4375f},
        {64, -190},
        {96, -54.375f},
        {127, 93.75f},
        {128, -21.9375f},
        {160, 41.9375f},
        {192, -30.25f},
        {224, 52.875f},
        {255, -3.75f}}},
  };
  return kGoldens;
}

/// Bytes (37 i + 11) & 255 with the scales overwritten: d = 0.25, m = -1.5, dmin = 0.125; Q6_K has
/// d = 0.0625 at its end.
std::vector<std::uint8_t> golden_block(GgufType type) {
  std::vector<std::uint8_t> block(static_cast<std::size_t>(facts_of(type).block_bytes));
  for (std::size_t i = 0; i < block.size(); ++i)
    block[i] = static_cast<std::uint8_t>(37 * i + 11);
  const auto put = [&](std::size_t at, int half_bits) {
    block[at] = static_cast<std::uint8_t>(half_bits & 255);
    block[at + 1] = static_cast<std::uint8_t>(half_bits >> 8);
  };
  if (type == GgufType::kQ6_K) {
    put(208, 0x2c00);
    return block;
  }
  put(0, 0x3400);
  if (type == GgufType::kQ4_1 || type == GgufType::kQ5_1) put(2, 0xbe00);
  if (type == GgufType::kQ4_K || type == GgufType::kQ5_K) put(2, 0x3000);
  return block;
}

std::vector<float> decoded(GgufType type, const std::vector<std::uint8_t>& bytes, std::int64_t n) {
  std::vector<float> values(static_cast<std::size_t>(n), -12345.0f);
  dequantise(type, bytes.data(), n, values.data());
  return values;
}

}  // namespace

TEST_CASE("every block type gives the golden values") {
  for (const Golden& golden : goldens()) {
    const GgufTypeFacts& facts = facts_of(golden.type);
    CAPTURE(facts.name);
    const std::vector<float> values =
        decoded(golden.type, golden_block(golden.type), facts.block_elements);
    double sum = 0;
    for (const float value : values)
      sum += value;
    CHECK(sum == golden.sum);
    for (const auto& [i, expected] : golden.selected) {
      CAPTURE(i);
      CHECK(values[static_cast<std::size_t>(i)] == expected);
    }
  }
}

TEST_CASE("blocks follow one another along a row") {
  for (const Golden& golden : goldens()) {
    const int n = facts_of(golden.type).block_elements;
    std::vector<std::uint8_t> two = golden_block(golden.type);
    const std::vector<std::uint8_t> one = two;
    two.insert(two.end(), one.begin(), one.end());
    const std::vector<float> values = decoded(golden.type, two, 2 * n);
    for (int i = 0; i < n; ++i)
      CHECK(values[static_cast<std::size_t>(i)] == values[static_cast<std::size_t>(i + n)]);
  }
}

TEST_CASE("types without blocks are copied exactly") {
  const std::vector<std::uint8_t> f32 = {0x00, 0x00, 0xc0, 0x3f};
  const std::vector<std::uint8_t> f16 = {0x00, 0x3e, 0x00, 0xc9};
  const std::vector<std::uint8_t> bf16 = {0xc0, 0x3f, 0x20, 0xc1};
  CHECK(decoded(GgufType::kF32, f32, 1) == std::vector<float>{1.5f});
  CHECK(decoded(GgufType::kF16, f16, 2) == std::vector<float>{1.5f, -10.0f});
  CHECK(decoded(GgufType::kBF16, bf16, 2) == std::vector<float>{1.5f, -10.0f});
}

TEST_CASE("all elements of the stored golden blocks") {
  const std::string path = std::string(LMD_SHARED_DATA) + "/models_golden.json";
  if (!lmd::test::has_file(path, "all elements of the stored golden blocks")) return;
  const lmd::json::Json root = lmd::json::parse_file(path);
  int n_checked = 0;
  for (const Golden& golden : goldens()) {
    const GgufTypeFacts& facts = facts_of(golden.type);
    CAPTURE(facts.name);
    const auto& stored = root.at("gguf_blocks").at(facts.name);
    const auto hex = stored.at("block_hex").get<std::string>();
    const auto expected = stored.at("values").get<std::vector<float>>();
    std::vector<std::uint8_t> block;
    for (std::size_t i = 0; i < hex.size(); i += 2)
      block.push_back(static_cast<std::uint8_t>(std::stoi(hex.substr(i, 2), nullptr, 16)));
    CHECK(block == golden_block(golden.type));
    CHECK(decoded(golden.type, block, facts.block_elements) == expected);
    ++n_checked;
  }
  CHECK(n_checked == 8);
}
