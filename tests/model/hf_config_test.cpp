/// \file  config.json: what released models write, and every key that may not be guessed.
// SPDX-License-Identifier: Apache-2.0
#include <lmd/model/hf_config.hpp>

#include <string>
#include <vector>

#include "test_files.hpp"
#include <doctest/doctest.h>
#include <oracle/skip.hpp>

namespace {

using namespace lmd::model;
using namespace lmd::test;
using lmd::json::Json;

Json internlm2() {
  return Json::parse(R"({"architectures":["InternLM2ForCausalLM"],"bias":false,"bos_token_id":1,
    "eos_token_id":2,"hidden_act":"silu","hidden_size":4096,"intermediate_size":14336,
    "max_position_embeddings":32768,"num_attention_heads":32,"num_hidden_layers":32,
    "num_key_value_heads":8,"rms_norm_eps":1e-05,"rope_scaling":{"type":"dynamic","factor":2.0},
    "rope_theta":1000000,"tie_word_embeddings":false,"vocab_size":92544})");
}

Json llama() {
  Json j = internlm2();
  j.erase("bias");
  j["architectures"] = {"LlamaForCausalLM"};
  j["hidden_size"] = 576;
  j["num_attention_heads"] = 9;
  j["num_key_value_heads"] = 3;
  j["rope_scaling"] = nullptr;
  j["tie_word_embeddings"] = true;
  j["vocab_size"] = 49152;
  return j;
}

HfConfig read(const TemporaryFolder& folder, const Json& config) {
  write_file(folder / "config.json", config.dump());
  return read_config(folder.path);
}

/// The message when `key` of InternLM2's file is `value` (parsed as JSON).
std::string with(const TemporaryFolder& folder, const char* key, const char* value) {
  Json j = internlm2();
  j[key] = Json::parse(value);
  return error_of([&] { (void)read(folder, j); });
}

}  // namespace

TEST_CASE("InternLM2.5") {
  const TemporaryFolder folder;
  const HfConfig config = read(folder, internlm2());
  const ModelConfig& m = config.model;
  CHECK(m.architecture == "InternLM2ForCausalLM");
  CHECK(config.wrapper.empty());
  CHECK(m.hidden_size == 4096);
  CHECK(m.intermediate_size == 14336);
  CHECK(m.n_layers == 32);
  CHECK(m.head_dim == 128);
  CHECK(m.qkv_size() == 6144);
  CHECK(m.vocab_size == 92544);
  CHECK(m.max_position == 32768);
  CHECK(m.rms_eps == 1e-5f);
  CHECK(m.rope.base == 1e6);
  CHECK(m.rope.dynamic_factor == 2.0);
  CHECK(m.rope.linear_factor == 1.0);
  CHECK_FALSE(m.has_qkv_bias);
  CHECK_FALSE(m.has_tied_head);
  CHECK(m.bos_id == 1);
  CHECK(m.eos_ids == std::vector<int>{2, 92542});
  CHECK(config.quantization.method == QuantMethod::kNone);
}

TEST_CASE("InternLM2 of a small vocabulary ends on what its files say") {
  const TemporaryFolder folder;
  Json j = internlm2();
  j["vocab_size"] = 300;
  CHECK(read(folder, j).model.eos_ids == std::vector<int>{2});
}

TEST_CASE("Llama: tied head, head_dim from its key; Qwen2: bias on q, k and v") {
  const TemporaryFolder folder;
  Json j = llama();
  CHECK(read(folder, j).model.has_tied_head);
  CHECK(read(folder, j).model.head_dim == 64);
  j["head_dim"] = 96;
  CHECK(read(folder, j).model.q_size() == 864);
  j["architectures"] = {"Qwen2ForCausalLM"};
  CHECK(read(folder, j).model.has_qkv_bias);
  j["use_sliding_window"] = true;
  CHECK(contains(error_of([&] { (void)read(folder, j); }), "use_sliding_window is true"));
  j = llama();
  j["attention_bias"] = true;
  CHECK(contains(error_of([&] { (void)read(folder, j); }), "attention_bias is true"));
}

TEST_CASE("an InternVL model gives its language part") {
  const TemporaryFolder folder;
  Json inner = internlm2();
  inner["vocab_size"] = 92553;
  Json j = {{"architectures", {"InternVLChatModel"}}, {"llm_config", inner}};
  HfConfig config = read(folder, j);
  CHECK(config.wrapper == "InternVLChatModel");
  CHECK(config.model.architecture == "InternLM2ForCausalLM");
  CHECK(config.model.vocab_size == 92553);
  CHECK(config.model.eos_ids == std::vector<int>{2, 92542, 92543});
  const Json awq = Json::parse(
      R"({"quant_method":"awq","version":"GEMM","bits":4,"group_size":128,"zero_point":true})");
  j["quantization_config"] = awq;
  CHECK(read(folder, j).quantization.method == QuantMethod::kAwq);
  j.erase("quantization_config");
  j["llm_config"]["quantization_config"] = awq;
  CHECK(read(folder, j).quantization.all.group_size == 128);
  j["llm_config"]["architectures"] = {"Phi3ForCausalLM"};
  CHECK(contains(error_of([&] { (void)read(folder, j); }), "llm_config: architecture"));
}

