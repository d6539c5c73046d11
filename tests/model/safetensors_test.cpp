/// \file  safetensors files read from hand-written bytes, written, sharded, and refused.
// SPDX-License-Identifier: Apache-2.0
#include <lmd/model/safetensors.hpp>

#include <cstring>
#include <string>
#include <vector>

#include "test_files.hpp"
#include <doctest/doctest.h>

namespace {

using namespace lmd::model;
using namespace lmd::test;

std::string opening(const TemporaryFolder& folder, const std::string& bytes) {
  write_file(folder / "x.safetensors", bytes);
  return error_of([&] { const SafetensorsFile file(folder / "x.safetensors"); });
}

/// A header with one F32 tensor [2] whose entry is `entry`, and 8 bytes of data.
std::string with_entry(const std::string& entry) {
  return safetensors("{\"t\":" + entry + "}", std::string(8, '\0'));
}

}  // namespace

TEST_CASE("a file spelled out byte by byte") {
  const char kBytes[] =
      "\x4a\x00\x00\x00\x00\x00\x00\x00"
      "{\"t\":{\"dtype\":\"F16\",\"shape\":[2],\"data_offsets\":[0,4]},"
      "\"__metadata__\":{}}  "
      "\x00\x3e\x00\xc9";
  const TemporaryFolder folder;
  write_file(folder / "hand.safetensors", std::string(kBytes, sizeof kBytes - 1));
  const SafetensorsFile file(folder / "hand.safetensors");
  REQUIRE(file.tensors().size() == 1);
  const TensorEntry& t = file.tensors().at("t");
  CHECK(t.dtype == DType::kF16);
  CHECK(t.shape == Shape{2});
  CHECK(t.offset == 8 + 0x4a);
  std::uint16_t bits[2];
  file.read(t, 0, bits, 4);
  CHECK(bits[0] == 0x3e00);
  CHECK(bits[1] == 0xc900);
}

TEST_CASE("what the writer wrote, the reader reads, in pieces and with every dtype") {
  const TemporaryFolder folder;
  std::vector<TensorSpec> specs;
  for (const DTypeFacts& facts : kDTypes)
    specs.push_back({std::string("of ") + facts.name, facts.dtype, {2, 3}});
  specs.push_back({"scalar", DType::kF32, {}});
  specs.push_back({"nothing", DType::kF32, {0, 5}});
  SafetensorsWriter out(folder / "w.safetensors", specs);
  for (const TensorSpec& spec : specs) {
    const std::string data(static_cast<std::size_t>(*size_in_bytes(spec.shape, spec.dtype)),
                           spec.name.back());
    for (const char& byte : data)
      out.write(spec.name, &byte, 1);
  }
  CHECK_FALSE(std::filesystem::exists(folder / "w.safetensors"));
  out.commit();
  const SafetensorsFile file(folder / "w.safetensors");
  REQUIRE(file.tensors().size() == specs.size());
  for (const TensorSpec& spec : specs) {
    CAPTURE(spec.name);
    const TensorEntry& entry = file.tensors().at(spec.name);
    CHECK(entry.dtype == spec.dtype);
    CHECK(entry.shape == spec.shape);
    std::string data(static_cast<std::size_t>(entry.bytes), '\0');
    file.read(entry, 0, data.data(), entry.bytes);
    CHECK(data == std::string(data.size(), spec.name.back()));
  }
  CHECK(file.tensors().at("of F64").offset % 8 == 0);
}

TEST_CASE("the writer refuses data out of turn, too much of it, and too little") {
  const TemporaryFolder folder;
  const float two[2] = {1, 2};
  SafetensorsWriter out(folder / "w.safetensors",
                        {{"a", DType::kF32, {2}}, {"b", DType::kF32, {1}}});
  CHECK(contains(error_of([&] { out.write("b", two, 4); }), "tensor b is written out of turn"));
  CHECK(contains(error_of([&] { out.write("a", two, 12); }), "tensor a is written out of turn"));
  out.write("a", two, 8);
  CHECK(contains(error_of([&] { out.commit(); }), "only 8 of 12 bytes"));
  CHECK(contains(error_of([&] {
                   SafetensorsWriter twice(folder / "v.safetensors",
                                           {{"a", DType::kF32, {1}}, {"a", DType::kF32, {1}}});
                 }),
                 "tensor a cannot be declared"));
  CHECK_FALSE(std::filesystem::exists(folder / "w.safetensors"));
}

