/// \file  GGUF -> folder -> weights, with the file's own codes; folders cast to another type.
// SPDX-License-Identifier: Apache-2.0
#include <lmd/model/convert.hpp>
#include <lmd/model/convert_hf.hpp>
#include <lmd/model/hf_config.hpp>
#include <lmd/model/load_weights.hpp>

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "test_files.hpp"
#include "tiny_checkpoint.hpp"
#include "tiny_gguf.hpp"
#include <doctest/doctest.h>
namespace {

using namespace lmd;
using namespace lmd::model;
using namespace lmd::test;

struct Converted {
  HfConfig config;
  DecoderWeights weights;
};

Converted load_folder(const std::string& folder) {
  Converted c;
  c.config = read_config(folder);
  c.weights = load_weights(folder, c.config.model, c.config.quantization);
  return c;
}

Converted convert(const TinyGguf& gguf, const ConvertOptions& options = {}) {
  const TemporaryFolder folder;
  write_file(folder / "in.gguf", gguf.bytes());
  convert_gguf(folder / "in.gguf", folder / "out", options);
  return load_folder(folder / "out");
}

std::string error_converting(const TinyGguf& gguf, const ConvertOptions& options = {}) {
  return error_of([&] { (void)convert(gguf, options); });
}

std::vector<float> row_of(const Matrix& m, int j) {
  std::vector<float> row(static_cast<std::size_t>(m.k));
  detail::decode_row(m, j, row.data());
  return row;
}

std::vector<float> first_column(const Matrix& m) {
  std::vector<float> column;
  for (int j = 0; j < m.n; ++j)
    column.push_back(row_of(m, j)[0]);
  return column;
}

/// A Q4_1 block: d = 0.5, m = -1; element j has code j for j < 16, element j + 16 has 15 - j.
std::string q4_1_block() {
  std::string block("\x00\x38\x00\xbc", 4);
  for (int j = 0; j < 16; ++j)
    block += static_cast<char>(j | (15 - j) << 4);
  return block;
}

// RoPE turns rows (0, 1), (2, 3) of a head of 4 there, and (0, 2), (1, 3) here.
const std::vector<float> kQkv = {0,   2,   1,   3,   4,   6,   5,   7,   8,   10,  9,
                                 11,  12,  14,  13,  15,  100, 102, 101, 103, 104, 106,
                                 105, 107, 200, 201, 202, 203, 204, 205, 206, 207};

}  // namespace

TEST_CASE("llama: q and k rows go back to halves, everything else keeps its place") {
  const Converted c = convert(TinyGguf());
  const ModelConfig& m = c.config.model;
  CHECK(m.architecture == "LlamaForCausalLM");
  CHECK(m.head_dim == 4);
  CHECK(m.rope.base == 5000.0);
  CHECK(m.rms_eps == 1e-5f);
  CHECK(m.bos_id == 1);
  CHECK(m.eos_ids == std::vector<int>{2, 0});
  CHECK_FALSE(m.has_tied_head);
  CHECK(c.config.quantization.method == QuantMethod::kNone);
  const LayerWeights& layer = c.weights.layers.at(0);
  REQUIRE(layer.qkv.size() == 1);
  CHECK(first_column(layer.qkv[0]) == kQkv);
  CHECK(first_column(layer.attention_out)[31] == 331.0f);
  CHECK(first_column(layer.gate_up.at(0))[0] == 400.0f);
  CHECK(first_column(layer.gate_up.at(0))[64] == 500.0f);
  CHECK(first_column(layer.down)[0] == 600.0f);
  CHECK(layer.attention_norm[0] == 1.0f);
  CHECK(layer.mlp_norm[0] == 2.0f);
  CHECK(c.weights.final_norm[0] == 3.0f);
  CHECK(first_column(c.weights.embedding) == std::vector<float>{1000, 1001, 1002, 1003});
  CHECK(first_column(c.weights.head)[3] == 2003.0f);
}

TEST_CASE("internlm2: q, k and v are apart in the file, and a Llama is what they are") {
  const Converted c = convert(TinyGguf("internlm2"));
  CHECK(c.config.model.architecture == "LlamaForCausalLM");
  CHECK(c.config.model.rope.base == 5000.0);
  CHECK(first_column(c.weights.layers.at(0).qkv.at(0)) == kQkv);
}

