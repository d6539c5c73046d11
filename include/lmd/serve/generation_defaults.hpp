/// \file  What a request that does not say so is answered with: generation_config.json, then constants.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/core/file.hpp>
#include <lmd/json/json.hpp>
#include <lmd/serve/limits.hpp>

#include <optional>
#include <string>

namespace lmd::serve {

/// What a model's authors recommend; absent values were not given.
struct RecommendedSampling {
  std::optional<double> temperature = std::nullopt;
  std::optional<double> top_p = std::nullopt;
  std::optional<double> top_k = std::nullopt;
  std::optional<double> min_p = std::nullopt;
  std::optional<double> repetition_penalty = std::nullopt;
};

/// The sampling values of a `generation_config.json`.
/// \throws Error(kIo, kFormat); values are held to the ranges of requests.
[[nodiscard]] inline RecommendedSampling read_recommended_sampling(const std::string& path) {
  const json::Json root = json::parse_file(path);
  const json::Object object(root, path);
  const auto value = [&](const char* key) -> std::optional<double> {
    const NumberLimit& limit = limit_of(key, kChat);
    if (!object.has(key)) return std::nullopt;
    const double found = object.number(key, limit.min, limit.max);
    LMD_REQUIRE(is_within(limit, found), ErrorCode::kFormat,
                path + ": " + key + " is 0, expected a number above it");
    return found;
  };
  return {.temperature = value("temperature"),
          .top_p = value("top_p"),
          .top_k = value("top_k"),
          .min_p = value("min_p"),
          .repetition_penalty = value("repetition_penalty")};
}

/// The last link of the chain.
struct SamplingConstants {
  double temperature = 0.8;
  double top_p = 1.0;
  double top_k = 50;
  double min_p = 0.0;
  double repetition_penalty = 1.0;
};

}  // namespace lmd::serve
