/// \file  Checkpoints whose weights are known row by row, in every format and under every name.
// SPDX-License-Identifier: Apache-2.0
#include <lmd/model/convert_hf.hpp>
#include <lmd/model/hf_config.hpp>
#include <lmd/model/load_weights.hpp>

#include <algorithm>
#include <cstdint>
#include <string>
#include <vector>

#include "test_files.hpp"
#include "tiny_checkpoint.hpp"
#include <doctest/doctest.h>
#include <oracle/skip.hpp>

namespace {

using namespace lmd;
using namespace lmd::model;
using namespace lmd::test;

const std::string kLayer = "model.layers.0.";

DecoderWeights load(const TinyCheckpoint& checkpoint, const Progress& progress = {}) {
  const TemporaryFolder folder;
  checkpoint.write(folder.path);
  const HfConfig config = read_config(folder.path);
  return load_weights(folder.path, config.model, config.quantization, progress);
}

std::string error_loading(const TinyCheckpoint& checkpoint) {
  return error_of([&] { (void)load(checkpoint); });
}

/// First weight of every row of matrices that follow one another.
std::vector<float> first_column(const std::vector<Matrix>& matrices) {
  std::vector<float> column;
  for (const Matrix& m : matrices) {
    std::vector<float> row(static_cast<std::size_t>(m.k));
    for (int j = 0; j < m.n; ++j) {
      detail::decode_row(m, j, row.data());
      CHECK(std::all_of(row.begin(), row.end(), [&](float x) { return x == row[0]; }));
      column.push_back(row[0]);
    }
  }
  return column;
}

float first_weight(const Matrix& m) {
  std::vector<float> row(static_cast<std::size_t>(m.k));
  detail::decode_row(m, 0, row.data());
  return row[0];
}

/// Bytes that the weights hold.
std::int64_t held_bytes(const DecoderWeights& w) {
  const auto of = [](const Matrix& m) {
    return static_cast<std::int64_t>(m.codes.size_bytes() + m.params.size_bytes() +
                                     m.bias.size_bytes());
  };
  std::int64_t bytes = of(w.embedding) + of(w.head);
  bytes += static_cast<std::int64_t>(w.final_norm.size_bytes());
  for (const LayerWeights& l : w.layers) {
    bytes += static_cast<std::int64_t>(l.attention_norm.size_bytes() + l.mlp_norm.size_bytes());
    bytes += of(l.attention_out) + of(l.down);
    for (const Matrix& m : l.qkv)
      bytes += of(m);
    for (const Matrix& m : l.gate_up)
      bytes += of(m);
  }
  return bytes;
}

// Rows of wqkv by hand: per KV head two query heads of 2 rows, a key head, a value head.
//   file rows   0 1 | 2 3 | 4 5 | 6 7 || 8 9 | 10 11 | 12 13 | 14 15
//               q0    q1    k0    v0     q2    q3      k1      v1
const std::vector<float> kUngrouped = {0, 1, 2, 3, 8, 9, 10, 11, 4, 5, 12, 13, 6, 7, 14, 15};
const std::vector<float> kCounting = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};

}  // namespace

TEST_CASE("InternLM2: every tensor in its place, wqkv ungrouped") {
  const DecoderWeights w = load(TinyCheckpoint::internlm2());
  REQUIRE(w.layers.size() == 1);
  const LayerWeights& layer = w.layers[0];
  REQUIRE(layer.qkv.size() == 1);
  CHECK(first_column(layer.qkv) == kUngrouped);
  CHECK(layer.attention_norm[31] == 32.0f);
  CHECK(layer.mlp_norm[0] == 2.0f);
  CHECK(w.final_norm[0] == 3.0f);
  CHECK(first_weight(layer.attention_out) == 100.0f);
  CHECK(layer.attention_out.k == 8);
  REQUIRE(layer.gate_up.size() == 1);
  const std::vector<float> gate_up = first_column(layer.gate_up);
  CHECK(gate_up[0] == 200.0f);   // w1 is the gate
  CHECK(gate_up[64] == 300.0f);  // w3 is up
  CHECK(first_weight(layer.down) == 400.0f);
  CHECK(first_weight(w.embedding) == 1000.0f);
  CHECK(first_weight(w.head) == 2000.0f);
}

