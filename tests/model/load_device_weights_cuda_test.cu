/// \file  Checkpoints read straight to the GPU: byte by byte what loading them into host memory and packing
///        them from there gives.
// SPDX-License-Identifier: Apache-2.0
#include <lmd/core/stream.cuh>
#include <lmd/model/load_device_weights.cuh>

#include <string>
#include <vector>

#include "../apps/inst/random_weights.hpp"
#include "../apps/inst/save_checkpoint.hpp"
#include "gpu.cuh"
#include "model/test_files.hpp"
#include "oracle/skip.hpp"
#include <doctest/doctest.h>

using namespace lmd;
using namespace lmd::model;

namespace {

/// What loading needs of the table of operations.
template <Activation T>
CudaOps<T> packers() {
  CudaOps<T> ops;
  std::size_t i = 0;
  for_each_type(quant::WeightFormats{}, [&](auto t) {
    using From = typename decltype(t)::type;
    using W = std::conditional_t<From::kGroupSize == 0, quant::NumberFormat<T>, From>;
    CudaLinearOps<T>& format = ops.formats[i++];
    format.pack = &quant::pack_fragments<W, From>;
    format.stream_bytes = &quant::FragmentWeights<W>::stream_bytes;
    if constexpr (requires(typename From::Params p) { p.zero; })
      format.pack_awq = &quant::pack_awq<From::kGroupSize>;
  });
  return ops;
}

template <class E>
std::vector<E> fetch(const DeviceBuffer<E>& from) {
  std::vector<E> values(static_cast<std::size_t>(from.size()));
  from.copy_to(values);
  return values;
}

void check_equal(const DeviceMatrix& a, const DeviceMatrix& b) {
  CHECK(a.format == b.format);
  CHECK(a.n == b.n);
  CHECK(a.k == b.k);
  CHECK(fetch(a.stream) == fetch(b.stream));
  CHECK(fetch(a.bias) == fetch(b.bias));
}

void check_equal(const std::vector<DeviceMatrix>& a, const std::vector<DeviceMatrix>& b) {
  REQUIRE(a.size() == b.size());
  for (std::size_t i = 0; i < a.size(); ++i)
    check_equal(a[i], b[i]);
}

void check_equal(const DeviceWeights& a, const DeviceWeights& b) {
  check_equal(a.embedding, b.embedding);
  check_equal(a.head, b.head);
  CHECK(fetch(a.final_norm) == fetch(b.final_norm));
  REQUIRE(a.layers.size() == b.layers.size());
  for (std::size_t l = 0; l < a.layers.size(); ++l) {
    CAPTURE(l);
    CHECK(fetch(a.layers[l].attention_norm) == fetch(b.layers[l].attention_norm));
    CHECK(fetch(a.layers[l].mlp_norm) == fetch(b.layers[l].mlp_norm));
    check_equal(a.layers[l].qkv, b.layers[l].qkv);
    check_equal(a.layers[l].attention_out, b.layers[l].attention_out);
    check_equal(a.layers[l].gate_up, b.layers[l].gate_up);
    check_equal(a.layers[l].down, b.layers[l].down);
  }
}

/// Both ways, and what plans say of them.
template <Activation T>
void compare(const std::string& folder) {
  CAPTURE(folder);
  const CudaOps<T> ops = packers<T>();
  const HfConfig config = read_config(folder);
  const Stream stream;
  const Cuda ctx{.stream = stream.get()};
  std::int64_t done = 0;
  std::int64_t total = -1;
  const DeviceWeights loaded = load_device_weights(folder, config.model, config.quantization, ops,
                                                   ctx, [&](std::int64_t now, std::int64_t all) {
                                                     CHECK(now >= done);
                                                     done = now;
                                                     total = all;
                                                   });
  CHECK(done == total);
  check_equal(loaded,
              upload_weights(load_weights(folder, config.model, config.quantization), ops, ctx));
  const WeightShapes shapes = read_weight_shapes(folder, config.model, config.quantization);
  CHECK(shapes.has_split_gate == has_split_gate(loaded));
  std::int64_t bytes = held_bytes(loaded.embedding) + held_bytes(loaded.head);
  bytes += static_cast<std::int64_t>(loaded.final_norm.size_bytes());
  for (const DeviceLayer& l : loaded.layers) {
    bytes += static_cast<std::int64_t>(l.attention_norm.size_bytes() + l.mlp_norm.size_bytes());
    for (const auto* parts : {&l.qkv, &l.gate_up}) {
      for (const DeviceMatrix& m : *parts)
        bytes += held_bytes(m);
    }
    bytes += held_bytes(l.attention_out) + held_bytes(l.down);
  }
  CHECK(device_bytes(shapes, ops) == bytes);
}

ModelConfig small_config(const std::string& architecture) {
  ModelConfig c;
  c.architecture = architecture;
  c.hidden_size = 384;
  c.intermediate_size = 256;
  c.n_layers = 2;
  c.n_heads = 6;
  c.n_kv_heads = 2;
  c.head_dim = 64;
  c.vocab_size = 67;
  c.max_position = 512;
  c.rms_eps = 1e-5f;
  c.rope = {.base = 1e6, .dynamic_factor = 2.0};
  return c;
}

/// A folder with random weights.
void save(const ModelConfig& c, const std::string& weights, const std::string& folder) {
  const apps::RandomFormats formats = apps::random_formats(weights, c);
  apps::RandomWeights random(nullptr, {}, matrix_bytes(apps::random_shapes(c, formats)));
  apps::save_checkpoint(c, apps::random_decoder(c, formats, random), folder, nullptr);
}

}  // namespace

