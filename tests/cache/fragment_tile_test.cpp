/// \file  Fragment tiles: places by hand, and that every code has one.
// SPDX-License-Identifier: Apache-2.0
#include <lmd/cache/fragment_tile.hpp>

#include <set>
#include <vector>

#include <doctest/doctest.h>

using namespace lmd;
using namespace lmd::cache;

namespace {

/// Token of row r of token tile i, as the tiles' description has it.
int token_of(int i, int r) {
  return 16 * (r % 8 / 2) + 4 * i + 2 * (r % 2) + r / 8;
}

/// Every code has bits of its own, and together they fill the tile.
template <class Tile, int HeadDim>
void check_filled() {
  std::set<int> seen;
  for (int t = 0; t < kPageTokens; ++t) {
    for (int d = 0; d < HeadDim; ++d) {
      const int bit = Tile::first_bit(t, d);
      CHECK(bit % Tile::kBits == 0);
      CHECK(bit >= 0);
      CHECK(bit + Tile::kBits <= Tile::kBytes * 8);
      seen.insert(bit);
    }
  }
  CHECK(seen.size() == std::size_t{kPageTokens} * HeadDim);
}

template <int Bits, int HeadDim>
void check_tiles() {
  check_filled<FragmentKeyTile<Bits, HeadDim>, HeadDim>();
  check_filled<FragmentValueTile<Bits, HeadDim>, HeadDim>();
  using Keys = FragmentKeyTile<Bits, HeadDim>;
  using Values = FragmentValueTile<Bits, HeadDim>;
  for (int i = 0; i < 4; ++i) {
    for (int r = 0; r < 16; ++r) {
      const int token = token_of(i, r);
      // Keys: element 32 h + 8 t + 4 s + e is element e of step 2 h + s in thread t.
      for (int d = 0; d < HeadDim; ++d) {
        const int step = i * (HeadDim / 16) + d / 32 * 2 + d % 8 / 4;
        CHECK(Keys::first_bit(token, d) ==
              (cache::detail::fragment_bit<Bits, HeadDim / 16>(step, r, d % 32 / 8, d % 4)));
      }
      // Values: weights of rows 2 t, 2 t + 1, 2 t + 8, 2 t + 9 meet elements 0 .. 3 of thread t.
      const int t = r % 8 / 2;
      const int e = r % 2 + r / 8 * 2;
      for (int d = 0; d < HeadDim; ++d) {
        CHECK(Values::first_bit(token, d) ==
              (cache::detail::fragment_bit<Bits, 1>(i * (HeadDim / 16) + d / 16, d % 16, t, e)));
      }
      // Parameters: a pair of rows (g, g + 8) of a token tile side by side.
      CHECK(Keys::token_params_at(token) == i * 16 + r % 8 * 2 + r / 8);
    }
  }
}

}  // namespace

TEST_CASE("fragment tiles: every code has its place") {
  check_tiles<4, 64>();
  check_tiles<4, 96>();
  check_tiles<4, 128>();
  check_tiles<8, 64>();
  check_tiles<8, 96>();
  check_tiles<8, 128>();
  check_tiles<16, 64>();
  check_tiles<16, 96>();
  check_tiles<16, 128>();
}

TEST_CASE("fragment tiles: places worked out by hand") {
  // Token 1 is row 8 of token tile 0; element 0 is step 0, thread 0, e = 0: lane 0, upper half.
  CHECK(FragmentKeyTile<4, 128>::first_bit(0, 0) == 0);
  CHECK(FragmentKeyTile<4, 128>::first_bit(1, 0) == 4);
  CHECK(FragmentKeyTile<4, 128>::first_bit(0, 1) == 16);
  CHECK(FragmentKeyTile<4, 128>::first_bit(0, 4) == 32);       // step 1: the next word
  CHECK(FragmentKeyTile<4, 128>::first_bit(0, 8) == 128);      // thread 1: the next lane
  CHECK(FragmentKeyTile<4, 128>::first_bit(2, 0) == 4 * 128);  // row 1: lane 4
  CHECK(FragmentKeyTile<8, 64>::first_bit(0, 1) == 16);        // bytes e0 e2 e1 e3
  CHECK(FragmentKeyTile<8, 64>::first_bit(0, 2) == 8);
  // 16 bits: token 1 is row 8, behind the 8 matrices of rows 0 to 7; token 2 is row 1, 16 bytes on.
  CHECK(FragmentKeyTile<16, 64>::first_bit(1, 0) == 8 * 1024);
  CHECK(FragmentKeyTile<16, 64>::first_bit(2, 0) == 128);
  CHECK(FragmentKeyTile<16, 64>::first_bit(0, 2) == 1024);  // e = 2: the next matrix
  CHECK(FragmentKeyTile<16, 64>::first_bit(0, 8) == 32);    // thread 1: behind e0 e1 of thread 0
  CHECK(FragmentKeyTile<16, 64>::first_bit(4, 0) == 16 * 1024);  // token tile 1
  CHECK(FragmentValueTile<16, 64>::first_bit(0, 1) == 128);
  CHECK(FragmentValueTile<16, 64>::first_bit(0, 8) == 2 * 1024);  // rows 8 to 15
  CHECK(FragmentValueTile<16, 64>::first_bit(1, 0) == 1024);      // e = 2
  CHECK(FragmentValueTile<16, 64>::first_bit(4, 0) == 16 * 1024);
  CHECK(FragmentValueTile<4, 128>::first_bit(0, 1) == 4 * 128);
  CHECK(FragmentValueTile<4, 128>::first_bit(16, 0) == 128);
}

TEST_CASE("the open order fills a page") {
  for (const int head_dim : {64, 96, 128}) {
    std::set<int> keys;
    std::set<int> values;
    for (int t = 0; t < kPageTokens; ++t) {
      for (int d = 0; d < head_dim; ++d) {
        keys.insert(FragmentOpenOrder::key_at(t, d, head_dim));
        values.insert(FragmentOpenOrder::value_at(t, d, head_dim));
        // A quarter is contiguous.
        CHECK(FragmentOpenOrder::key_at(t, d, head_dim) / (16 * head_dim) == t / 16);
        CHECK(FragmentOpenOrder::value_at(t, d, head_dim) / (16 * head_dim) == t / 16);
      }
    }
    CHECK(keys.size() == std::size_t(kPageTokens) * head_dim);
    CHECK(values.size() == std::size_t(kPageTokens) * head_dim);
    CHECK(*keys.rbegin() == kPageTokens * head_dim - 1);
    CHECK(*values.rbegin() == kPageTokens * head_dim - 1);
  }
}
