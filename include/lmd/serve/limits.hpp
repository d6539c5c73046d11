/// \file  What every field of a request may hold: the one table that validation, /openapi.json and the
///        tests read.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <limits>
#include <optional>
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

inline constexpr NumberLimit kNumberLimits[] = {
    {"temperature", FieldType::kNumber, 0, 2, false, kSampled, "must be in [0, 2]",
     "must be in [0, 2]", "0: always the most likely token"},
    {"top_p",
     FieldType::kNumber,
     0,
     1,
     true,
     kSampled,
     {},
     {},
     "draw from the most likely tokens that have this share of the probability"},
    {"top_k",
     FieldType::kInteger,
     0,
     kMaxInt,
     false,
     kSampled,
     "cannot be a negative integer.",
     {},
     "draw from this many most likely tokens; 0: from all"},
    {"min_p",
     FieldType::kNumber,
     0,
     1,
     false,
     kChat | kCompletions | kGenerate,
     {},
     {},
     "drop tokens less likely than this share of the most likely one"},
    {"repetition_penalty",
     FieldType::kNumber,
     1e-7,
     1000,
     false,
     kSampled,
     {},
     {},
     "over 1: tokens that were there are less likely"},
    {"presence_penalty",
     FieldType::kNumber,
     -2,
     2,
     false,
     kChat | kCompletions,
     {},
     {},
     "taken from the logits of tokens that were there"},
    {"frequency_penalty",
     FieldType::kNumber,
     -2,
     2,
     false,
     kChat | kCompletions,
     {},
     {},
     "the same for each time that they were there"},
    {"n",
     FieldType::kInteger,
     1,
     16,
     false,
     kChat | kCompletions,
     "must be a positive int.",
     {},
     "answers to each prompt; seeds are seed, seed + 1, ... (--max-n)"},
    {"best_of",
     FieldType::kInteger,
     1,
     16,
     false,
     kCompletions,
     "must be a positive int.",
     {},
     "only the value of n is taken"},
    {"max_tokens",
     FieldType::kInteger,
     1,
     kMaxInt,
     false,
     kChat | kCompletions | kGenerate,
     {},
     {},
     "the longest answer; the model's context bounds it, too"},
    {"max_completion_tokens",
     FieldType::kInteger,
     1,
     kMaxInt,
     false,
     kChat | kCompletions,
     {},
     {},
     "the same; it counts where both are given"},
    {"request_output_len",
     FieldType::kInteger,
     0,
     kMaxInt,
     false,
     kInteractive,
     {},
     {},
     "the longest answer; 0 with an empty prompt ends the session"},
    {"min_new_tokens",
     FieldType::kInteger,
     0,
     kMaxInt,
     false,
     kChat | kCompletions | kGenerate,
     {},
     {},
     "the answer does not end before"},
    {"seed",
     FieldType::kInteger,
     -kMaxExact,
     kMaxExact,
     false,
     kChat | kCompletions | kGenerate,
     {},
     {},
     "the same seed gives the same answer"},
    {"top_logprobs",
     FieldType::kInteger,
     0,
     20,
     false,
     kChat,
     {},
     {},
     "how many of the most likely tokens to report at each place"},
    {"logprobs",
     FieldType::kInteger,
     0,
     20,
     false,
     kCompletions,
     {},
     {},
     "the same, in the shape of /v1/completions"},
    {"session_id", FieldType::kInteger, -1, kMaxExact, false, kSampled, {}, {}, "-1: none"},
    {"repetition_ngram_size",
     FieldType::kInteger,
     0,
     0,
     false,
     kChat | kCompletions | kGenerate,
     {},
     {},
     "not offered: 0 alone"},
    {"repetition_ngram_threshold",
     FieldType::kInteger,
     0,
     0,
     false,
     kChat | kCompletions | kGenerate,
     {},
     {},
     "not offered: 0 alone"},
};

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
