/// \file  What users of LMDeploy may type that lmd does not do, and what it says instead.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string_view>

namespace lmd::apps {

struct Refusal {
  const char* word;    ///< a subcommand ("serve", "lite smooth_quant") or a long flag
  const char* answer;  ///< completes "WORD: "
};

inline constexpr Refusal kRefusedCommands[] = {
    {"serve proxy", "not part of lmd; put HAProxy in front of several servers"},
    {"serve",
     "not built in: Boost 1.81 and OpenSSL 3 were not found when lmd was compiled (Debian: "
     "libboost1.81-dev libssl-dev; Ubuntu: libboost1.83-dev libssl-dev)"},
    {"lite smooth_quant", "not part of lmd; AWQ checkpoints load as they are"},
    {"lite auto_gptq", "not part of lmd; AWQ checkpoints load as they are"},
    {"lite kv_qparams",
     "not needed; --quant-policy 8 or 4 quantises keys and values while running"},
    {"lite",
     "not built yet; AWQ checkpoints load as they are, and `lmd convert` keeps the 4-bit and "
     "8-bit codes of GGUF files"},
    {"bench serve",
     "not built in: Boost 1.81 and OpenSSL 3 were not found when lmd was compiled; `lmd bench "
     "throughput MODEL` measures the engine alone"},
};

inline constexpr Refusal kRefusedFlags[] = {
    {"--adapters", "LoRA adapters are not part of lmd; merge them into the weights first"},
    {"--revision", "lmd loads from no model hub; name a folder on this machine"},
    {"--download-dir", "lmd loads from no model hub; name a folder on this machine"},
    {"--use-logn-attn", "no supported model uses it"},
    {"--hf-overrides", "change config.json in the model's folder instead"},
    {"--dist-init-addr", "not built yet"},
    {"--disable-metrics", "a flag of `lmd serve api_server`"},
    {"--speculative-algorithm", "speculative decoding is not built yet"},
    {"--speculative-draft-model", "speculative decoding is not built yet"},
    {"--speculative-num-draft-tokens", "speculative decoding is not built yet"},
    {"--server-name", "a flag of `lmd serve`"},
    {"--server-port", "a flag of `lmd serve`"},
    {"--api-keys", "a flag of `lmd serve`"},
    {"--api-key", "a flag of `lmd serve`"},
    {"--qos-config-path", "a flag of `lmd serve`"},
    {"--logprobs-mode", "log probabilities are always the model's own"},
    {"--role", "prefill and decode are not split over servers"},
    {"--reasoning-parser", "no supported model writes its reasoning apart"},
    {"--allow-terminate-by-client", "no client ends this server; SIGTERM does"},
    {"--enable-abort-handling", "closing the connection ends a request; leave the flag out"},
    {"--share",
     "no tunnel through somebody else's server; `ssh -L 6006:127.0.0.1:6006 HOST` makes your own"},
    {"--proxy-url", "not part of lmd; put HAProxy in front of several servers"},
};

/// The answer for `word`, or null.
template <std::size_t N>
[[nodiscard]] constexpr const char* refusal_of(const Refusal (&table)[N], std::string_view word) {
  for (const Refusal& refusal : table) {
    if (word == refusal.word) return refusal.answer;
  }
  return nullptr;
}

}  // namespace lmd::apps