TEST_CASE("internlm2: the piece that stands for a NUL character is one again") {
  const std::vector<std::string> tokens = {"<unk>", "\U0001F409", "\U0001F409\U0001F409", "b"};
  for (const std::string arch : {"internlm2", "llama"}) {
    TinyGguf gguf(arch, tokens);
    const TemporaryFolder folder;
    write_file(folder / "in.gguf", gguf.bytes());
    convert_gguf(folder / "in.gguf", folder / "out", {},
                 [&](const GgufTokenizer& t, const std::string&) {
                   CHECK(t.tokens[1] == (arch == "llama" ? tokens[1] : std::string(1, '\0')));
                   CHECK(t.tokens[2] == tokens[2]);
                 });
  }
}

TEST_CASE("qwen2: rows stay, biases go along") {
  TinyGguf gguf("qwen2");
  CHECK(contains(error_converting(gguf), "tensor blk.0.attn_q.bias is missing"));
  gguf.tensors["blk.0.attn_q.bias"] = {{16}, 0, bytes_of_all(std::vector<float>(16, 0.5f))};
  gguf.tensors["blk.0.attn_k.bias"] = {{8}, 0, bytes_of_all(std::vector<float>(8, 1.5f))};
  gguf.tensors["blk.0.attn_v.bias"] = {{8}, 0, bytes_of_all(std::vector<float>(8, 2.5f))};
  gguf.tensors.erase("output.weight");
  const Converted c = convert(gguf);
  CHECK(c.config.model.architecture == "Qwen2ForCausalLM");
  CHECK(c.config.model.has_tied_head);
  CHECK(c.weights.head.n == 0);
  const Matrix& qkv = c.weights.layers.at(0).qkv.at(0);
  CHECK(first_column(qkv)[1] == 1.0f);
  CHECK(qkv.bias[15] == 0.5f);
  CHECK(qkv.bias[16] == 1.5f);
  CHECK(qkv.bias[31] == 2.5f);
}

TEST_CASE("codes are kept: Q4_1 and Q4_0 as affine, Q8_0 as int8") {
  TinyGguf gguf;
  std::string down;
  for (int block = 0; block < 32 * 2; ++block)
    down += q4_1_block();
  gguf.tensors["blk.0.ffn_down.weight"] = {{64, 32}, 3, down};
  std::string gate;  // Q4_0: d = 0.25, all nibbles of row r are r % 16
  for (int r = 0; r < 64; ++r)
    gate += std::string("\x00\x34", 2) + std::string(16, static_cast<char>(0x11 * (r % 16)));
  gguf.tensors["blk.0.ffn_gate.weight"] = {{32, 64}, 2, gate};
  std::string k;  // Q8_0: d = 0.5, codes of row r are r - 4
  for (int r = 0; r < 8; ++r)
    k += std::string("\x00\x38", 2) + std::string(32, static_cast<char>(r - 4));
  gguf.tensors["blk.0.attn_k.weight"] = {{32, 8}, 8, k};
  const Converted c = convert(gguf);
  CHECK(c.config.quantization.method == QuantMethod::kLmd);
  const LayerWeights& layer = c.weights.layers.at(0);

  CHECK(layer.down.format == format_index<quant::WeightAffine4<32>>());
  const std::vector<float> row = row_of(layer.down, 31);
  for (int j = 0; j < 16; ++j) {
    CHECK(row[static_cast<std::size_t>(j)] == 0.5f * static_cast<float>(j) - 1.0f);
    CHECK(row[static_cast<std::size_t>(j + 16)] == 0.5f * static_cast<float>(15 - j) - 1.0f);
    CHECK(row[static_cast<std::size_t>(j + 32)] == row[static_cast<std::size_t>(j)]);
  }
  CHECK(layer.down.codes[0] == 0x10);  // neighbours share a byte now
  CHECK(layer.down.codes[15] == 0x01);

  REQUIRE(layer.gate_up.size() == 2);
  CHECK(layer.gate_up[0].format == format_index<quant::WeightAffine4<32>>());
  CHECK(first_column(layer.gate_up[0])[0] == -2.0f);
  CHECK(first_column(layer.gate_up[0])[31] == 1.75f);

  REQUIRE(layer.qkv.size() == 3);
  CHECK(layer.qkv[1].format == format_index<quant::WeightInt8<32>>());
  CHECK(first_column(layer.qkv[1]) == std::vector<float>{-2, -1, -1.5f, -0.5f, 0, 1, 0.5f, 1.5f});

  const Converted inflated = convert(gguf, {DType::kBF16});
  CHECK(inflated.config.quantization.method == QuantMethod::kNone);
  CHECK(inflated.weights.layers[0].down.format == format_index<quant::WeightBFloat16>());
  CHECK(row_of(inflated.weights.layers[0].down, 31) == row);
  CHECK(first_column(inflated.weights.layers[0].qkv.at(0))[17] == -1.0f);
}

