/// \file  The default model on the Cuda backend.
// SPDX-License-Identifier: Apache-2.0
#include "../apps/cuda_runtime.hpp"
#include "engine/smollm2_case.hpp"

using namespace lmd;

namespace {

bool has_gpu() {
  const apps::GpuFacts gpu = apps::query_gpu();
  if (!gpu.is_usable) test::skip("SmolLM2 on the GPU", gpu.problem);
  return gpu.is_usable;
}

}  // namespace

TEST_CASE("SmolLM2 on the GPU: logits and greedy tokens of the golden prompts") {
  if (has_gpu()) test::check_golden_prompts("cuda", test::Activations::kHalf);
}

TEST_CASE("SmolLM2 on the GPU in bfloat16: logits and greedy tokens of the golden prompts") {
  if (has_gpu()) test::check_golden_prompts("cuda", test::Activations::kBFloat16);
}

TEST_CASE("SmolLM2 on the GPU: perplexity under every KV scheme agrees with the reference") {
  if (has_gpu()) test::check_perplexities("cuda", test::Activations::kHalf);
}
