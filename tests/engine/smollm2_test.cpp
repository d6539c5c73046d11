/// \file  The default model on the Cpu backend.
// SPDX-License-Identifier: Apache-2.0
#include "engine/smollm2_case.hpp"

using namespace lmd;

TEST_CASE("SmolLM2: logits and greedy tokens of the golden prompts") {
  test::check_golden_prompts("cpu", test::Activations::kFloat32);
}

TEST_CASE("SmolLM2: token ids of the golden texts") {
  if (!test::has_default_model("SmolLM2 tokens") ||
      !test::has_file(test::golden_file(), "SmolLM2 tokens")) {
    return;
  }
  const json::Json golden = json::parse_file(test::golden_file());
  const apps::Runtime r = test::load_default_model("cpu", "0", 128);
  for (const json::Json& row : golden["tokens"]) {
    CAPTURE(row[0].get<std::string>());
    CHECK(r.tokenizer->encode(row[0].get<std::string>()) == row[1].get<std::vector<int>>());
  }
}

#ifndef LMD_SANITIZED  // ten thousand tokens take minutes there
TEST_CASE("SmolLM2: perplexity under every KV scheme agrees with the reference") {
  test::check_perplexities("cpu", test::Activations::kFloat32);
}
#endif
