/// \file  Generated checkpoints of every architecture against logits of an independent
///        implementation (tests/model/make_checkpoints.py), on any executor.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/cache/tile.hpp>
#include <lmd/engine/dispatch.hpp>
#include <lmd/engine/evaluate.hpp>
#include <lmd/json/json.hpp>
#include <lmd/model/load_weights.hpp>

#include <algorithm>
#include <cmath>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include <doctest/doctest.h>

namespace lmd::test {

// Bound of goals.md for float32 paths with 16-bit KV; quantised caches have the same bound against
// a reference that quantises alike, plus one code step of a key in a thousand.
inline constexpr double kGoldenBound = 2e-3;
inline constexpr double kQuantisedBound = 2e-2;
inline constexpr double kDecisiveGap = 0.02;

/// What activations are; it says how far logits may lie from the reference's.
///
/// kFloat32: the bounds above.
/// kHalf: random weights answer to every rounding, most of all where it turns a code of a key or
/// value over, so what rounding does to a row is measured: its half_noise is the RMS distance of 16
/// draws of the reference with activations rounded to 16 bits from itself. An executor is one more
/// draw. Of 100 others no row without codes (and no group of rows with codes) was further away than
/// 2.7 times its noise; but a row with codes hangs on a few of them, and single ones came to 3.8
/// times. So the former are bound one by one, the latter by the RMS of their ratios to their noise,
/// both by kNoiseFactor. Greedy tokens are decided where the gap is so many times its own noise.
///
/// kBFloat16: the same with 8 bits in place of 11, so eight times the noise.
enum class Activations { kFloat32, kHalf, kBFloat16 };
inline constexpr double kNoiseFactor = 3.0;

/// What the noise of `activations` is bound by, in units of half_noise.
[[nodiscard]] inline double noise_factor(Activations activations) {
  return activations == Activations::kBFloat16 ? 8.0 * kNoiseFactor : kNoiseFactor;
}

/// Sequences of the fixtures are shorter.
inline constexpr int kGoldenTokens = 1024;

inline constexpr const char* kGoldenNames[] = {"internlm2_tiny",          "internlm2_tiny_awq_g32",
                                               "internlm2_tiny_awq_g128", "llama_tiny",
                                               "llama_tiny_hd96",         "qwen2_tiny"};

struct Golden {
  explicit Golden(const std::string& name)
      : folder(std::string(LMD_TEST_DATA) + "/model/golden/" + name),
        values(json::parse_file(folder + "/golden.json")),
        config(model::read_config(folder)) {}

  [[nodiscard]] model::DecoderWeights weights() const {
    return model::load_weights(folder, config.model, config.quantization);
  }

  std::string folder;
  json::Json values;
  model::HfConfig config;
};

/// An executor of a fixture for one sequence of up to kGoldenTokens tokens.
using MakeExecutor =
    std::function<std::unique_ptr<engine::Executor>(const Golden&, int quant_policy)>;

using Logits = std::map<int, std::vector<float>>;

inline Logits all_logits(engine::Executor& executor, const std::vector<int>& ids, int n_prompt) {
  Logits logits;
  engine::Evaluator evaluator(executor, static_cast<int>(ids.size()) + 1);
  evaluator.run(
      ids,
      [&](int position, std::span<float> row) {
        logits[position] = {row.begin(), row.end()};
      },
      n_prompt);
  return logits;
}

inline double relative_rms(const std::vector<float>& found, const json::Json& expected) {
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

inline int best_of(const std::vector<float>& logits) {
  return static_cast<int>(std::ranges::max_element(logits) - logits.begin());
}

inline const json::Json& prompt_named(const json::Json& golden, const std::string& name) {
  for (const json::Json& prompt : golden["prompts"]) {
    if (prompt["name"] == name) return prompt;
  }
  throw Error(ErrorCode::kFormat, "golden.json has no prompt " + name);
}

/// Rows of logits of a prompt: all that are stored ("logits"), or the one after greedy tokens
/// ("decoded").
inline json::Json rows_of(const json::Json& prompt, const std::string& where) {
  return where == "logits" ? prompt[where] : json::Json::array({prompt[where]});
}

/// Rows of golden.json within the bounds of `activations`.
inline void check_rows(const Logits& logits,
                       const json::Json& rows,
                       Activations activations,
                       bool is_quantised) {
  double ratios = 0.0;  // squares, of rows that read codes
  int n_ratios = 0;
  for (const json::Json& row : rows) {
    const int position = row["position"].get<int>();
    CAPTURE(position);
    const double rms = relative_rms(logits.at(position), row["values"]);
    if (activations == Activations::kFloat32) {
      CHECK(rms <= (is_quantised ? kQuantisedBound : kGoldenBound));
      continue;
    }
    const double ratio = rms / row["half_noise"].get<double>();
    if (is_quantised && position >= cache::kPageTokens) {
      ratios += ratio * ratio;
      ++n_ratios;
    } else {
      CHECK(ratio <= noise_factor(activations));
    }
  }
  if (n_ratios > 0) CHECK(std::sqrt(ratios / n_ratios) <= noise_factor(activations));
}

/// The smallest gap at which the greedy token of a step is no longer free.
inline double decisive_gap(const json::Json& prompt, std::size_t step, Activations activations) {
  if (activations == Activations::kFloat32) return kDecisiveGap;
  return std::max(kDecisiveGap,
                  noise_factor(activations) * prompt["gap_noise"][step].get<double>());
}

/// Logits and greedy tokens with 16-bit keys and values.
inline void check_golden(const std::string& name,
                         const MakeExecutor& make,
                         Activations activations) {
  CAPTURE(name);
  const Golden golden(name);
  const auto executor = make(golden, 0);
  for (const json::Json& prompt : golden.values["prompts"]) {
    CAPTURE(prompt["name"].get<std::string>());
    auto ids = prompt["ids"].get<std::vector<int>>();
    const int n_prompt = static_cast<int>(ids.size());
    const auto greedy = prompt["greedy_ids"].get<std::vector<int>>();
    ids.insert(ids.end(), greedy.begin(), greedy.end());
    const Logits logits = all_logits(*executor, ids, n_prompt);
    for (const char* where : {"logits", "decoded"})
      check_rows(logits, rows_of(prompt, where), activations, false);
    for (std::size_t step = 0; step < greedy.size(); ++step) {
      if (prompt["gaps"][step].get<double>() < decisive_gap(prompt, step, activations)) continue;
      CHECK(best_of(logits.at(n_prompt - 1 + static_cast<int>(step))) == greedy[step]);
    }
  }
}

/// Logits under every KV scheme.
inline void check_golden_schemes(const std::string& name,
                                 const MakeExecutor& make,
                                 Activations activations) {
  const Golden golden(name);
  for (const auto& [scheme, expected] : golden.values["schemes"].items()) {
    CAPTURE(name);
    CAPTURE(scheme);
    const auto executor = make(golden, engine::parse_quant_policy(scheme == "16" ? "0" : scheme));
    const json::Json& prompt = prompt_named(golden.values, expected["prompt"]);
    const auto ids = prompt["ids"].get<std::vector<int>>();
    const Logits logits = all_logits(*executor, ids, static_cast<int>(ids.size()));
    check_rows(logits, expected["logits"], activations, scheme != "16");
  }
}

}  // namespace lmd::test
