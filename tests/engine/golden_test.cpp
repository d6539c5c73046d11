/// \file  Generated checkpoints of every architecture against logits of an independent
///        implementation (tests/model/make_checkpoints.py).
// SPDX-License-Identifier: Apache-2.0
#include <lmd/engine/arrange.hpp>
#include <lmd/engine/evaluate.hpp>
#include <lmd/engine/make_ops.hpp>
#include <lmd/json/json.hpp>
#include <lmd/kernels/attention/step_cpu_extern.hpp>
#include <lmd/kernels/linear/linear_cpu_extern.hpp>
#include <lmd/model/load_weights.hpp>

#include <cmath>
#include <map>
#include <string>
#include <vector>

#include <doctest/doctest.h>

using namespace lmd;

namespace {

// Bound of goals.md for float32 paths with 16-bit KV; quantised caches have the same bound against
// a reference that quantises alike, plus one code step of a key in a thousand.
constexpr double kBound = 2e-3;
constexpr double kQuantisedBound = 2e-2;
constexpr double kDecisiveGap = 0.02;

struct Fixture {
  explicit Fixture(const std::string& name)
      : folder(std::string(LMD_TEST_DATA) + "/model/golden/" + name),
        golden(json::parse_file(folder + "/golden.json")),
        config(model::read_config(folder)) {}

  [[nodiscard]] model::Decoder decoder(int quant_policy, bool is_host) const {
    model::DecoderWeights weights = model::load_weights(folder, config.model, config.quantization);
    engine::arrange_for_cpu(weights, nullptr);
    const int dim = config.model.head_dim;
    return {config.model, std::move(weights),
            is_host ? engine::make_host_ops(quant_policy, dim)
                    : engine::make_cpu_ops(quant_policy, dim, best_cpu_isa()),
            Cpu{}, 64};
  }

  std::string folder;
  json::Json golden;
  model::HfConfig config;
};

using Logits = std::map<int, std::vector<float>>;

Logits all_logits(model::Decoder& decoder, const std::vector<int>& ids, int n_prompt) {
  Logits logits;
  engine::Evaluator evaluator(decoder, static_cast<int>(ids.size()) + 1);
  evaluator.run(
      ids,
      [&](int position, std::span<float> row) {
        logits[position] = {row.begin(), row.end()};
      },
      n_prompt);
  return logits;
}

double relative_rms(const std::vector<float>& found, const json::Json& expected) {
  REQUIRE(found.size() == expected.size());
  double error = 0.0;
  double size = 0.0;
  for (std::size_t i = 0; i < found.size(); ++i) {
    const double e = expected[i].get<double>();
    error += (found[i] - e) * (found[i] - e);
    size += e * e;
  }
  return std::sqrt(error / size);
}

int best_of(const std::vector<float>& logits) {
  return static_cast<int>(std::ranges::max_element(logits) - logits.begin());
}

const json::Json& prompt_named(const json::Json& golden, const std::string& name) {
  for (const json::Json& prompt : golden["prompts"]) {
    if (prompt["name"] == name) return prompt;
  }
  throw Error(ErrorCode::kFormat, "golden.json has no prompt " + name);
}

void check_fixture(const std::string& name, bool is_host) {
  CAPTURE(name);
  CAPTURE(is_host);
  const Fixture fixture(name);
  model::Decoder decoder = fixture.decoder(0, is_host);
  for (const json::Json& prompt : fixture.golden["prompts"]) {
    CAPTURE(prompt["name"].get<std::string>());
    auto ids = prompt["ids"].get<std::vector<int>>();
    const int n_prompt = static_cast<int>(ids.size());
    const auto greedy = prompt["greedy_ids"].get<std::vector<int>>();
    ids.insert(ids.end(), greedy.begin(), greedy.end());
    const Logits logits = all_logits(decoder, ids, n_prompt);
    for (const json::Json& row : prompt["logits"]) {
      const double rms = relative_rms(logits.at(row["position"].get<int>()), row["values"]);
      CHECK(rms <= kBound);
    }
    for (std::size_t step = 0; step < greedy.size(); ++step) {
      if (prompt["gaps"][step].get<double>() < kDecisiveGap) continue;
      CHECK(best_of(logits.at(n_prompt - 1 + static_cast<int>(step))) == greedy[step]);
    }
  }
}

constexpr const char* kFixtures[] = {"internlm2_tiny",          "internlm2_tiny_awq_g32",
                                     "internlm2_tiny_awq_g128", "llama_tiny",
                                     "llama_tiny_hd96",         "qwen2_tiny"};

}  // namespace

TEST_CASE("logits and greedy tokens of every architecture, Cpu") {
  for (const char* name : kFixtures)
    check_fixture(name, false);
}

TEST_CASE("logits and greedy tokens, Host") {
  check_fixture("internlm2_tiny", true);
  check_fixture("llama_tiny", true);
}

TEST_CASE("the bound would catch every known way of getting it wrong") {
  for (const char* name : kFixtures) {
    const Fixture fixture(name);
    for (const auto& [mistake, distance] : fixture.golden["wrong"].items()) {
      CAPTURE(name);
      CAPTURE(mistake);
      CHECK(distance["relative_rms"].get<double>() > 3 * kBound);
    }
  }
}

TEST_CASE("every KV scheme follows the rule of open and sealed pages") {
  for (const char* name : kFixtures) {
    const Fixture fixture(name);
    for (const auto& [scheme, golden] : fixture.golden["schemes"].items()) {
      CAPTURE(name);
      CAPTURE(scheme);
      model::Decoder decoder =
          fixture.decoder(engine::parse_quant_policy(scheme == "16" ? "0" : scheme), false);
      const json::Json& prompt = prompt_named(fixture.golden, golden["prompt"]);
      const auto ids = prompt["ids"].get<std::vector<int>>();
      const Logits logits = all_logits(decoder, ids, static_cast<int>(ids.size()));
      for (const json::Json& row : golden["logits"]) {
        CAPTURE(row["position"].get<int>());
        const double rms = relative_rms(logits.at(row["position"].get<int>()), row["values"]);
        CHECK(rms <= (scheme == "16" ? kBound : kQuantisedBound));
      }
    }
  }
}
