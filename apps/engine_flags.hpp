/// \file  The flags of every subcommand that runs a model, under LMDeploy's names.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/engine/dispatch.hpp>

#include <string>

#include "byte_size.hpp"
#include "cuda_runtime.hpp"
#include "flags.hpp"
#include "runtime.hpp"

namespace lmd::apps {

namespace detail {

/// LMDeploy's names of the schemes that lmd has, too.
[[nodiscard]] inline std::string quant_policy_word(const std::string& word) {
  if (word == "none") return "0";
  if (word == "int8") return "8";
  return word == "int4" ? "4" : word;
}

/// A flag that is taken for the sake of LMDeploy's command lines and can have one value only.
inline void add_only(CLI::App& app,
                     const std::string& flag,
                     const std::string& only,
                     const char* why) {
  const auto check = [flag, only, why](const std::string& text) {
    LMD_REQUIRE(text == only, ErrorCode::kConfig,
                flag + " '" + text + "': only " + only + " is possible, " + why);
  };
  app.add_option_function<std::string>(flag, check, std::string("only ") + only + ": " + why)
      ->type_name(only)
      ->group("For LMDeploy's command lines");
}

inline void add_rope_scaling(CLI::App& app, double& factor) {
  const std::string flag = "--rope-scaling-factor";
  const auto parse = [&factor, flag](const std::string& text) {
    factor = parse_number(flag, text, 0.0, 10000.0);
    LMD_REQUIRE(factor == 0.0 || factor >= 1.0, ErrorCode::kConfig,
                flag + " '" + text + "': must be 0 or a number from 1 to 10000");
  };
  app.add_option_function<std::string>(
         flag, parse,
         "over 1: dynamic NTK scaling by it beyond the trained length; 1: none; 0: as config.json "
         "says")
      ->type_name("X")
      ->default_str(shortest_text(factor));
}

inline void add_cache_flags(CLI::App& app, engine::EngineConfig& config) {
  const auto set_policy = [&config](const std::string& word) {
    config.quant_policy = engine::parse_quant_policy(quant_policy_word(word));
  };
  app.add_option_function<std::string>(
         "--quant-policy", set_policy,
         "how keys and values are kept: 0 is 16 bit, 8 and 4 are bits "
         "with a scale per token, k8v4 mixes them, 4c scales keys per "
         "channel; none, int8 and int4 are names of the first three")
      ->type_name("0|8|4|k8v4|4c")
      ->default_str("0");
  add_number(app, "--cache-max-entry-count", config.cache_max_entry_count, 0.0, 1.0,
             "share of the memory left beside the weights that the cache may take");
  add_integer(app, "--session-len", config.session_len, 0, 1 << 24,
              "tokens of a sequence, prompt and answer; 0: what the model was trained for");
  add_integer(app, "--max-batch-size", config.max_batch_size, 1, 4096,
              "sequences that run at the same time");
  add_integer(app, "--max-prefill-token-num", config.max_prefill_tokens, 0, 65536,
              "prompt tokens that are read in one step; 0: 512 on the processor, 4096 on a GPU");
  app.add_flag_callback(
      "--no-prefix-caching", [&config] { config.has_prefix_cache = false; },
      "do not share the cache of equal beginnings");
  app.add_flag_callback(
         "--enable-prefix-caching", [&config] { config.has_prefix_cache = true; },
         "share the cache of equal beginnings; the default but in bench")
      ->group("For LMDeploy's command lines");
}

inline std::string device_help() {
  const std::string help =
      "what computes; auto: the GPU where there is one that lmd has kernels for, else the "
      "processor; "
      "host: the textbook definitions, slow";
  return is_cuda_built_in() ? help : help + "; cuda is not in this build";
}

}  // namespace detail

/// Binds the flags to `options`, whose values of now are the defaults.
inline void add_engine_flags(CLI::App& app, RuntimeOptions& options) {
  detail::add_cache_flags(app, options.engine);
  add_choice(app, "--device", options.device, {"auto", "cpu", "host", "cuda"},
             detail::device_help());
  add_choice(
      app, "--dtype", options.dtype, {"auto", "float16", "bfloat16"},
      "activations on a GPU; auto: as the model's torch_dtype, float16 for AWQ; no effect on "
      "the processor, where they have 32 bits");
  add_byte_size(app, "--gpu-memory-limit", options.gpu_memory_limit,
                "memory of the GPU to take at most, such as 24G or 24GiB; else what is free; no "
                "effect on the processor");
  app.add_flag(
      "--deterministic", options.engine.is_deterministic,
      "on a GPU: the same answer to the bit in any batch, slower; on the processor it always is");
  add_integer(app, "--threads", options.threads, 0, 256,
              "threads; 0: as many as this process may use");
  add_choice(app, "--model-format", options.model_format, {"hf", "awq"},
             "what the weights must be; read from the files if not given");
  detail::add_rope_scaling(app, options.rope_scaling_factor);
  constexpr const char* kCompatible = "For LMDeploy's command lines";
  detail::add_only(app, "--backend", "turbomind", "lmd has one engine");
  detail::add_only(app, "--tp", "1", "this backend runs in one process");
  detail::add_only(app, "--cache-block-seq-len", "64", "pages have 64 tokens");
  detail::add_only(app, "--dp", "1", "one process runs one copy; start several");
  detail::add_only(app, "--ep", "1", "no supported model has experts");
  app.add_option_function<std::string>(
         "--moe-a2a-backend", [](const std::string&) {},
         "no effect: no supported model has experts")
      ->type_name("NAME")
      ->group(kCompatible);
  detail::add_only(app, "--cp", "1", "a sequence is not split over GPUs");
  detail::add_only(app, "--nnodes", "1", "this backend runs in one process");
  detail::add_only(app, "--node-rank", "0", "this backend runs in one process");
  detail::add_only(app, "--communicator", "nccl", "nothing is communicated in one process");
  detail::add_only(app, "--async", "1", "the engine has one mode");
  detail::add_only(app, "--num-tokens-per-iter", "0", "--max-prefill-token-num bounds a step");
  detail::add_only(app, "--max-prefill-iters", "1", "--max-prefill-token-num bounds a step");
  app.add_flag_callback(
         "--language-model-only", [] {}, "no effect: only the language part is ever loaded")
      ->group(kCompatible);
  app.add_flag_callback(
         "--trust-remote-code", [] {}, "no effect: no code of a model is ever run")
      ->group(kCompatible);
}

inline CLI::Option* add_chat_template(CLI::App& app, std::string& target) {
  return add_text(
      app, "--chat-template", target, "NAME|FILE|JSON",
      "a built-in name, a JSON file as LMDeploy's, or its text; else as the model says");
}

}  // namespace lmd::apps