TEST_CASE("a Q4_0 whose minimum is no half becomes 16 bit; what is too large is refused") {
  TinyGguf gguf;
  // d = 16384: -8 d is beyond the halves, while codes 8 .. 11 give 0 .. 49152.
  std::string gate;
  for (int r = 0; r < 64; ++r)
    gate += std::string("\x00\x74", 2) + std::string(16, '\x9b');
  gguf.tensors["blk.0.ffn_gate.weight"] = {{32, 64}, 2, gate};
  const Converted c = convert(gguf);
  CHECK(c.weights.layers[0].gate_up.at(0).format == format_index<quant::WeightHalf>());
  CHECK(row_of(c.weights.layers[0].gate_up[0], 5)[0] == 49152.0f);
  CHECK(row_of(c.weights.layers[0].gate_up[0], 5)[16] == 16384.0f);
  gate[2] = '\x0f';  // code 15: 114688
  gguf.tensors["blk.0.ffn_gate.weight"].data = gate;
  CHECK(contains(error_converting(gguf),
                 "tensor blk.0.ffn_gate.weight: 114688.000000 is too large for float16"));
  CHECK(row_of(convert(gguf, {DType::kF32}).weights.layers[0].gate_up.at(0), 0)[0] == 114688.0f);
}

TEST_CASE("types without a format of ours become 16 bit") {
  TinyGguf gguf;
  std::string up;  // Q5_0 with d = 0.5 and all codes 16: zero; the high bits are set
  for (int r = 0; r < 64; ++r)
    up += std::string("\x00\x38\xff\xff\xff\xff", 6) + std::string(16, '\x11');
  gguf.tensors["blk.0.ffn_up.weight"] = {{32, 64}, 6, up};
  const Converted c = convert(gguf);
  REQUIRE(c.weights.layers[0].gate_up.size() == 2);
  CHECK(c.weights.layers[0].gate_up[1].format == format_index<quant::WeightHalf>());
  CHECK(row_of(c.weights.layers[0].gate_up[1], 63)[31] == 0.5f);
}

TEST_CASE("the tokenizer is handed over") {
  const TemporaryFolder folder;
  write_file(folder / "in.gguf", TinyGguf().bytes());
  std::int64_t done = -1;
  std::int64_t total = 0;
  convert_gguf(
      folder / "in.gguf", folder / "out", {},
      [&](const GgufTokenizer& t, const std::string& to) {
        CHECK(t.model == "gpt2");
        CHECK(t.pre == "smollm");
        CHECK(t.tokens.size() == 4);
        CHECK(t.types == std::vector<std::int64_t>{3, 1, 3, 1});
        CHECK(t.merges == std::vector<std::string>{"a b"});
        CHECK(t.bos_id == 1);
        CHECK(t.eos_id == 2);
        CHECK(t.unk_id == -1);
        CHECK(t.add_bos == false);
        CHECK_FALSE(t.add_space_prefix.has_value());
        CHECK(t.chat_template.empty());
        write_file(to + "/tokenizer.json", "{}");
      },
      [&](std::int64_t d, std::int64_t t) {
        CHECK(d >= done);
        done = d;
        total = t;
      });
  CHECK(done == total);
  CHECK(read_file(folder / "out/tokenizer.json") == "{}");
}

TEST_CASE("nothing is half written, nothing is overwritten") {
  const TemporaryFolder folder;
  write_file(folder / "in.gguf", TinyGguf().bytes());
  const auto entries = [&] {
    return std::distance(std::filesystem::directory_iterator(folder.path), {});
  };
  const auto failing = [](const GgufTokenizer&, const std::string&) {
    throw Error(ErrorCode::kFormat, "no such tokenizer");
  };
  const std::string out = folder / "out";
  CHECK(contains(error_of([&] { convert_gguf(folder / "in.gguf", out, {}, failing); }),
                 folder / "in.gguf: no such tokenizer"));
  CHECK(entries() == 1);
  std::filesystem::create_directory(out);
  convert_gguf(folder / "in.gguf", out + "/", {});  // an empty folder is taken
  CHECK(std::filesystem::exists(out + "/model.safetensors"));
  const std::string before = read_file(out + "/config.json");
  CHECK(contains(error_of([&] { convert_gguf(folder / "in.gguf", out, {}); }),
                 "out: already exists and is not an empty folder; remove it"));
  CHECK(read_file(out + "/config.json") == before);
  write_file(folder / "file", "x");
  CHECK(contains(error_of([&] { convert_gguf(folder / "in.gguf", folder / "file", {}); }),
                 "file: already exists"));
  CHECK(entries() == 3);
}

