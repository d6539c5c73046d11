/// \file  Fragment streams of weights: bytes by hand, exact round trips.
// SPDX-License-Identifier: Apache-2.0
#include <lmd/quant/fragment_weights.hpp>

#include <random>
#include <vector>

#include <doctest/doctest.h>

using namespace lmd;
using namespace lmd::quant;

TEST_CASE("fragment_place is the inverse of fragment_column") {
  for (int row = 0; row < 16; ++row) {
    for (int column = 0; column < 64; ++column) {
      const FragmentPlace p = fragment_place(row, column);
      CHECK(fragment_column(p.lane % 4, p.step, p.e) == column);
      CHECK(p.lane / 4 + 8 * p.upper == row);
    }
  }
}

TEST_CASE("4-bit fragments: bytes written by hand") {
  // One tile, one chunk of 64 columns (group 64): lane 0 owns rows 0 and 8, columns 0 .. 7 (steps
  // 0, 1) and 32 .. 39 (steps 2, 3). Row 0 holds codes 1 2 3 4 in columns 0 .. 3, row 8 codes
  // 5 6 7 8; everything else is 0.
  using W = WeightInt4<64>;
  std::vector<std::uint8_t> codes(16 * 32);
  codes[0] = 0x21;
  codes[1] = 0x43;
  codes[8 * 32] = 0x65;
  codes[8 * 32 + 1] = 0x87;
  codes[32 + 16] = 0x0f;  // row 1, column 32: lane 4, step 2
  std::vector<W::Params> params(16, W::Params{to_half(0.5f), 9, 0});
  std::vector<std::uint8_t> stream(FragmentWeights<W>::stream_bytes(16, 64));
  REQUIRE(stream.size() == 512 + 64);
  pack_fragments<W>({codes.data(), params.data(), 64, 16}, stream.data());
  // Nibbles 0 .. 7: row 0 e0, row 8 e0, row 0 e2, row 8 e2, row 0 e1, row 8 e1, row 0 e3, row 8 e3.
  CHECK(stream[0] == 0x51);
  CHECK(stream[1] == 0x73);
  CHECK(stream[2] == 0x62);
  CHECK(stream[3] == 0x84);
  CHECK(stream[4 * 16 + 2 * 4] == 0x0f);
  // Parameters: scale 0.5 = 0x3800, zero point 9 = 0x4880 as halves.
  for (int r = 0; r < 16; ++r) {
    CHECK(stream[512 + r * 4] == 0x00);
    CHECK(stream[512 + r * 4 + 1] == 0x38);
    CHECK(stream[512 + r * 4 + 2] == 0x80);
    CHECK(stream[512 + r * 4 + 3] == 0x48);
  }
}

namespace {

template <class W>
constexpr int kTestColumns = FragmentWeights<W>::kChunkColumns * 3 +
                             (W::kGroupSize == 32 ? 32 : 0);  // an incomplete chunk

template <class W>
typename W::Params random_params(std::mt19937& rng) {
  typename W::Params p{};
  if constexpr (requires { p.scale; }) p.scale = to_half(static_cast<float>(rng() % 100) / 64);
  if constexpr (requires { p.zero; }) p.zero = static_cast<std::uint8_t>(rng() % 16);
  if constexpr (requires { p.minimum; }) p.minimum = to_half(static_cast<float>(rng() % 100) / -9);
  return p;
}

}  // namespace

TEST_CASE_TEMPLATE("packing and unpacking is exact, padding is zero",
                   W,
                   WeightHalf,
                   WeightBFloat16,
                   WeightInt4<32>,
                   WeightInt4<64>,
                   WeightInt4<128>,
                   WeightAffine4<32>,
                   WeightInt8<32>) {
  std::mt19937 rng(5);
  const int n = 41;
  const int k = kTestColumns<W>;
  const int padded_n = 48;
  const int padded_k = round_up(k, FragmentWeights<W>::kChunkColumns);
  std::vector<std::uint8_t> codes(RowWeights<W>::row_bytes(k) * n);
  for (auto& byte : codes)
    byte = static_cast<std::uint8_t>(rng());
  const int groups = W::kGroupSize == 0 ? 0 : k / W::kGroupSize;
  std::vector<typename W::Params> params(std::size_t(groups) * n);
  for (auto& p : params)
    p = random_params<W>(rng);
  const RowWeights<W> rows{codes.data(), params.data(), k, n};

  std::vector<std::uint8_t> stream(FragmentWeights<W>::stream_bytes(n, k), 0xa5);
  REQUIRE(stream.size() == std::size_t(FragmentWeights<W>::stream_bytes(padded_n, padded_k)));
  pack_fragments<W>(rows, stream.data());
  const FragmentWeights<W> packed{stream.data(), nullptr, k, n};
  for (int j = 0; j < padded_n; ++j) {
    for (int l = 0; l < padded_k; ++l) {
      if (j < n && l < k) {
        REQUIRE(packed.code(j, l) == rows.code(j, l));
        const float w = rows.weight(j, l);
        if (w == w) REQUIRE(packed.weight(j, l) == w);
      } else {
        REQUIRE(packed.weight(j, l) == 0.0f);
      }
    }
  }
  std::vector<std::uint8_t> back(codes.size());
  std::vector<typename W::Params> params_back(params.size());
  unpack_fragments<W>(packed, back.data(), params_back.data());
  CHECK(back == codes);
  if (!params.empty())
    CHECK(std::memcmp(params_back.data(), params.data(), params.size() * sizeof params[0]) == 0);
}
