/// \file  Random weights as a folder: names, shapes and words as written down here, and the same bytes
///        when they are loaded again.
// SPDX-License-Identifier: Apache-2.0
#include "../../apps/inst/save_checkpoint.hpp"

#include <lmd/core/thread_pool.hpp>
#include <lmd/model/hf_config.hpp>
#include <lmd/model/load_weights.hpp>

#include <algorithm>
#include <filesystem>
#include <string>
#include <vector>

#include "../../apps/inst/random_weights.hpp"
#include "../../apps/inst/shapes.hpp"
#include "model/test_files.hpp"
#include <doctest/doctest.h>

using namespace lmd;
using namespace lmd::apps;

namespace {

/// Small, with every size different and 3 query heads for each KV head.
model::ModelConfig small_config(const std::string& architecture, int hidden) {
  model::ModelConfig c;
  c.architecture = architecture;
  c.hidden_size = hidden;
  c.intermediate_size = 2 * hidden;
  c.n_layers = 2;
  c.n_heads = 6;
  c.n_kv_heads = 2;
  c.head_dim = hidden / 6;
  c.vocab_size = 67;
  c.max_position = 512;
  c.rms_eps = 1e-5f;
  c.rope = {.base = 1e6, .dynamic_factor = 2.0};
  return c;
}

model::DecoderWeights random_of(const model::ModelConfig& c, const std::string& weights) {
  const RandomFormats formats = random_formats(weights, c);
  RandomWeights random(nullptr, {}, model::matrix_bytes(random_shapes(c, formats)));
  return random_decoder(c, formats, random);
}

void check_equal(const model::Matrix& a, const model::Matrix& b) {
  CHECK(a.format == b.format);
  CHECK(a.n == b.n);
  CHECK(a.k == b.k);
  CHECK(std::equal(a.codes.begin(), a.codes.end(), b.codes.begin(), b.codes.end()));
  CHECK(std::equal(a.params.begin(), a.params.end(), b.params.begin(), b.params.end()));
}

void check_equal(const Buffer<float>& a, const Buffer<float>& b) {
  CHECK(std::equal(a.begin(), a.end(), b.begin(), b.end()));
}

void check_equal(const model::DecoderWeights& a, const model::DecoderWeights& b) {
  check_equal(a.embedding, b.embedding);
  check_equal(a.head, b.head);
  check_equal(a.final_norm, b.final_norm);
  REQUIRE(a.layers.size() == b.layers.size());
  for (std::size_t i = 0; i < a.layers.size(); ++i) {
    check_equal(a.layers[i].attention_norm, b.layers[i].attention_norm);
    check_equal(a.layers[i].mlp_norm, b.layers[i].mlp_norm);
    check_equal(a.layers[i].qkv.at(0), b.layers[i].qkv.at(0));
    check_equal(a.layers[i].gate_up.at(0), b.layers[i].gate_up.at(0));
    check_equal(a.layers[i].attention_out, b.layers[i].attention_out);
    check_equal(a.layers[i].down, b.layers[i].down);
  }
}

}  // namespace

TEST_CASE("packed words are the worked examples of AWQ's layout") {
  // Rows 0 to 7 have these codes at input 0, and the next ones at input 1.
  constexpr int kK = 32;
  std::vector<std::uint8_t> codes(8 * kK / 2);
  std::vector<quant::WeightInt4<32>::Params> params(8);
  for (int j = 0; j < 8; ++j) {
    codes[static_cast<std::size_t>(j * kK / 2)] =
        static_cast<std::uint8_t>((j + 1) | (15 - j) << 4);
    params[static_cast<std::size_t>(j)] = {to_half(static_cast<float>(j)),
                                           static_cast<std::uint8_t>(j < 7 ? j : 15), 0};
  }
  const std::vector<int> rows = {0, 1, 2, 3, 4, 5, 6, 7};
  const AwqWords words = pack_awq<32>(codes.data(), params.data(), kK, rows, nullptr);
  REQUIRE(words.qweight.size() == kK);
  CHECK(words.qweight[0] == 0x86427531u);
  CHECK(words.qweight[1] == 0x8ace9bdfu);
  CHECK(words.qweight[2] == 0u);
  CHECK(words.qzeros == std::vector<std::uint32_t>{0xf5316420u});
  for (int j = 0; j < 8; ++j)
    CHECK(to_float(words.scales[static_cast<std::size_t>(j)]) == static_cast<float>(j));
  const std::vector<int> swapped = {1, 0, 2, 3, 4, 5, 6, 7};
  CHECK(pack_awq<32>(codes.data(), params.data(), kK, swapped, nullptr).qweight[0] == 0x86417532u);
}