TEST_CASE("Llama: q, k and v become one matrix; a wrapped decoder has a prefix") {
  const DecoderWeights w = load(TinyCheckpoint::llama());
  REQUIRE(w.layers[0].qkv.size() == 1);
  CHECK(first_column(w.layers[0].qkv) == kCounting);
  TinyCheckpoint wrapped = TinyCheckpoint::internlm2("language_model.");
  wrapped.config = {{"architectures", {"InternVLChatModel"}}, {"llm_config", wrapped.config}};
  wrapped.config["llm_config"]["architectures"] = {"InternLM2ForCausalLM"};
  CHECK(first_column(load(wrapped).layers[0].qkv) == kUngrouped);
}

TEST_CASE("AWQ: wqkv is unpacked and ungrouped, what has no qweight stays as it is") {
  TinyCheckpoint c = TinyCheckpoint::internlm2();
  c.config["quantization_config"] = json::Json::parse(
      R"({"quant_method":"awq","version":"gemm","bits":4,"group_size":32,"zero_point":true})");
  const std::string wqkv = kLayer + "attention.wqkv.";
  c.tensors.erase(wqkv + "weight");
  // Output n has code n: nibbles, low to high, 0 2 4 6 1 3 5 7 and 8 a c e 9 b d f.
  std::string words;
  for (int l = 0; l < 32; ++l)
    words += bytes_of(0x75316420u) + bytes_of(0xfdb9eca8u);
  c.tensors[wqkv + "qweight"] = {"I32", {32, 2}, words};
  c.tensors[wqkv + "qzeros"] = {"I32", {1, 2}, bytes_of(0u) + bytes_of(0u)};
  const std::vector<float> ones(16, 1.0f);
  const std::vector<std::uint16_t> half_ones(16, 0x3c00);
  const std::vector<std::uint16_t> brain_ones(16, 0x3f80);
  for (const auto& [dtype, data] :
       std::vector<std::pair<std::string, std::string>>{{"F16", bytes_of_all(half_ones)},
                                                        {"BF16", bytes_of_all(brain_ones)},
                                                        {"F32", bytes_of_all(ones)}}) {
    CAPTURE(dtype);
    c.tensors[wqkv + "scales"] = {dtype, {1, 16}, data};
    const DecoderWeights w = load(c);
    CHECK(w.layers[0].qkv[0].format == format_index<quant::WeightInt4<32>>());
    CHECK(first_column(w.layers[0].qkv) == kUngrouped);
    CHECK(w.layers[0].down.format == format_index<quant::WeightFloat>());
  }
  c.tensors[wqkv + "qzeros"].shape = {2, 1};
  CHECK(contains(error_loading(c), "wqkv.qzeros: shape is [2, 1], expected [1, 2]"));
  c.config.erase("quantization_config");
  CHECK(contains(error_loading(c), "wqkv.qweight: is quantised, but config.json"));
}

