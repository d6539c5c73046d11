/// \file  The engine's Cuda backend: generated checkpoints, and answers that do not depend on company.
// SPDX-License-Identifier: Apache-2.0
#include <limits>

#include "engine/gpu_case.hpp"

using namespace lmd;
using test::has_gpu;
using test::make_engine;
using test::request_of;
using test::Setup;

namespace {

std::unique_ptr<engine::Executor> on_gpu(const test::Golden& golden, int quant_policy) {
  const engine::EngineConfig config =
      test::golden_config(quant_policy, engine::ActivationType::kFloat16);
  model::DecoderWeights weights = golden.weights();
  const engine::MemoryPlan plan =
      test::plan_for(golden.config.model, config, cases::shapes_of(weights));
  return apps::make_cuda_executor(golden.config.model, std::move(weights), config, plan);
}

/// Read from the files straight to the GPU.
std::unique_ptr<engine::Executor> in_bfloat16(const test::Golden& golden, int quant_policy) {
  const engine::EngineConfig config =
      test::golden_config(quant_policy, engine::ActivationType::kBFloat16);
  const engine::MemoryPlan plan = test::plan_for(
      golden.config.model, config,
      model::read_weight_shapes(golden.folder, golden.config.model, golden.config.quantization));
  return apps::load_cuda_executor(golden.folder, golden.config, config, plan, {});
}

using Answers = std::vector<std::vector<int>>;

/// Greedy answers to prompts of several lengths that share their beginnings.
Answers answers(const Setup& s) {
  engine::Engine engine = make_engine(s, cases::tiny_weights(cases::tiny_config(), 1));
  const std::vector<int> lengths = {1, 63, 64, 65, 200, 151};
  Answers ids(lengths.size());
  for (std::size_t i = 0; i < lengths.size(); ++i) {
    engine::Request request = request_of(lengths[i], static_cast<int>(i));
    request.n_logprobs = s.n_logprobs;
    (void)engine.submit(std::move(request), [&ids, i](const engine::TokenEvent& e) {
      CHECK(e.finish != engine::FinishReason::kError);
      if (e.token >= 0) ids[i].push_back(e.token);
    });
    while (s.is_one_by_one && engine.step()) {
    }
  }
  while (engine.step()) {
  }
  for (const auto& answer : ids)
    CHECK(answer.size() == 80);
  return ids;
}

}  // namespace

TEST_CASE("logits and greedy tokens of every architecture, Cuda") {
  if (!has_gpu()) return;
  for (const char* name : test::kGoldenNames)
    test::check_golden(name, on_gpu, test::Activations::kHalf);
}

TEST_CASE("every KV scheme follows the rule of open and sealed pages, Cuda") {
  if (!has_gpu()) return;
  for (const char* name : test::kGoldenNames)
    test::check_golden_schemes(name, on_gpu, test::Activations::kHalf);
}

TEST_CASE("logits and greedy tokens in bfloat16, Cuda") {
  if (!has_gpu()) return;
  // Those whose weights are numbers of bfloat16: others would be rounded once more than the noise knows.
  for (const char* name : {"llama_tiny", "qwen2_tiny"}) {
    test::check_golden(name, in_bfloat16, test::Activations::kBFloat16);
    test::check_golden_schemes(name, in_bfloat16, test::Activations::kBFloat16);
  }
}

TEST_CASE("a model read straight to the GPU gives the bits of one that came over host memory") {
  if (!has_gpu()) return;
  for (const char* name : test::kGoldenNames) {
    CAPTURE(name);
    const test::Golden golden(name);
    const auto ids = test::prompt_named(golden.values, "n130")["ids"].get<std::vector<int>>();
    const engine::EngineConfig config = test::golden_config(0, engine::ActivationType::kFloat16);
    const engine::MemoryPlan plan = test::plan_for(
        golden.config.model, config,
        model::read_weight_shapes(golden.folder, golden.config.model, golden.config.quantization));
    const auto loaded = apps::load_cuda_executor(golden.folder, golden.config, config, plan, {});
    const int n = static_cast<int>(ids.size());
    CHECK(test::all_logits(*loaded, ids, n) == test::all_logits(*on_gpu(golden, 0), ids, n));
  }
}

TEST_CASE("deterministic: chunks, batches and shared prefixes never change a greedy answer") {
  if (!has_gpu()) return;
  for (const int policy : {0, 8, 4, 84, 40}) {
    CAPTURE(policy);
    const Answers expected = answers(
        {.quant_policy = policy, .batch = 1, .has_prefix_cache = false, .is_one_by_one = true});
    CHECK(expected[1] != expected[2]);  // equal answers mean something
    for (const int chunk : {1, 7, 64, 100}) {
      CAPTURE(chunk);
      CHECK(answers({.quant_policy = policy, .chunk = chunk}) == expected);
    }
    CHECK(answers({.quant_policy = policy, .batch = 6}) == expected);
    CHECK(answers({.quant_policy = policy, .is_one_by_one = true}) == expected);
  }
}

