/// \file  The GGUF reader on files written by hand.
// SPDX-License-Identifier: Apache-2.0
#include <lmd/model/gguf.hpp>

#include <string>
#include <vector>

#include "test_files.hpp"
#include <doctest/doctest.h>

namespace {

using namespace lmd::model;
using namespace lmd::test;

/// Opens `bytes` as a file; the message that comes of it.
std::string opening(const TemporaryFolder& folder, const std::string& bytes) {
  write_file(folder / "model.gguf", bytes);
  return error_of([&] { const GgufFile file(folder / "model.gguf"); });
}

}  // namespace

TEST_CASE("a file spelled out byte by byte") {
  const char kBytes[] =
      "GGUF\x03\x00\x00\x00"
      "\x01\x00\x00\x00\x00\x00\x00\x00"  // one tensor
      "\x02\x00\x00\x00\x00\x00\x00\x00"  // two keys
      "\x01\x00\x00\x00\x00\x00\x00\x00"
      "a"
      "\x04\x00\x00\x00"
      "\x07\x00\x00\x00"
      "\x01\x00\x00\x00\x00\x00\x00\x00"
      "b"
      "\x09\x00\x00\x00"
      "\x08\x00\x00\x00"
      "\x02\x00\x00\x00\x00\x00\x00\x00"
      "\x02\x00\x00\x00\x00\x00\x00\x00"
      "hi"
      "\x00\x00\x00\x00\x00\x00\x00\x00"
      "\x01\x00\x00\x00\x00\x00\x00\x00"
      "t"
      "\x02\x00\x00\x00"
      "\x02\x00\x00\x00\x00\x00\x00\x00"
      "\x01\x00\x00\x00\x00\x00\x00\x00"  // ne = {2, 1}
      "\x01\x00\x00\x00"
      "\x00\x00\x00\x00\x00\x00\x00\x00";  // F16 at 0
  std::string bytes(kBytes, sizeof kBytes - 1);
  bytes.resize((bytes.size() + 31) / 32 * 32, '\0');
  bytes += std::string("\x00\x3e\x00\xc9", 4);
  const TemporaryFolder folder;
  write_file(folder / "hand.gguf", bytes);
  const GgufFile file(folder / "hand.gguf");
  CHECK(file.integer("a", 0, 100) == 7);
  CHECK(file.get<std::vector<std::string>>("b") == std::vector<std::string>{"hi", ""});
  REQUIRE(file.tensors().size() == 1);
  const GgufTensor& tensor = *file.find("t");
  CHECK(tensor.shape == Shape{1, 2});
  CHECK(tensor.bytes == 4);
  std::string data(4, '\0');
  file.read(tensor, 0, data.data(), 4);
  CHECK(data == std::string("\x00\x3e\x00\xc9", 4));
}

TEST_CASE("integers of every width, floats, bools and their arrays") {
  GgufBytes b;
  b.value("u8", 0, "\xff").value("i8", 1, "\xff").value("u16", 2, "\xff\xff");
  b.value("i16", 3, "\xff\xff").u32("u32", 4000000000u).value("i32", 5, bytes_of(-5));
  b.value("u64", 10, bytes_of(std::uint64_t{1} << 40)).value("i64", 11, bytes_of(INT64_C(-9)));
  b.f32("f32", 0.5f).value("f64", 12, bytes_of(0.25)).value("yes", 7, "\x01");
  b.value("ints", 9, bytes_of(5u) + bytes_of(UINT64_C(2)) + bytes_of(-1) + bytes_of(2));
  b.value("reals", 9, bytes_of(6u) + bytes_of(UINT64_C(1)) + bytes_of(1.5f));
  const TemporaryFolder folder;
  write_file(folder / "v.gguf", b.bytes(2));
  const GgufFile file(folder / "v.gguf");
  CHECK(file.get<std::int64_t>("u8") == 255);
  CHECK(file.get<std::int64_t>("i8") == -1);
  CHECK(file.get<std::int64_t>("u16") == 65535);
  CHECK(file.get<std::int64_t>("i16") == -1);
  CHECK(file.get<std::int64_t>("u32") == 4000000000);
  CHECK(file.get<std::int64_t>("i32") == -5);
  CHECK(file.get<std::int64_t>("u64") == std::int64_t{1} << 40);
  CHECK(file.get<std::int64_t>("i64") == -9);
  CHECK(file.number("f32", 0, 1) == 0.5);
  CHECK(file.number("f64", 0, 1) == 0.25);
  CHECK(file.get<bool>("yes"));
  CHECK(file.get<std::vector<std::int64_t>>("ints") == std::vector<std::int64_t>{-1, 2});
  CHECK(file.get<std::vector<double>>("reals") == std::vector<double>{1.5});
  CHECK(contains(error_of([&] { (void)file.integer("u8", 0, 10); }),
                 "key u8 is 255, expected an integer from 0 to 10"));
  const auto wrong_kind = [&]<class T>(const char* key, T) {
    return error_of([&] { (void)file.get<T>(key); });
  };
  CHECK(contains(wrong_kind("u8", true), "key u8 is the integer 255, expected true or false"));
  CHECK(contains(wrong_kind("f32", 0L), "key f32 is the number 0.500000, expected an integer"));
  CHECK(contains(wrong_kind("ints", 0.5), "key ints is a list of 2 integers, expected a number"));
  CHECK(contains(wrong_kind("yes", std::string()), "key yes is true, expected a text"));
  CHECK(contains(error_of([&] { (void)file.get<bool>("none"); }), "key none is missing"));
}