TEST_CASE("an AWQ folder has the names and shapes of published ones") {
  const test::TemporaryFolder folder;
  const model::ModelConfig c = shape_config("internlm2-tiny");
  save_checkpoint(c, random_of(c, "w4"), folder.path, nullptr);
  const model::SafetensorsModel files(folder.path);
  CHECK(files.tensors().size() == 2 * (5 * 3 + 2) + 3);
  const auto check = [&](const char* name, const char* dtype, const model::Shape& shape) {
    const model::TensorRef tensor = files.find(name);
    REQUIRE_MESSAGE(tensor, name);
    CHECK_MESSAGE(std::string(model::name_of(tensor.entry->dtype)) == dtype, name);
    CHECK_MESSAGE(tensor.entry->shape == shape, name);
  };
  check("model.tok_embeddings.weight", "F16", {1024, 256});
  check("output.weight", "F16", {1024, 256});
  check("model.norm.weight", "F16", {256});
  check("model.layers.1.attention_norm.weight", "F16", {256});
  check("model.layers.1.ffn_norm.weight", "F16", {256});
  check("model.layers.1.attention.wqkv.qweight", "I32", {256, 64});
  check("model.layers.1.attention.wqkv.qzeros", "I32", {2, 64});
  check("model.layers.1.attention.wqkv.scales", "F16", {2, 512});
  check("model.layers.1.attention.wo.qweight", "I32", {256, 32});
  check("model.layers.1.feed_forward.w1.qweight", "I32", {256, 64});
  check("model.layers.1.feed_forward.w3.qzeros", "I32", {2, 64});
  check("model.layers.1.feed_forward.w2.qweight", "I32", {512, 32});
  check("model.layers.1.feed_forward.w2.scales", "F16", {4, 256});
  const json::Json config = json::parse_file(folder / "config.json");
  CHECK(config["quantization_config"]["quant_method"] == "awq");
  CHECK(config["quantization_config"]["version"] == "gemm");
  CHECK(config["quantization_config"]["group_size"] == 128);
  CHECK(config["model_type"] == "internlm2");
}

TEST_CASE("what was saved loads as the same bytes, in one file or many") {
  ThreadPool pool(3);
  for (const char* architecture : {"InternLM2ForCausalLM", "LlamaForCausalLM"}) {
    for (const int hidden : {96, 192, 384}) {  // groups of 32, 64 and 128
      for (const char* format : {"w4", "w8", "f16", "bf16", "f32"}) {
        CAPTURE(architecture);
        CAPTURE(hidden);
        CAPTURE(format);
        model::ModelConfig c = small_config(architecture, hidden);
        c.has_tied_head = hidden == 192;
        const model::DecoderWeights weights = random_of(c, format);
        const test::TemporaryFolder folder;
        std::int64_t done = 0;
        std::int64_t total = 0;
        const bool is_split = hidden != 96;
        save_checkpoint(
            c, weights, folder.path, hidden == 384 ? &pool : nullptr,
            [&](std::int64_t now, std::int64_t all) {
              CHECK(now >= done);
              done = now;
              total = all;
            },
            is_split ? 100'000 : kMaxShardBytes);
        CHECK((total > 0 && done == total));
        CHECK(std::filesystem::exists(folder / "model.safetensors") != is_split);
        CHECK(std::filesystem::exists(folder / "model.safetensors.index.json") == is_split);
        const model::HfConfig config = model::read_config(folder.path);
        CHECK(config.model.rope.dynamic_factor == 2.0);
        CHECK(config.model.rms_eps == 1e-5f);
        CHECK(config.model.has_tied_head == c.has_tied_head);
        check_equal(model::load_weights(folder.path, config.model, config.quantization), weights);
      }
    }
  }
}

TEST_CASE("files are as few as their size allows, and a larger module has its own") {
  const model::ModelConfig c = small_config("LlamaForCausalLM", 96);
  const model::DecoderWeights weights = random_of(c, "f32");
  const std::vector<SavedModule> modules = saved_modules(c, weights);
  const ModuleWriter writer(model::DType::kF32, nullptr);
  CHECK(shards_of(modules, writer, INT64_MAX).size() == 1);
  CHECK(shards_of(modules, writer, 1).size() == modules.size());
  for (const std::int64_t most : {30'000, 80'000, 200'000}) {
    const std::vector<Shard> shards = shards_of(modules, writer, most);
    for (std::size_t i = 0; i < shards.size(); ++i) {
      CHECK((shards[i].bytes <= most || shards[i].modules.size() == 1));
      if (i + 1 == shards.size()) continue;
      const Shard next = shards_of({*shards[i + 1].modules[0]}, writer, most).front();
      CHECK(shards[i].bytes + next.bytes > most);
    }
  }
  CHECK(shard_name(0, 1) == "model.safetensors");
  CHECK(shard_name(1, 12) == "model-00002-of-00012.safetensors");
}

TEST_CASE("random weights do not depend on the number of threads") {
  ThreadPool pool(3);
  const model::ModelConfig c = small_config("InternLM2ForCausalLM", 384);
  for (const char* format : {"w4", "w8", "f16", "bf16", "f32"}) {
    const RandomFormats formats = random_formats(format, c);
    std::int64_t done = 0;
    std::int64_t total = 0;
    RandomWeights random(
        &pool,
        [&](std::int64_t now, std::int64_t all) {
          done = now;
          total = all;
        },
        model::matrix_bytes(random_shapes(c, formats)));
    check_equal(random_decoder(c, formats, random), random_of(c, format));
    CHECK((total > 0 && done == total));
  }
}