TEST_CASE("greedy choices are the same without logits, and whether steps begin ahead or not") {
  if (!has_gpu()) return;
  const Answers expected = answers({.batch = 6});
  CHECK(answers({.batch = 6, .n_logprobs = 0}) == expected);  // drawn from logits
  CHECK(answers({.batch = 6, .n_logprobs = 2}) == expected);  // one step after the other
}

TEST_CASE("a graph gives what the same steps give without one") {
  if (!has_gpu()) return;
  // Logits of a sequence token by token, outside any graph, against the tokens of the engine's.
  for (const bool is_deterministic : {false, true}) {
    CAPTURE(is_deterministic);
    const Setup s{.batch = 1, .is_deterministic = is_deterministic};
    engine::Engine engine = make_engine(s, cases::tiny_weights(cases::tiny_config(), 1));
    std::vector<int> tokens = request_of(100, 3).prompt;
    const std::size_t n_prompt = tokens.size();
    (void)engine.submit(request_of(100, 3), [&](const engine::TokenEvent& e) {
      if (e.token >= 0) tokens.push_back(e.token);
    });
    while (engine.step()) {
    }
    REQUIRE(tokens.size() == n_prompt + 80);
    engine::Engine other = make_engine(s, cases::tiny_weights(cases::tiny_config(), 1));
    const std::vector<std::int32_t> pages = {0, 1, 2};
    std::vector<float> logits(97);
    const double base = cases::tiny_config().rope.base;
    int different = 0;
    for (std::size_t i = 0; i + 1 < tokens.size(); ++i) {
      other.executor().logits({.slot = 0,
                               .position = static_cast<int>(i),
                               .ids = std::span(tokens).subspan(i, 1),
                               .rope_base = base,
                               .page_ids = pages},
                              logits.data());
      if (i + 1 < n_prompt) continue;
      different += kernels::argmax(logits) != tokens[i + 1];
    }
    // Without --deterministic the prompt went another way: near-ties may fall otherwise.
    CHECK(different <= (is_deterministic ? 0 : 2));
  }
}

TEST_CASE("activations too large for float16 end their request, and bfloat16 takes them") {
  if (!has_gpu()) return;
  for (const auto activations :
       {engine::ActivationType::kFloat16, engine::ActivationType::kBFloat16}) {
    model::DecoderWeights weights = cases::tiny_weights(cases::tiny_config(), 1);
    model::Matrix& down = weights.layers[0].down;
    auto* values = reinterpret_cast<float*>(down.codes.data());
    for (int i = 0; i < down.n * down.k; ++i)
      values[i] *= 60000.0f;  // themselves within the range of halves
    engine::Engine engine =
        make_engine({.is_deterministic = false, .activations = activations}, std::move(weights));
    engine::FinishReason finish = engine::FinishReason::kNone;
    int n_tokens = 0;
    (void)engine.submit(request_of(10, 3), [&](const engine::TokenEvent& e) {
      n_tokens += e.token >= 0;
      finish = e.finish;
    });
    while (engine.step()) {
    }
    const bool is_half = activations == engine::ActivationType::kFloat16;
    CHECK(finish == (is_half ? engine::FinishReason::kError : engine::FinishReason::kLength));
    CHECK(n_tokens == (is_half ? 0 : 80));
  }
}

TEST_CASE("logits that are not numbers end their request, not the engine") {
  if (!has_gpu()) return;
  const model::ModelConfig m = cases::tiny_config();
  model::DecoderWeights weights = cases::tiny_weights(m, 1);
  // The row of token 5 of the embedding is infinite.
  auto* row = reinterpret_cast<float*>(weights.embedding.codes.data()) + 5 * m.hidden_size;
  for (int i = 0; i < m.hidden_size; ++i)
    row[i] = std::numeric_limits<float>::infinity();
  engine::Engine engine = make_engine({.batch = 2, .is_deterministic = false}, std::move(weights));
  engine::FinishReason bad = engine::FinishReason::kNone;
  int good_tokens = 0;
  engine::Request poisoned = request_of(10, 5);
  engine::Request sound = request_of(10, 6);
  for (int& id : sound.prompt)
    id = id == 5 ? 4 : id;
  (void)engine.submit(std::move(poisoned), [&](const engine::TokenEvent& e) { bad = e.finish; });
  (void)engine.submit(std::move(sound), [&](const engine::TokenEvent& e) {
    good_tokens += e.token >= 0 && e.finish != engine::FinishReason::kError;
  });
  while (engine.step()) {
  }
  CHECK(bad == engine::FinishReason::kError);
  CHECK(good_tokens == 80);
}