TEST_CASE("the alignment of the file places the data") {
  GgufBytes b;
  b.u32("general.alignment", 64).tensor("t", {1}, 0, bytes_of(2.5f));
  std::string bytes = b.head();
  bytes.resize((bytes.size() + 63) / 64 * 64, '\0');
  bytes += bytes_of(2.5f);
  const TemporaryFolder folder;
  write_file(folder / "a.gguf", bytes);
  const GgufFile file(folder / "a.gguf");
  float value = 0;
  file.read(*file.find("t"), 0, &value, sizeof value);
  CHECK(value == 2.5f);
}

TEST_CASE("what does not add up is refused by name") {
  const TemporaryFolder folder;
  const std::string q4_row(20, '\0');
  const auto tensor = [&](const std::vector<std::uint64_t>& ne, std::uint32_t type) {
    return opening(folder, GgufBytes().tensor("bad", ne, type, q4_row).bytes());
  };
  CHECK(tensor({32}, 3).empty());
  CHECK(contains(opening(folder, "GGUX" + GgufBytes().bytes().substr(4)), "expected GGUF"));
  CHECK(contains(opening(folder, GgufBytes().bytes(1)), "version is 1"));
  CHECK(contains(opening(folder, GgufBytes().bytes(0x03000000)), "version is 50331648"));
  CHECK(contains(opening(folder, "GGUF"), "at least 24"));
  CHECK(contains(tensor({31}, 3), "tensor bad: rows of 31 do not fit type Q4_1"));
  CHECK(contains(tensor({32}, 10), "type Q2_K is not supported; supported: F32"));
  CHECK(contains(tensor({32}, 99), "type 99 is not supported"));
  CHECK(contains(tensor({64}, 3), "needs 40 bytes at 0 of the data, the file has 32"));
  CHECK(contains(tensor({0}, 3), "size 0 of dimension 0"));
  CHECK(contains(tensor({32, UINT64_C(1) << 62}, 3), "tensor bad: size"));
  CHECK(contains(tensor({32, UINT64_C(1) << 40, UINT64_C(1) << 40}, 3), "out of range"));
  CHECK(contains(tensor({32, UINT64_MAX}, 3), "beyond 63 bits"));
  CHECK(contains(tensor({1, 1, 1, 1, 32}, 3), "has 5 dimensions"));
  CHECK(contains(opening(folder, GgufBytes().tensor(std::string(65, 'x'), {1}, 0, q4_row).bytes()),
                 "at most 64"));
  CHECK(contains(
      opening(folder, GgufBytes().tensor("t", {1}, 0, q4_row).tensor("t", {1}, 0, q4_row).bytes()),
      "tensor t: is there twice"));
  CHECK(contains(opening(folder, GgufBytes().u32("k", 1).u32("k", 1).bytes()),
                 "key k is there twice"));
  for (const std::uint32_t alignment : {0u, 3u, 48u, 1u << 30})
    CHECK(contains(opening(folder, GgufBytes().u32("general.alignment", alignment).bytes()),
                   "general.alignment is " + std::to_string(alignment)));
  CHECK(contains(opening(folder, GgufBytes().value("flag", 7, "\x02").bytes()), "expected 0 or 1"));
  CHECK(contains(opening(folder, GgufBytes().value("k", 13, "\x02").bytes()), "value type 13"));
  CHECK(contains(
      opening(folder, GgufBytes().value("deep", 9, bytes_of(9u) + bytes_of(UINT64_C(0))).bytes()),
      "key deep is an array of arrays"));
}

TEST_CASE("overlapping tensors are refused") {
  GgufBytes b;
  b.tensor("one", {16}, 0, std::string(64, '\0')).tensor("two", {8}, 0, std::string(32, '\0'));
  std::string bytes = b.bytes();
  const TemporaryFolder folder;
  CHECK(opening(folder, bytes).empty());
  const std::string offset_two = bytes_of(std::uint32_t{0}) + bytes_of(std::uint64_t{64});
  const auto at = bytes.rfind(offset_two);
  REQUIRE(at != std::string::npos);
  bytes[at + 4] = 32;
  CHECK(contains(opening(folder, bytes), "tensors one and two overlap"));
  bytes[at + 4] = 65;
  CHECK(contains(opening(folder, bytes), "offset 65 is not a multiple of 32"));
}
