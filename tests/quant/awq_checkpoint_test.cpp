/// \file  AWQ's packed words: golden words of real packers, and rows out of a packed layer.
// SPDX-License-Identifier: Apache-2.0
#include <lmd/quant/awq_checkpoint.hpp>
#include <lmd/quant/weight_layout.hpp>

#include <cstdint>
#include <vector>

#include <doctest/doctest.h>

namespace {

using namespace lmd;
using namespace lmd::quant;

struct Golden {
  std::uint32_t columns[8];
  std::uint32_t word;
};

// Made with AutoAWQ's packing.
constexpr Golden kGolden[] = {
    {{1, 2, 3, 4, 5, 6, 7, 8}, 0x86427531u},
    {{0, 1, 2, 3, 4, 5, 6, 15}, 0xf5316420u},
    {{15, 14, 13, 12, 11, 10, 9, 8}, 0x8ace9bdfu},
    {{8, 8, 8, 8, 8, 8, 8, 8}, 0x88888888u},
};

}  // namespace

TEST_CASE("golden words pack and unpack") {
  for (const Golden& golden : kGolden) {
    CAPTURE(golden.word);
    CHECK(awq_word(golden.columns) == golden.word);
    for (int c = 0; c < 8; ++c)
      CHECK(awq_code(golden.word, c) == golden.columns[c]);
  }
}

TEST_CASE("a layer of 8 outputs: w = (code - zero) * scale, along the right axes") {
  constexpr int kIn = 64;
  std::vector<std::uint32_t> qweight(kIn, 0x88888888u);
  qweight[0] = 0x86427531u;   // input 0: outputs 0 .. 7 have codes 1 .. 8
  qweight[63] = 0x8ace9bdfu;  // input 63: 15 down to 8
  const std::uint32_t qzeros[] = {0x88888888u, 0x86427531u};
  std::vector<Half> scales(16, Half{0x3800});  // 0.5
  scales[8 + 2] = Half{0x4000};                // second group, output 2: 2
  std::vector<std::uint8_t> codes(8 * kIn / 2);
  std::vector<WeightInt4<32>::Params> params(8 * 2);
  unpack_awq<32>({qweight.data(), qzeros, scales.data(), kIn, 8}, codes.data(), params.data());
  const RowWeights<WeightInt4<32>> rows{codes.data(), params.data(), kIn, 8};
  const float first[] = {-3.5f, -3.0f, -2.5f, -2.0f, -1.5f, -1.0f, -0.5f, 0.0f};
  for (int j = 0; j < 8; ++j) {
    CAPTURE(j);
    CHECK(rows.weight(j, 0) == first[j]);
    CHECK(rows.weight(j, 1) == 0.0f);
  }
  CHECK(rows.weight(0, 63) == 7.0f);   // (15 - 1) * 0.5
  CHECK(rows.weight(2, 63) == 20.0f);  // (13 - 3) * 2
  CHECK(rows.weight(7, 63) == 0.0f);   // (8 - 8) * 0.5
}

TEST_CASE("words of 16 outputs and groups of 64 and 128 keep their places") {
  constexpr int kIn = 128;
  constexpr int kOut = 16;
  std::vector<std::uint32_t> qweight(kIn * 2);
  for (int l = 0; l < kIn; ++l) {
    qweight[static_cast<std::size_t>(2 * l)] = 0x86427531u;      // outputs 0 .. 7
    qweight[static_cast<std::size_t>(2 * l + 1)] = 0x8ace9bdfu;  // outputs 8 .. 15
  }
  const std::uint32_t qzeros[] = {0, 0x88888888u, 0x88888888u, 0};
  std::vector<Half> scales(2 * kOut, Half{0x3c00});
  std::vector<std::uint8_t> codes(kOut * kIn / 2);
  std::vector<WeightInt4<64>::Params> params(kOut * 2);
  unpack_awq<64>({qweight.data(), qzeros, scales.data(), kIn, kOut}, codes.data(), params.data());
  const RowWeights<WeightInt4<64>> rows{codes.data(), params.data(), kIn, kOut};
  CHECK(rows.weight(0, 0) == 1.0f);    // 1 - 0
  CHECK(rows.weight(0, 64) == -7.0f);  // 1 - 8
  CHECK(rows.weight(8, 63) == 7.0f);   // 15 - 8
  CHECK(rows.weight(15, 127) == 8.0f);
  std::vector<WeightInt4<128>::Params> wide(kOut);
  unpack_awq<128>({qweight.data(), qzeros, scales.data(), kIn, kOut}, codes.data(), wide.data());
  CHECK(wide[3].zero == 0);
  CHECK(wide[9].zero == 8);
}