TEST_CASE("lmd's own formats, and parts of different formats") {
  TinyCheckpoint c = TinyCheckpoint::llama();
  c.config["quantization_config"] = json::Json::parse(
      R"({"quant_method":"lmd","bits":4,"group_size":32,"layout":"affine","modules":
         {"model.layers.0.self_attn.v_proj":{"bits":8,"group_size":32,"layout":"symmetric"}}})");
  const auto affine = [&](const std::string& module, int n, int first) {
    c.tensors.erase(module + ".weight");
    std::string codes;
    for (int r = 0; r < n; ++r)
      codes += std::string(16, static_cast<char>(0x11 * r));
    // w = 0.5 * code + first, of rows whose codes count
    const std::uint16_t minimum = to_half(static_cast<float>(first)).bits;
    c.tensors[module + ".qweight"] = {"U8", {n, 16}, codes};
    c.tensors[module + ".scales"] = {
        "F16",
        {n, 1},
        bytes_of_all(std::vector<std::uint16_t>(static_cast<std::size_t>(n), 0x3800))};
    c.tensors[module + ".mins"] = {
        "F16",
        {n, 1},
        bytes_of_all(std::vector<std::uint16_t>(static_cast<std::size_t>(n), minimum))};
  };
  affine(kLayer + "self_attn.q_proj", 8, 100);
  affine(kLayer + "self_attn.k_proj", 4, 200);
  const std::string v = kLayer + "self_attn.v_proj";
  c.tensors.erase(v + ".weight");
  c.tensors[v + ".qweight"] = {"I8", {4, 32}, std::string(64, '\x80') + std::string(64, '\x7f')};
  c.tensors[v + ".scales"] = {
      "F16", {4, 1}, bytes_of_all(std::vector<std::uint16_t>{0x3c00, 0x3800, 0x3c00, 0x3800})};
  DecoderWeights w = load(c);
  REQUIRE(w.layers[0].qkv.size() == 3);  // formats differ
  CHECK(w.layers[0].qkv[0].format == format_index<quant::WeightAffine4<32>>());
  CHECK(w.layers[0].qkv[2].format == format_index<quant::WeightInt8<32>>());
  CHECK(first_column(w.layers[0].qkv) == std::vector<float>{100, 100.5f, 101, 101.5f, 102, 102.5f,
                                                            103, 103.5f, 200, 200.5f, 201, 201.5f,
                                                            -128, -64, 127, 63.5f});
  affine(v, 4, 300);
  CHECK(contains(error_loading(c), "v_proj.qweight: dtype is U8, expected I8"));
  c.config["quantization_config"].erase("modules");
  w = load(c);
  REQUIRE(w.layers[0].qkv.size() == 1);
  CHECK(first_column(w.layers[0].qkv)[12] == 300.0f);
  c.tensors.erase(v + ".mins");
  CHECK(contains(error_loading(c), "tensor model.layers.0.self_attn.v_proj.mins is missing"));
}

TEST_CASE("norms of 16 bits become floats") {
  TinyCheckpoint c = TinyCheckpoint::llama();
  c.tensors["model.norm.weight"] = {
      "BF16", {32}, bytes_of_all(std::vector<std::uint16_t>(32, 0xbfc0))};
  CHECK(load(c).final_norm[7] == -1.5f);
  c.tensors["model.norm.weight"] = {
      "F16", {32}, bytes_of_all(std::vector<std::uint16_t>(32, 0xbe00))};
  CHECK(load(c).final_norm[31] == -1.5f);
  c.tensors["model.norm.weight"] = {"I8", {32}, std::string(32, '\1')};
  CHECK(contains(error_loading(c), "model.norm.weight: dtype is I8, expected F32, F16 or BF16"));
}

TEST_CASE("Qwen2 has biases on q, k and v, and needs them; nobody else may have one") {
  TinyCheckpoint c = TinyCheckpoint::llama();
  c.config["architectures"] = {"Qwen2ForCausalLM"};
  CHECK(contains(error_loading(c), "self_attn.q_proj.bias is missing"));
  c.rows(kLayer + "self_attn.q_proj.bias", 8, 0, 50);
  c.rows(kLayer + "self_attn.k_proj.bias", 4, 0, 60);
  c.rows(kLayer + "self_attn.v_proj.bias", 4, 0, 70);
  const DecoderWeights w = load(c);
  const Buffer<float>& bias = w.layers[0].qkv[0].bias;
  REQUIRE(bias.size() == 16);
  CHECK(bias[7] == 57.0f);
  CHECK(bias[8] == 60.0f);
  CHECK(bias[15] == 73.0f);
  CHECK(w.layers[0].down.bias.size() == 0);
  c.config["architectures"] = {"LlamaForCausalLM"};
  CHECK(contains(error_loading(c), "q_proj.bias: a bias here is not supported for Llama"));
}

TEST_CASE("the head: stored, tied, or missing") {
  TinyCheckpoint c = TinyCheckpoint::llama();
  c.config["tie_word_embeddings"] = true;
  CHECK(load(c).head.n == 16);  // the tensor that is there wins
  c.tensors.erase("lm_head.weight");
  CHECK(load(c).head.n == 0);
  c.config.erase("tie_word_embeddings");
  CHECK(load(c).head.n == 0);
  c.config["tie_word_embeddings"] = false;
  CHECK(contains(error_loading(c), "tensor lm_head.weight is missing"));
}