TEST_CASE("headers that do not add up are refused by name") {
  const TemporaryFolder folder;
  const auto entry = [&](const std::string& text) { return opening(folder, with_entry(text)); };
  CHECK(entry(R"({"dtype":"F32","shape":[2],"data_offsets":[0,8]})").empty());
  CHECK(contains(entry(R"({"dtype":"F31","shape":[2],"data_offsets":[0,8]})"),
                 "tensor t: dtype F31 is unknown; known: F64 F32"));
  CHECK(contains(entry(R"({"dtype":5,"shape":[2],"data_offsets":[0,8]})"), "expected a string"));
  CHECK(contains(entry(R"({"shape":[2],"data_offsets":[0,8]})"), "required key dtype is missing"));
  CHECK(contains(entry(R"({"dtype":"F32","data_offsets":[0,8]})"), "key shape is missing"));
  CHECK(contains(entry(R"({"dtype":"F32","shape":[2]})"), "key data_offsets is missing"));
  CHECK(contains(entry(R"({"dtype":"F32","shape":[3],"data_offsets":[0,8]})"),
                 "has 8 bytes, expected 12 for F32 [3]"));
  CHECK(contains(entry(R"({"dtype":"F32","shape":[-2],"data_offsets":[0,8]})"), "shape is [-2]"));
  CHECK(contains(entry(R"({"dtype":"F32","shape":[2.0],"data_offsets":[0,8]})"), "shape is [2.0]"));
  CHECK(contains(entry(R"({"dtype":"F32","shape":{"a":2},"data_offsets":[0,8]})"), "an array"));
  CHECK(contains(entry(R"({"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,8]})"),
                 "more than can be counted"));
  CHECK(contains(entry(R"({"dtype":"F32","shape":[1,1,1,1,1,1,1,1,2],"data_offsets":[0,8]})"),
                 "has 9 dimensions"));
  CHECK(contains(entry(R"({"dtype":"F32","shape":[18446744073709551615],"data_offsets":[0,8]})"),
                 "shape is"));
  CHECK(contains(entry(R"({"dtype":"F32","shape":[2],"data_offsets":[0,12]})"), "holds 8 bytes"));
  CHECK(contains(entry(R"({"dtype":"F32","shape":[2],"data_offsets":[8,0]})"), "data_offsets is"));
  CHECK(contains(entry(R"({"dtype":"F32","shape":[2],"data_offsets":[0]})"), "[begin, end]"));
  CHECK(contains(entry(R"({"dtype":"F32","shape":[2],"data_offsets":[-8,0]})"), "[begin, end]"));
  CHECK(contains(entry("7"), "tensor t: is 7, expected an object"));
  CHECK(contains(opening(folder, safetensors("[]", "")), "expected an object"));
  CHECK(
      contains(opening(folder, safetensors("{\"a\":1e999}", "")), "beyond the range of a double"));
  CHECK(contains(opening(folder, ""), "has 0 bytes"));
  CHECK(contains(opening(folder, bytes_of(UINT64_MAX) + "{}"), "header length is"));
  CHECK(contains(opening(folder, bytes_of(UINT64_C(200'000'000)) + "{}"), "expected 2 to 2"));
  CHECK(contains(opening(folder, safetensors(std::string(5000, '['), "")), "nested 5000 deep"));
}

TEST_CASE("tensors that share bytes are refused, a name cannot break the line") {
  const TemporaryFolder folder;
  const std::string header = R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},)"
                             R"("b\nc":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}})";
  const std::string what = opening(folder, safetensors(header, std::string(8, '\0')));
  CHECK(contains(what, "tensor b?c starts at byte"));
  CHECK(contains(what, "before the end of a at"));
}

TEST_CASE("a model of one file, and one of shards") {
  const TemporaryFolder folder;
  CHECK(contains(error_of([&] { const SafetensorsModel model(folder.path); }), "no weights"));
  write_file(folder / "1.safetensors", SafetensorsBytes().add_constant("a", {1}, 1.0f).bytes());
  write_file(folder / "2.safetensors",
             SafetensorsBytes().add_constant("b", {2}, 2.0f).add_constant("c", {1}, 3.0f).bytes());
  const std::string index = folder / "model.safetensors.index.json";
  write_file(index, R"({"metadata":{"total_size":12},"weight_map":)"
                    R"({"a":"1.safetensors","b":"2.safetensors"}})");
  const SafetensorsModel model(folder.path);
  CHECK(model.tensors().size() == 2);
  float values[2];
  model.at("b").read(values);
  CHECK(values[1] == 2.0f);
  CHECK_FALSE(model.find("c"));
  CHECK(contains(error_of([&] { (void)model.at("c"); }), "tensor c is missing"));

  const auto with_map = [&](const std::string& map) {
    write_file(index, "{\"weight_map\":" + map + "}");
    return error_of([&] { const SafetensorsModel broken(folder.path); });
  };
  CHECK(contains(with_map(R"({"a":"../1.safetensors"})"), "expected a file of the same folder"));
  CHECK(contains(with_map(R"({"a":"/etc/passwd"})"), "expected a file of the same folder"));
  CHECK(contains(with_map(R"({"a":""})"), "expected a file of the same folder"));
  CHECK(contains(with_map(R"({"a":"3.safetensors"})"), "3.safetensors, which is not there"));
  CHECK(contains(with_map(R"({"a":"2.safetensors"})"), "2.safetensors: tensor a is missing"));
  CHECK(contains(with_map(R"({"a":3})"), "weight_map: a is 3, expected a file name"));
  CHECK(contains(with_map("[]"), "expected an object"));
  write_file(index, "{}");
  CHECK(contains(error_of([&] { const SafetensorsModel broken(folder.path); }),
                 "required key weight_map is missing"));
}
