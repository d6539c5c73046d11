/// \file  Sealed units written byte by byte: where codes and parameters lie, and what they mean.
// SPDX-License-Identifier: Apache-2.0
#include <lmd/cache/sealed_unit.hpp>
#include <lmd/quant/kv_formats.hpp>

#include <vector>

#include <doctest/doctest.h>

using namespace lmd;

namespace {

using Bytes = std::vector<std::uint8_t>;

void put(Bytes& unit, int at, std::initializer_list<int> bytes) {
  for (int byte : bytes)
    unit[static_cast<std::size_t>(at++)] = static_cast<std::uint8_t>(byte);
}

}  // namespace

TEST_CASE("sizes of units, in bytes") {
  CHECK(cache::SealedUnit<quant::Kv16, 64>::kBytes == 16384);
  CHECK(cache::SealedUnit<quant::Kv8, 64>::kBytes == 8704);    // 4096 + 4096 + 256 + 256
  CHECK(cache::SealedUnit<quant::Kv4, 64>::kBytes == 4608);    // 2048 + 2048 + 256 + 256
  CHECK(cache::SealedUnit<quant::Kv8V4, 64>::kBytes == 6656);  // 4096 + 2048 + 256 + 256
  CHECK(cache::SealedUnit<quant::Kv4c, 64>::kBytes == 4608);
  CHECK(cache::SealedUnit<quant::Kv4c, 96>::kBytes == 6784);   // 3072 + 3072 + 384 + 256
  CHECK(cache::SealedUnit<quant::Kv4c, 128>::kBytes == 8960);  // 4096 + 4096 + 512 + 256
  CHECK(cache::SealedUnit<quant::Kv8, 96>::kBytes == 12800);   // 6144 + 6144 + 256 + 256
  CHECK(cache::SealedUnit<quant::Kv16, 128>::kBytes == 32768);
}

TEST_CASE("int4: low nibble first, keys channel by channel, values token by token") {
  using U = cache::SealedUnit<quant::Kv4, 64>;
  Bytes unit(U::kBytes);
  put(unit, 2 * 32 + 5, {0xa3});                       // channel 2, tokens 10 and 11
  put(unit, 2048 + 10 * 32 + 7, {0x1f});               // token 10, elements 14 and 15
  put(unit, 4096 + 10 * 4, {0x00, 0x38, 0x00, 0xbc});  // keys of token 10: 0.5, -1
  put(unit, 4096 + 11 * 4, {0x00, 0x3c, 0x00, 0x00});  // of token 11: 1, 0
  put(unit, 4352 + 10 * 4, {0x00, 0x40, 0x00, 0x42});  // values of token 10: 2, 3
  CHECK(U::key(unit.data(), 10, 2) == 0.5f);           // 0.5 * 3 - 1
  CHECK(U::key(unit.data(), 11, 2) == 10.0f);          // 1 * 10 + 0
  CHECK(U::key(unit.data(), 10, 3) == -1.0f);          // code 0
  CHECK(U::value(unit.data(), 10, 14) == 33.0f);       // 2 * 15 + 3
  CHECK(U::value(unit.data(), 10, 15) == 5.0f);        // 2 * 1 + 3
}

TEST_CASE("int8: a byte a code") {
  using U = cache::SealedUnit<quant::Kv8, 96>;
  Bytes unit(U::kBytes);
  put(unit, 95 * 64 + 63, {200});  // the last channel of the last token
  put(unit, 6144 + 63 * 96 + 95, {255});
  put(unit, 12288 + 63 * 4, {0x00, 0x38, 0x00, 0x3c});        // 0.5, 1
  put(unit, 12288 + 256 + 63 * 4, {0x00, 0x34, 0x00, 0xc0});  // 0.25, -2
  CHECK(U::key(unit.data(), 63, 95) == 101.0f);
  CHECK(U::key(unit.data(), 63, 94) == 1.0f);
  CHECK(U::value(unit.data(), 63, 95) == 61.75f);
}

TEST_CASE("16 bit: the numbers themselves, little endian") {
  using U = cache::SealedUnit<quant::Kv16, 64>;
  Bytes unit(U::kBytes);
  put(unit, (3 * 64 + 9) * 2, {0x00, 0x41});         // 2.5
  put(unit, 8192 + (9 * 64 + 3) * 2, {0xff, 0x7b});  // 65504
  CHECK(U::key(unit.data(), 9, 3) == 2.5f);
  CHECK(U::value(unit.data(), 9, 3) == 65504.0f);
}

TEST_CASE("k8v4: keys of one width, values of another") {
  using U = cache::SealedUnit<quant::Kv8V4, 64>;
  Bytes unit(U::kBytes);
  put(unit, 1 * 64 + 0, {17});
  put(unit, 4096 + 0, {0x90});                // token 0, element 1: 9
  put(unit, 6144, {0x00, 0x3c, 0x00, 0x00});  // 1, 0
  put(unit, 6400, {0x00, 0x3c, 0x00, 0x3c});  // 1, 1
  CHECK(U::key(unit.data(), 0, 1) == 17.0f);
  CHECK(U::value(unit.data(), 0, 1) == 10.0f);
  CHECK(U::value(unit.data(), 0, 0) == 1.0f);
}

TEST_CASE("4c: one pair of parameters per key channel, for all 64 tokens") {
  using U = cache::SealedUnit<quant::Kv4c, 128>;
  Bytes unit(U::kBytes);
  put(unit, 100 * 32 + 0, {0x21});                      // channel 100, tokens 0 and 1
  put(unit, 8192 + 100 * 4, {0x00, 0x40, 0x00, 0xc4});  // 2, -4
  put(unit, 8704 + 1 * 4, {0x00, 0x3c, 0x00, 0x45});    // values of token 1: 1, 5
  CHECK(U::key(unit.data(), 0, 100) == -2.0f);
  CHECK(U::key(unit.data(), 1, 100) == 0.0f);
  CHECK(U::key(unit.data(), 63, 100) == -4.0f);
  CHECK(U::value(unit.data(), 1, 127) == 5.0f);
}

TEST_CASE("store_code writes what load_code reads and nothing beside it") {
  using Tile = cache::ChannelMajorTile<4, 64>;
  Bytes tile(Tile::kBytes, 0x5a);
  cache::store_code<Tile>(tile.data(), 7, 1, 0xc);  // channel 1, token 7: high nibble
  CHECK(tile[32 + 3] == 0xca);
  CHECK(cache::load_code<Tile>(tile.data(), 7, 1) == 0xc);
  CHECK(cache::load_code<Tile>(tile.data(), 6, 1) == 0xa);
  CHECK(tile[32 + 2] == 0x5a);
  CHECK(tile[32 + 4] == 0x5a);
}