TEST_CASE("what cannot be converted is refused by name") {
  TinyGguf other("mamba");
  CHECK(contains(error_converting(other),
                 "mamba is not supported; supported: internlm2 llama qwen2"));
  TinyGguf gguf;
  gguf.rows("rope_freqs.weight", 2, 0, 1);
  CHECK(contains(error_converting(gguf), "tensor rope_freqs.weight"));
  gguf = TinyGguf();
  gguf.rows("blk.0.attn_q_norm.weight", 4, 0, 1);
  CHECK(contains(error_converting(gguf), "tensor blk.0.attn_q_norm.weight has no place in Llama"));
  gguf = TinyGguf();
  gguf.values.string("llama.rope.scaling.type", "yarn");
  CHECK(contains(error_converting(gguf), "rope.scaling.type yarn is not supported"));
  gguf = TinyGguf();
  gguf.values.u32("llama.expert_count", 8);
  CHECK(contains(error_converting(gguf), "experts are not supported"));
  gguf = TinyGguf();
  gguf.values.u32("llama.rope.dimension_count", 2);
  CHECK(contains(error_converting(gguf), "rope.dimension_count differs"));
  for (const auto& [name, tensor] : TinyGguf().tensors) {
    CAPTURE(name);
    if (name == "output.weight") continue;
    gguf = TinyGguf();
    gguf.tensors.erase(name);
    CHECK(contains(error_converting(gguf), "tensor " + name + " is missing"));
    gguf = TinyGguf();
    gguf.tensors[name].ne = {tensor.data.size() / 4};
    if (tensor.ne.size() == 1) gguf.tensors[name].ne = {tensor.ne[0] / 2, 2};
    CHECK(contains(error_converting(gguf), "tensor " + name));
  }
  CHECK(contains(error_of([] { (void)convert_dtype_named("int3"); }), "known: keep float16"));
}

TEST_CASE("linear RoPE scaling survives") {
  TinyGguf gguf;
  gguf.values.string("llama.rope.scaling.type", "linear").f32("llama.rope.scaling.factor", 4.0f);
  CHECK(convert(gguf).config.model.rope.linear_factor == 4.0);
}

TEST_CASE("a folder is cast to another type, tokenizer and all") {
  const TemporaryFolder folder;
  TinyCheckpoint c = TinyCheckpoint::internlm2();
  c.config["quantization_config"] = json::Json::parse(
      R"({"quant_method":"awq","version":"gemm","bits":4,"group_size":32,"zero_point":true})");
  c.tensors.erase("model.layers.0.attention.wqkv.weight");
  std::string words;
  for (int l = 0; l < 32; ++l)
    words += bytes_of(0x75316420u) + bytes_of(0xfdb9eca8u);
  const std::string wqkv = "model.layers.0.attention.wqkv.";
  c.tensors[wqkv + "qweight"] = {"I32", {32, 2}, words};
  c.tensors[wqkv + "qzeros"] = {"I32", {1, 2}, std::string(8, '\0')};
  c.tensors[wqkv + "scales"] = {"F32", {1, 16}, bytes_of_all(std::vector<float>(16, 2.0f))};
  c.tensors["model.ids"] = {"I64", {1}, std::string(8, '\7')};
  c.write(folder / "in");
  write_file(folder / "in/tokenizer.model", "pieces");
  write_file(folder / "in/model.safetensors.index.json", "{}");
  write_file(folder / "in/pytorch_model.bin", "no");
  convert_hf(folder / "in", folder / "out", DType::kBF16);
  CHECK(read_file(folder / "out/tokenizer.model") == "pieces");
  CHECK_FALSE(std::filesystem::exists(folder / "out/pytorch_model.bin"));
  CHECK_FALSE(std::filesystem::exists(folder / "out/model.safetensors.index.json"));
  const Converted to = load_folder(folder / "out");
  CHECK(to.config.quantization.method == QuantMethod::kNone);
  const Matrix& qkv = to.weights.layers.at(0).qkv.at(0);
  CHECK(qkv.format == format_index<quant::WeightBFloat16>());
  CHECK(first_column(qkv)[4] == 16.0f);  // query head 2 lies in row 8 of wqkv: 2 * code 8
  CHECK(first_column(to.weights.embedding)[8] == 1008.0f);
  const SafetensorsModel files(folder / "out");
  CHECK(files.at("model.ids").entry->dtype == DType::kI64);
  CHECK_FALSE(files.find(wqkv + "scales"));
  c.rows("model.norm.weight", 32, 0, 1e6f);
  c.write(folder / "in");
  CHECK(contains(error_of([&] { convert_hf(folder / "in", folder / "half", DType::kF16); }),
                 "tensor model.norm.weight: 1000000.000000 is too large for float16"));
  CHECK_FALSE(std::filesystem::exists(folder / "half"));
}
