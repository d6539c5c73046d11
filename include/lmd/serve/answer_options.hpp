/// \file  The fields that every endpoint with answers shares: sampling, lengths, stops, streaming.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/engine/request.hpp>
#include <lmd/serve/fields.hpp>
#include <lmd/serve/served_model.hpp>

#include <algorithm>
#include <cfloat>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace lmd::serve {

struct AnswerOptions {
  kernels::SamplingParams sampling;  ///< `seed` is not set
  std::optional<std::int64_t> seed = std::nullopt;
  std::optional<int> max_new_tokens = std::nullopt;  ///< none: what the context has room for
  int min_new_tokens = 0;
  int n = 1;
  int n_logprobs = -1;                 ///< as in engine::Request
  std::vector<std::string> stop = {};  ///< the request's own
  std::vector<int> stop_ids = {};      ///< the request's own
  bool ignore_eos = false;
  bool skip_special_tokens = true;
  bool include_stop = false;  ///< the answer's text ends with what ended it
  bool is_stream = false;
  bool include_usage = false;  ///< a last chunk with the counts
  bool return_ids = false;
  bool return_logprobs = false;  ///< as [log probability, id] beside the ids
  std::int64_t session_id = -1;
};

namespace detail {

[[nodiscard]] inline SamplingConstants sampling_constants(ApiCompat compat, Endpoints endpoint) {
  if (endpoint == kInteractive) return {.temperature = 0.8, .top_p = 0.8, .top_k = 40};
  if (compat == ApiCompat::k05) return {.temperature = 0.7, .top_p = 1.0, .top_k = 40};
  return {};
}

/// Request, then generation_config.json, then constants. LMDeploy 0.5.3 did not read the file, and its
/// interactive endpoint has constants of its own.
[[nodiscard]] inline kernels::SamplingParams read_sampling(const Fields& fields,
                                                           Endpoints endpoint,
                                                           const ServedModel& model) {
  const bool reads_file = model.compat == ApiCompat::k018 && endpoint != kInteractive;
  const RecommendedSampling recommended = reads_file ? model.recommended : RecommendedSampling{};
  const SamplingConstants constants = sampling_constants(model.compat, endpoint);
  const auto value = [&](std::string_view name, std::optional<double> second, double last) {
    return fields.number(limit_of(name, kChat)).value_or(second.value_or(last));
  };
  const auto real = [](double x) { return static_cast<float>(x); };
  kernels::SamplingParams p;
  p.temperature = real(value("temperature", recommended.temperature, constants.temperature));
  // A float has no room for the smallest doubles, and 0 is outside.
  p.top_p = std::max(real(value("top_p", recommended.top_p, constants.top_p)), FLT_MIN);
  p.top_k = static_cast<int>(value("top_k", recommended.top_k, constants.top_k));
  p.repetition_penalty = real(
      value("repetition_penalty", recommended.repetition_penalty, constants.repetition_penalty));
  if (endpoint != kInteractive) p.min_p = real(value("min_p", recommended.min_p, constants.min_p));
  if ((endpoint & (kChat | kCompletions)) != 0) {
    p.presence_penalty = real(value("presence_penalty", std::nullopt, 0.0));
    p.frequency_penalty = real(value("frequency_penalty", std::nullopt, 0.0));
  }
  return p;
}

/// {"50256": -100} by token id.
[[nodiscard]] inline std::vector<std::pair<int, float>> read_logit_bias(const Fields& fields,
                                                                        const ServedModel& model) {
  std::vector<std::pair<int, float>> bias;
  if (!fields.has("logit_bias")) return bias;
  const Fields entries = fields.object("logit_bias");
  fields.require_count("logit_bias", entries.value().size(), kMaxLogitBias);
  for (const auto& [key, value] : entries.value().items()) {
    const auto id = integer_of(json::OrderedJson(key));
    if (!id || id->value < 0 || id->value >= model.vocab_size) {
      throw malformed(
          fields.location("logit_bias"), "int_parsing",
          "expected token ids from 0 to " + std::to_string(model.vocab_size - 1) + " as keys");
    }
    const auto amount = real_of(value);
    if (!amount || !(amount->value >= -kMaxBias && amount->value <= kMaxBias)) {
      throw malformed(fields.location("logit_bias"), "float_type",
                      "expected numbers from -100 to 100");
    }
    bias.emplace_back(static_cast<int>(id->value), static_cast<float>(amount->value));
  }
  return bias;
}

/// A string or a list of them. Empty ones, which would end every answer, do nothing.
[[nodiscard]] inline std::vector<std::string> read_stop(const Fields& fields) {
  std::vector<std::string> stop;
  const auto add = [&](const json::OrderedJson& item, Location location) {
    if (!item.is_string()) throw malformed(std::move(location), "string_type", "expected a string");
    const auto& text = item.get_ref<const std::string&>();
    if (text.size() > kMaxStopBytes) {
      throw malformed(std::move(location), "string_too_long",
                      "expected at most " + std::to_string(kMaxStopBytes) + " bytes");
    }
    if (!text.empty()) stop.push_back(text);
  };
  const json::OrderedJson* value = fields.find("stop");
  if (value == nullptr) return stop;
  if (!value->is_array()) {
    add(*value, fields.location("stop"));
    return stop;
  }
  fields.require_count("stop", value->size(), kMaxStops);
  for (std::size_t i = 0; i < value->size(); ++i) {
    Location location = fields.location("stop");
    location.push_back(std::to_string(i));
    add((*value)[i], std::move(location));
  }
  return stop;
}

/// Fields that other engines have: the values that ask for nothing are taken, others refused by name.
inline void refuse_what_is_not_offered(const Fields& fields) {
  for (const char* key : {"repetition_ngram_size", "repetition_ngram_threshold"})
    (void)fields.number(limit_of(key, kChat));
  fields.refuse_unless_empty("return_routed_experts", ": the model has no experts");
  for (const char* key : {"image_data", "media_io_kwargs", "mm_processor_kwargs"})
    fields.refuse_unless_empty(key, ": the model takes text alone");
}

[[nodiscard]] inline std::optional<int> to_int(const std::optional<std::int64_t>& value) {
  return value ? std::optional(static_cast<int>(*value)) : std::nullopt;
}

}  // namespace detail