TEST_CASE("every format and order of rows arrives as by way of the host") {
  if (!has_gpu()) return;
  for (const char* architecture : {"InternLM2ForCausalLM", "LlamaForCausalLM"}) {
    for (const char* weights : {"w4", "w8", "f16", "bf16", "f32"}) {
      const test::TemporaryFolder folder;
      save(small_config(architecture), weights, folder.path);
      compare<Half>(folder.path);
      compare<BFloat16>(folder.path);
    }
  }
}

TEST_CASE("generated checkpoints of every architecture arrive as by way of the host") {
  if (!has_gpu()) return;
  for (const char* name : {"internlm2_tiny", "internlm2_tiny_awq_g32", "internlm2_tiny_awq_g128",
                           "llama_tiny", "llama_tiny_hd96", "qwen2_tiny"})
    compare<Half>(std::string(LMD_TEST_DATA) + "/model/golden/" + name);
}

TEST_CASE("tables that are read and packed in parts arrive as by way of the host") {
  if (!has_gpu()) return;
  ModelConfig c = small_config("LlamaForCausalLM");
  c.n_layers = 1;
  c.vocab_size = 80011;  // 123 MB of floats: twice what is packed at once, and not whole tiles
  const test::TemporaryFolder folder;
  save(c, "f32", folder.path);
  compare<Half>(folder.path);
}

TEST_CASE("the default model's affine codes arrive as by way of the host") {
  if (!has_gpu()) return;
  if (test::has_file(test::default_model_dir() + "/model.safetensors", "SmolLM2's weights"))
    compare<Half>(test::default_model_dir());
}

TEST_CASE("a weight that does not fit into 16 bits is refused, and bfloat16 takes it") {
  if (!has_gpu()) return;
  const ModelConfig c = small_config("LlamaForCausalLM");
  const apps::RandomFormats formats = apps::random_formats("f32", c);
  apps::RandomWeights random(nullptr, {}, 0);
  DecoderWeights weights = apps::random_decoder(c, formats, random);
  const float large = 1e6f;
  std::memcpy(weights.layers[1].down.codes.data() + 400, &large, sizeof large);
  const test::TemporaryFolder folder;
  apps::save_checkpoint(c, weights, folder.path, nullptr);
  const HfConfig config = read_config(folder.path);
  CHECK_THROWS_WITH_AS((void)load_device_weights(folder.path, config.model, config.quantization,
                                                 packers<Half>(), Cuda{}),
                       doctest::Contains("--dtype bfloat16"), Error);
  compare<BFloat16>(folder.path);
}
