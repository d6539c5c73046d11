/// \file  Generated checkpoints of every architecture on the Host and Cpu backends.
// SPDX-License-Identifier: Apache-2.0
#include <lmd/engine/arrange.hpp>
#include <lmd/engine/cpu_executor.hpp>
#include <lmd/engine/make_ops.hpp>
#include <lmd/kernels/attention/step_cpu_extern.hpp>
#include <lmd/kernels/linear/linear_cpu_extern.hpp>

#include "engine/golden_case.hpp"

using namespace lmd;

namespace {

std::unique_ptr<engine::Executor> make_executor(const test::Golden& golden,
                                                const model::Ops<Cpu>& ops) {
  model::DecoderWeights weights = golden.weights();
  engine::arrange_for_cpu(weights, nullptr);
  model::Decoder decoder(golden.config.model, std::move(weights), ops, Cpu{}, 64);
  engine::MemoryPlan plan;
  plan.page_bytes = decoder.geometry().page_bytes();
  plan.n_pages = cache::sealed_pages(test::kGoldenTokens);
  plan.max_batch_size = 1;
  return std::make_unique<engine::CpuExecutor>(std::move(decoder), plan);
}

std::unique_ptr<engine::Executor> on_cpu(const test::Golden& golden, int quant_policy) {
  return make_executor(
      golden, engine::make_cpu_ops(quant_policy, golden.config.model.head_dim, best_cpu_isa()));
}

std::unique_ptr<engine::Executor> on_host(const test::Golden& golden, int quant_policy) {
  return make_executor(golden, engine::make_host_ops(quant_policy, golden.config.model.head_dim));
}

}  // namespace

TEST_CASE("logits and greedy tokens of every architecture, Cpu") {
  for (const char* name : test::kGoldenNames)
    test::check_golden(name, on_cpu, test::Activations::kFloat32);
}

TEST_CASE("logits and greedy tokens, Host") {
  test::check_golden("internlm2_tiny", on_host, test::Activations::kFloat32);
  test::check_golden("llama_tiny", on_host, test::Activations::kFloat32);
}

TEST_CASE("the bounds would catch every known way of getting it wrong") {
  for (const char* name : test::kGoldenNames) {
    const test::Golden golden(name);
    for (const auto& [mistake, wrong] : golden.values["wrong"].items()) {
      CAPTURE(name);
      CAPTURE(mistake);
      const double distance = wrong["relative_rms"].get<double>();
      CHECK(distance > 3 * test::kGoldenBound);
      double noise = 0.0;
      const json::Json& prompt = test::prompt_named(golden.values, wrong["prompt"]);
      for (const json::Json& row : test::rows_of(prompt, wrong["where"]))
        noise = std::max(noise, row["half_noise"].get<double>());
      CHECK(distance > test::kNoiseFactor * noise + noise);  // noise may hide some of the distance
    }
  }
}

TEST_CASE("every KV scheme follows the rule of open and sealed pages") {
  for (const char* name : test::kGoldenNames)
    test::check_golden_schemes(name, on_cpu, test::Activations::kFloat32);
}