/// \throws ApiFailure for the first field that is wrong.
[[nodiscard]] inline AnswerOptions read_answer_options(const Fields& fields,
                                                       Endpoints endpoint,
                                                       const ServedModel& model) {
  const auto integer = [&](std::string_view name) {
    return fields.integer(limit_of(name, endpoint));
  };
  AnswerOptions options;
  options.sampling = detail::read_sampling(fields, endpoint, model);
  options.stop = detail::read_stop(fields);
  options.ignore_eos = fields.boolean_or("ignore_eos", false);
  options.skip_special_tokens = fields.boolean_or("skip_special_tokens", true);
  options.is_stream = fields.boolean_or("stream", false);
  options.session_id = integer("session_id").value_or(-1);
  if (endpoint == kInteractive) return options;
  options.seed = integer("seed");
  options.max_new_tokens = detail::to_int(integer("max_tokens"));
  options.min_new_tokens = static_cast<int>(integer("min_new_tokens").value_or(0));
  options.include_stop = fields.boolean_or("include_stop_str_in_output", false);
  (void)fields.boolean_or("spaces_between_special_tokens", true);  // none are ever put there
  options.return_logprobs = fields.boolean_or("return_logprob", false);
  if (options.return_logprobs) options.n_logprobs = 0;
  detail::refuse_what_is_not_offered(fields);
  if (endpoint == kGenerate) return options;
  NumberLimit n = limit_of("n", endpoint);
  n.max = model.max_n;
  options.n = static_cast<int>(fields.integer(n).value_or(1));
  if (const auto longest = integer("max_completion_tokens"))
    options.max_new_tokens = static_cast<int>(*longest);
  options.sampling.logit_bias = detail::read_logit_bias(fields, model);
  options.return_ids = fields.boolean_or("return_token_ids", false);
  if (fields.has("stream_options"))
    options.include_usage = fields.object("stream_options").boolean_or("include_usage", false);
  return options;
}

}  // namespace lmd::serve