TEST_CASE("the type that weights were saved as, under its older and its newer name") {
  const TemporaryFolder folder;
  CHECK(read(folder, internlm2()).torch_dtype.empty());
  for (const char* key : {"torch_dtype", "dtype"}) {
    Json j = internlm2();
    j[key] = "bfloat16";
    CHECK(read(folder, j).torch_dtype == "bfloat16");
    const Json language = {{"architectures", {"InternVLChatModel"}}, {"llm_config", j}};
    CHECK(read(folder, language).torch_dtype == "bfloat16");
    Json whole = {{"architectures", {"InternVLChatModel"}}, {"llm_config", internlm2()}};
    whole[key] = "float16";
    CHECK(read(folder, whole).torch_dtype == "float16");
  }
  CHECK(read(folder,
             [] {
               Json j = internlm2();
               j["torch_dtype"] = nullptr;
               return j;
             }())
            .torch_dtype.empty());
  CHECK(contains(with(folder, "torch_dtype", "16"), "torch_dtype"));
}

TEST_CASE("generation_config.json adds ends of an answer") {
  const TemporaryFolder folder;
  write_file(folder / "generation_config.json", R"({"eos_token_id":[2,0,7]})");
  CHECK(read(folder, llama()).model.eos_ids == std::vector<int>{2, 0, 7});
  write_file(folder / "generation_config.json", R"({"eos_token_id":[49152]})");
  CHECK(contains(error_of([&] { (void)read(folder, llama()); }),
                 "generation_config.json: eos_token_id is [49152], expected ids below"));
  write_file(folder / "generation_config.json", R"({"eos_token_id":-1})");
  CHECK(contains(error_of([&] { (void)read(folder, llama()); }), "eos_token_id is -1"));
  write_file(folder / "generation_config.json", "{}");
  CHECK(read(folder, llama()).model.eos_ids == std::vector<int>{2});
}

TEST_CASE("RoPE scaling, as older and newer files write it") {
  const TemporaryFolder folder;
  Json j = llama();
  j["rope_scaling"] = Json::parse(R"({"rope_type":"linear","factor":4})");
  CHECK(read(folder, j).model.rope.linear_factor == 4.0);
  CHECK(read(folder, j).model.rope.dynamic_factor == 0.0);
  j["rope_scaling"] = Json::parse(R"({"type":"dynamic","factor":1.0})");
  CHECK(read(folder, j).model.rope.dynamic_factor == 0.0);
  j["rope_scaling"] = Json::parse(R"({"rope_type":"default"})");
  CHECK(read(folder, j).model.rope.linear_factor == 1.0);
  j.erase("rope_theta");
  CHECK(contains(error_of([&] { (void)read(folder, j); }), "required key rope_theta is missing"));
  j["rope_parameters"] = Json::parse(R"({"rope_type":"default","rope_theta":500000.0})");
  CHECK(read(folder, j).model.rope.base == 500000.0);
  for (const char* type : {"yarn", "llama3", "longrope", "su"}) {
    j = llama();
    j["rope_scaling"] = {{"type", type}, {"factor", 2.0}};
    CHECK(contains(error_of([&] { (void)read(folder, j); }),
                   "type \"" + std::string(type) + "\" is not supported; supported: null default"));
  }
  CHECK(contains(with(folder, "rope_scaling", R"({"type":"dynamic"})"), "key factor is missing"));
  CHECK(contains(with(folder, "rope_scaling", R"({"type":"dynamic","factor":0.5})"), "factor is"));
  CHECK(contains(with(folder, "rope_scaling", R"("dynamic")"), "expected an object"));
}