TEST_CASE("every missing tensor and every wrong shape is named") {
  for (const TinyCheckpoint& good : {TinyCheckpoint::internlm2(), TinyCheckpoint::llama()}) {
    for (const auto& [name, tensor] : good.tensors) {
      CAPTURE(name);
      TinyCheckpoint c = good;
      c.tensors.erase(name);
      CHECK(contains(error_loading(c), "tensor " + name + " is missing"));
      c.tensors[name] = {
          tensor.dtype, {static_cast<std::int64_t>(tensor.data.size()) / 4}, tensor.data};
      if (tensor.shape.size() == 1) c.tensors[name].shape = {4, tensor.shape[0] / 4};
      const std::string what = error_loading(c);
      CHECK(contains(what, "model.safetensors: tensor " + name + ": shape is ["));
      CHECK(contains(what, "expected " + to_string(tensor.shape)));
    }
  }
}

TEST_CASE("bytes are counted without loading; progress ends at the total") {
  const TemporaryFolder folder;
  TinyCheckpoint::internlm2().write(folder.path);
  const HfConfig config = read_config(folder.path);
  std::int64_t last = 0;
  std::int64_t total = -1;
  const DecoderWeights w = load_weights(folder.path, config.model, config.quantization,
                                        [&](std::int64_t done_bytes, std::int64_t total_bytes) {
                                          CHECK(done_bytes >= last);
                                          last = done_bytes;
                                          total = total_bytes;
                                        });
  CHECK(last == total);
  CHECK(total == held_bytes(w));
  CHECK(held_bytes(read_weight_shapes(folder.path, config.model, config.quantization)) == total);
}

TEST_CASE("a step reads every weight once, and of an embedding that is no head one row a token") {
  TinyCheckpoint c = TinyCheckpoint::llama();
  const DecoderWeights w = load(c);
  REQUIRE(w.embedding.n == 16);
  constexpr std::int64_t kRow = 32 * 4;  // hidden size 32, floats
  CHECK(step_bytes(w, 1) == held_bytes(w) - 15 * kRow);
  CHECK(step_bytes(w, 3) == held_bytes(w) - 13 * kRow);
  CHECK(step_bytes(w, 64) == held_bytes(w));
  c.tensors.erase("lm_head.weight");
  c.config["tie_word_embeddings"] = true;
  const DecoderWeights tied = load(c);
  CHECK(step_bytes(tied, 1) == held_bytes(tied));
  CHECK(step_bytes(tied, 1) == step_bytes(w, 1) - kRow);
}

TEST_CASE("the row of a quantised embedding counts with its scales") {
  DecoderWeights w = load(TinyCheckpoint::llama());
  const std::int64_t floats = step_bytes(w, 1);
  w.embedding.format = format_index<quant::WeightInt8<32>>();
  w.embedding.codes = Buffer<std::uint8_t>(16 * 32);
  w.embedding.params = Buffer<std::uint8_t>(16 * 2);
  CHECK(step_bytes(w, 1) == floats - 32 * 4 + 32 + 2);
}

TEST_CASE("the default model") {
  const std::string folder = default_model_dir();
  if (!has_file(folder + "/model.safetensors", "weights of the default model")) return;
  const HfConfig config = read_config(folder);
  const DecoderWeights w = load_weights(folder, config.model, config.quantization);
  CHECK(config.model.eos_ids == std::vector<int>{2, 0});
  CHECK(config.model.rms_eps == 1e-5f);
  CHECK(config.model.rope.base == 1e5);
  REQUIRE(w.layers.size() == 30);
  CHECK(w.head.n == 0);
  CHECK(w.embedding.format == format_index<quant::WeightInt8<32>>());
  for (const LayerWeights& layer : w.layers) {
    REQUIRE(layer.qkv.size() == 1);
    CHECK(layer.qkv[0].n == 960);
    CHECK(layer.gate_up.size() == 1);
    CHECK(layer.down.format == format_index<quant::WeightAffine4<32>>());
  }
  CHECK(step_bytes(w, 1) == held_bytes(w));
  CHECK(held_bytes(w) == 96'576'768);  // the tensors of the file that it was converted from
}
