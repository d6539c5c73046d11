/// \file  What the user decides about an engine.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/core/error.hpp>

#include <cstdint>
#include <string>

namespace lmd::engine {

/// Of activations on a GPU; the processor's are f32.
enum class ActivationType { kFloat16, kBFloat16 };

struct EngineConfig {
  int quant_policy = 0;                ///< KV scheme, by its number (see dispatch.hpp)
  int session_len = 0;                 ///< tokens of a sequence; 0: what the model was trained for
  int max_batch_size = 8;              ///< sequences that run at the same time
  double cache_max_entry_count = 0.8;  ///< share of the memory left beside the weights
  int max_prefill_tokens = 512;        ///< tokens of a step that reads prompts, about
  int admitted_answer_tokens = 256;  ///< of an answer, for which there must be memory as it starts
  int max_queued_requests = 256;     ///< that wait, beside those that there are slots for
  std::int64_t max_queued_tokens = 0;  ///< of their prompts; 0: twice what the cache holds
  bool has_prefix_cache = true;        ///< sealed pages of equal prefixes are shared
  ActivationType activations = ActivationType::kFloat16;
  bool is_deterministic = false;  ///< the same bits in any batch, at a price; Cpu's always are
};

/// \throws Error(kConfig) naming the flag, its value and its range.
inline void validate(const EngineConfig& c) {
  const auto require = [](bool ok, const char* flag, const std::string& value, const char* range) {
    LMD_REQUIRE(ok, ErrorCode::kConfig, std::string(flag) + ' ' + value + ": must be " + range);
  };
  require(c.session_len >= 0 && c.session_len <= (1 << 24), "--session-len",
          std::to_string(c.session_len), "1 to 16777216, or 0 for the model's own length");
  require(c.max_batch_size >= 1 && c.max_batch_size <= 4096, "--max-batch-size",
          std::to_string(c.max_batch_size), "1 to 4096");
  require(c.cache_max_entry_count > 0.0 && c.cache_max_entry_count < 1.0, "--cache-max-entry-count",
          std::to_string(c.cache_max_entry_count),
          "between 0 and 1: a share of the memory left beside the weights");
  require(c.max_prefill_tokens >= 1 && c.max_prefill_tokens <= 65536, "--max-prefill-token-num",
          std::to_string(c.max_prefill_tokens), "1 to 65536");
  require(c.admitted_answer_tokens >= 0, "admitted_answer_tokens",
          std::to_string(c.admitted_answer_tokens), "0 or more");
  require(c.max_queued_requests >= 0 && c.max_queued_requests <= 65536, "--max-queued-requests",
          std::to_string(c.max_queued_requests), "0 to 65536");
  require(c.max_queued_tokens >= 0, "--max-queued-tokens", std::to_string(c.max_queued_tokens),
          "1 or more, or 0 for twice what the cache holds");
}

}  // namespace lmd::engine