TEST_CASE("quantisation: AWQ and lmd's own; the rest is refused") {
  const TemporaryFolder folder;
  const auto refused = [&](const char* text) { return with(folder, "quantization_config", text); };
  Json j = internlm2();
  j["quantization_config"] = Json::parse(R"({"quant_method":"lmd","bits":4,"group_size":32,
    "layout":"affine","modules":{"model.embed_tokens":{"bits":8,"group_size":32,
    "layout":"symmetric"}}})");
  const QuantizationConfig q = read(folder, j).quantization;
  CHECK(q.method == QuantMethod::kLmd);
  CHECK(q.all.has_minimum);
  CHECK(q.modules.at("model.embed_tokens").bits == 8);
  CHECK_FALSE(q.modules.at("model.embed_tokens").has_minimum);
  CHECK(contains(refused(R"({"quant_method":"gptq","bits":4})"),
                 "quant_method \"gptq\" is not supported; supported: awq lmd"));
  CHECK(contains(refused(R"({"bits":4})"), "quant_method is missing"));
  CHECK(contains(refused(R"({"quant_method":"awq","version":"gemv","bits":4,"group_size":128})"),
                 "version \"gemv\" is not supported"));
  CHECK(contains(refused(R"({"quant_method":"awq","version":"gemm","bits":8,"group_size":128})"),
                 "8 bits"));
  CHECK(contains(refused(R"({"quant_method":"awq","version":"gemm","bits":4,"group_size":48})"),
                 "groups of 48"));
  CHECK(contains(refused(R"({"quant_method":"awq","version":"gemm","bits":4,"group_size":64,
    "zero_point":false})"),
                 "zero_point is false"));
  CHECK(contains(refused(R"({"quant_method":"lmd","bits":4,"group_size":32,"layout":"symmetric"})"),
                 "supported: 4 affine, 8 symmetric"));
}

TEST_CASE("every key that matters is required: class defaults would be wrong") {
  const TemporaryFolder folder;
  for (const char* key : {"architectures", "bias", "hidden_act", "hidden_size", "intermediate_size",
                          "max_position_embeddings", "num_attention_heads", "num_hidden_layers",
                          "num_key_value_heads", "rms_norm_eps", "rope_theta", "vocab_size"}) {
    CAPTURE(key);
    Json j = internlm2();
    j.erase(key);
    const std::string what = error_of([&] { (void)read(folder, j); });
    CHECK(contains(what, "config.json: required key " + std::string(key) + " is missing"));
  }
  CHECK(contains(error_of([&] { (void)read_config(folder / "absent"); }), "absent/config.json"));
}

TEST_CASE("values out of range are refused with key, value and range") {
  const TemporaryFolder folder;
  CHECK(contains(with(folder, "hidden_size", "0"), "hidden_size is 0, expected an integer from 1"));
  CHECK(contains(with(folder, "hidden_size", "65537"), "hidden_size is 65537"));
  CHECK(contains(with(folder, "hidden_size", "4096.5"), "hidden_size is 4096.5"));
  CHECK(contains(with(folder, "hidden_size", "4097"), "hidden_size 4097 is not a multiple"));
  CHECK(contains(with(folder, "num_hidden_layers", "513"), "num_hidden_layers is 513"));
  CHECK(contains(with(folder, "num_hidden_layers", "-1"), "num_hidden_layers is -1"));
  CHECK(contains(with(folder, "num_key_value_heads", "5"), "expected a divisor"));
  CHECK(contains(with(folder, "vocab_size", "1000001"), "vocab_size is 1000001"));
  CHECK(contains(with(folder, "vocab_size", "18446744073709551615"), "vocab_size is 1844"));
  CHECK(contains(with(folder, "head_dim", "127"), "head_dim is 127, expected an even"));
  CHECK(contains(with(folder, "rms_norm_eps", "0"), "rms_norm_eps is 0"));
  CHECK(contains(with(folder, "rms_norm_eps", "\"1e-5\""), "rms_norm_eps is \"1e-5\""));
  CHECK(contains(with(folder, "rope_theta", "-5"), "rope_theta is -5"));
  CHECK(contains(with(folder, "bos_token_id", "92544"), "bos_token_id is 92544"));
  CHECK(contains(with(folder, "eos_token_id", "[2, \"x\"]"), "eos_token_id is [2,\"x\"]"));
  CHECK(contains(with(folder, "bias", "true"), "bias is true"));
  CHECK(contains(with(folder, "hidden_act", "\"gelu\""), "hidden_act \"gelu\""));
  CHECK(contains(with(folder, "architectures", R"(["GPT2LMHeadModel"])"),
                 "architecture \"GPT2LMHeadModel\" is not supported; supported: InternLM2"));
  CHECK(contains(with(folder, "architectures", "[]"), "architectures is []"));
  write_file(folder / "config.json", "{\"rope_theta\": NaN}");
  CHECK(contains(error_of([&] { (void)read_config(folder.path); }), "not valid JSON"));
}

TEST_CASE("files of released models") {
  const std::string root = LMD_SHARED_DATA;
  if (!has_file(root + "/internvl2-2b/config.json", "files of released models")) return;
  const ModelConfig internvl = read_config(root + "/internvl2-2b").model;
  CHECK(internvl.hidden_size == 2048);
  CHECK(internvl.rope.dynamic_factor == 2.0);
  CHECK(internvl.vocab_size == 92553);
  const ModelConfig internlm = read_config(root + "/internlm2-chat-7b").model;
  CHECK(internlm.intermediate_size == 14336);
  CHECK(internlm.rope.dynamic_factor == 0.0);
  CHECK(internlm.eos_ids == std::vector<int>{2, 92542});
}
