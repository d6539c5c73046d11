/// \file  The flags of `lmd serve api_server`.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/core/log.hpp>
#include <lmd/serve/server_options.hpp>

#include <string>
#include <vector>

#include "../commands.hpp"
#include "../runtime.hpp"

namespace lmd::apps {

struct ApiServerOptions {
  std::string model;
  std::vector<std::string> model_names;
  RuntimeOptions runtime;
  serve::ServerOptions server;
  std::string compat = "0.18";
  std::string metrics_compat = "none";
  std::string generation_config = "auto";
  std::string log_level = "INFO";
  std::string log_level_file;
  bool is_log_json = false;
  bool has_ssl = false;
  bool has_keys_without_key = false;  ///< --api-keys stood there, and no key behind it
  bool has_pages = true;              ///< `/`, `/docs` and what they load
  int max_n = 16;
  std::vector<std::string> media_domains;
};

/// LMDeploy's names of levels are known, too. \throws Error(kConfig) that lists them.
[[nodiscard]] LogLevel parse_log_level(const std::string& where, const std::string& word);

/// Binds the flags to `options`, whose values of now are the defaults, but for the size of a batch.
void add_api_server_flags(CLI::App& app, ApiServerOptions& options);

/// --api-keys without a key asks for none.
void drop_missing_key(ApiServerOptions& options);

/// Puts what flags and environment say together into `options.server`.
/// \throws Error(kConfig) for what does not go together.
void finish_options(ApiServerOptions& options);

/// `options` as flags have set them. The port is taken, and /health answers, while the model is loaded.
/// \throws Error, Interrupted.
ExitCode run_api_server(ApiServerOptions& options);

}  // namespace lmd::apps
