/// \file  What every field of a request may hold: the one table that validation, /openapi.json and the
///        tests read.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>
#include <string_view>

namespace lmd::serve {

/// Endpoints as a set of bits: where a field applies.
using Endpoints = unsigned;
inline constexpr Endpoints kChat = 1;         ///< /v1/chat/completions
inline constexpr Endpoints kCompletions = 2;  ///< /v1/completions
inline constexpr Endpoints kInteractive = 4;  ///< /v1/chat/interactive
inline constexpr Endpoints kGenerate = 8;     ///< /generate
inline constexpr Endpoints kEncode = 16;      ///< /v1/encode
inline constexpr Endpoints kTokenize = 32;    ///< /tokenize
inline constexpr Endpoints kDetokenize = 64;  ///< /detokenize
inline constexpr Endpoints kSampled = kChat | kCompletions | kInteractive | kGenerate;

enum class FieldType { kInteger, kNumber };

/// A number's range. `below` and `above` are how errors go on after "The NAME VALUE "; empty: the range
/// itself, with a full stop.
struct NumberLimit {
  std::string_view name;
  FieldType type;
  double min;
  double max;
  bool is_min_open = false;  ///< `min` itself is outside
  Endpoints where = kSampled;
  std::string_view below = {};
  std::string_view above = {};
  std::string_view note = {};  ///< for people; empty: the name says it
};

/// Integers at most this are exact in a double, and in every client's JSON library.
inline constexpr double kMaxExact = 9007199254740991.0;  // 2^53 - 1
inline constexpr double kMaxInt = std::numeric_limits<std::int32_t>::max();

namespace detail {

[[nodiscard]] constexpr NumberLimit real(std::string_view name,
                                         double min,
                                         double max,
                                         Endpoints where,
                                         std::string_view note,
                                         std::string_view rule = {}) {
  return {name, FieldType::kNumber, min, max, false, where, rule, rule, note};
}
[[nodiscard]] constexpr NumberLimit integer(std::string_view name,
                                            double min,
                                            double max,
                                            Endpoints where,
                                            std::string_view note,
                                            std::string_view below = {}) {
  return {name, FieldType::kInteger, min, max, false, where, below, {}, note};
}
/// A real number larger than `min`.
[[nodiscard]] constexpr NumberLimit real_above(
    std::string_view name, double min, double max, Endpoints where, std::string_view note) {
  return {name, FieldType::kNumber, min, max, true, where, {}, {}, note};
}

inline constexpr Endpoints kNotInteractive = kChat | kCompletions | kGenerate;

}  // namespace detail

inline constexpr NumberLimit kNumberLimits[] = {
    detail::real(
        "temperature", 0, 2, kSampled, "0: always the most likely token", "must be in [0, 2]"),
    detail::real_above("top_p", 0, 1, kSampled, "draw from the likeliest tokens with this share"),
    detail::integer("top_k",
                    0,
                    kMaxInt,
                    kSampled,
                    "draw from so many likeliest tokens; 0: from all",
                    "cannot be a negative integer."),
    detail::real("min_p",
                 0,
                 1,
                 detail::kNotInteractive,
                 "drop tokens less likely than this share of the likeliest one"),
    detail::real("repetition_penalty",
                 1e-7,
                 1000,
                 kSampled,
                 "over 1: tokens that were there are less likely"),
    detail::real("presence_penalty",
                 -2,
                 2,
                 kChat | kCompletions,
                 "taken from the logits of tokens that were there"),
    detail::real("frequency_penalty",
                 -2,
                 2,
                 kChat | kCompletions,
                 "the same for each time that they were there"),
    detail::integer("n",
                    1,
                    16,
                    kChat | kCompletions,
                    "answers to each prompt, with seeds in a row; --max-n sets the most",
                    "must be a positive int."),
    detail::integer(
        "best_of", 1, 16, kCompletions, "no effect, as in LMDeploy", "must be a positive int."),
    detail::integer("max_tokens",
                    1,
                    kMaxInt,
                    detail::kNotInteractive,
                    "the longest answer; the model's context bounds it, too"),
    detail::integer("max_completion_tokens",
                    1,
                    kMaxInt,
                    kChat | kCompletions,
                    "the same; it counts where both are given"),
    detail::integer("request_output_len",
                    0,
                    kMaxInt,
                    kInteractive,
                    "the longest answer; 0 with an empty prompt ends the session"),
    detail::integer(
        "min_new_tokens", 0, kMaxInt, detail::kNotInteractive, "the answer does not end before"),
    detail::integer("seed",
                    -kMaxExact,
                    kMaxExact,
                    detail::kNotInteractive,
                    "the same seed gives the same answer"),
    detail::integer("top_logprobs", 0, 20, kChat, "so many of the likeliest tokens at each place"),
    detail::integer("logprobs", 0, 20, kCompletions, "the same, in this endpoint's shape"),
    detail::integer("session_id", -1, kMaxExact, kSampled, "-1: none"),
    detail::integer("repetition_ngram_size", 0, 0, detail::kNotInteractive, "not offered"),
    detail::integer("repetition_ngram_threshold", 0, 0, detail::kNotInteractive, "not offered"),
};
static_assert(std::ranges::all_of(kNumberLimits,
                                  [](const NumberLimit& limit) {
                                    return limit.min <= limit.max && limit.where != 0;
                                  }),
              "a field that nothing satisfies, or that is nowhere, cannot be meant");

/// Counts and sizes of what is no number.
inline constexpr std::size_t kMaxStops = 16;
inline constexpr std::size_t kMaxStopBytes = 256;
inline constexpr std::size_t kMaxStopIds = 32;
inline constexpr std::size_t kMaxLogitBias = 1024;
inline constexpr double kMaxBias = 100;  ///< what is added to a logit, either way
inline constexpr std::size_t kMaxMessages = 4096;
inline constexpr std::size_t kMaxPrompts = 128;  ///< of one request
inline constexpr std::size_t kMaxIds = 100'000;  ///< token ids in one list
inline constexpr std::size_t kMaxTools = 128;
inline constexpr std::size_t kMaxToolName = 64;             ///< bytes
inline constexpr std::size_t kMaxSchemaBytes = 256 * 1024;  ///< of a JSON schema or a regex
inline constexpr std::size_t kMaxPromptBytesPerToken = 64;  ///< before a prompt is tokenised
inline constexpr std::size_t kMaxSessions = 1024;           ///< of /v1/chat/interactive
inline constexpr int kSessionIdleSeconds = 3600;            ///< after that one may be forgotten

/// Whether a number that is no NaN lies in the field's range.
[[nodiscard]] constexpr bool is_within(const NumberLimit& limit, double value) {
  const bool is_above_min = limit.is_min_open ? value > limit.min : value >= limit.min;
  return is_above_min && value <= limit.max;
}

/// The row of a field at an endpoint. \pre there is one; in a constant expression it is checked
[[nodiscard]] constexpr const NumberLimit& limit_of(std::string_view name, Endpoints endpoint) {
  for (const NumberLimit& limit : kNumberLimits) {
    if (limit.name == name && (limit.where & endpoint) != 0) return limit;
  }
  throw "a field without a row";
}

}  // namespace lmd::serve
