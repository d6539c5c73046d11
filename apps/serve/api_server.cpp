/// \file  lmd serve api_server: a model behind HTTP, in the manner of OpenAI's and LMDeploy's servers.
// SPDX-License-Identifier: Apache-2.0
#include <lmd/core/file.hpp>
#include <lmd/serve/api.hpp>
#include <lmd/serve/http/server.hpp>
#include <lmd/serve/pipeline.hpp>

#include <csignal>
#include <cstdio>
#include <filesystem>
#include <memory>
#include <string>
#include <thread>
#include <utility>

#include "../interrupt.hpp"
#include "../load_shown.hpp"
#include "../units.hpp"
#include "address.hpp"
#include "api_server_flags.hpp"
#include "serve_commands.hpp"
#include "web_files.hpp"

namespace lmd::apps {

namespace {

/// Where the library's own messages go while a server runs.
serve::ServerLog* library_log = nullptr;

void log_to_server(LogLevel level, std::string_view text) {
  library_log->write(level, text);
}

/// Takes the library's messages, and gives them back.
class LibraryLog {
 public:
  explicit LibraryLog(serve::ServerLog& log) {
    library_log = &log;
    set_log_sink(&log_to_server);
  }
  LibraryLog(const LibraryLog&) = delete;
  LibraryLog& operator=(const LibraryLog&) = delete;
  ~LibraryLog() { set_log_sink(&lmd::detail::log_to_stderr); }
};

void set_level(serve::ServerLog& log, const ApiServerOptions& o) {
  std::string word = o.log_level;
  std::string where = "--log-level";
  if (!o.log_level_file.empty()) {
    where = o.log_level_file;
    word = read_text_file(where, 1024);
    word.erase(word.find_last_not_of(" \r\n\t") + 1);
  }
  const LogLevel level = parse_log_level(where, word);
  log.set_level(level);
  set_log_level(level);
}

void introduce(const ApiServerOptions& o, const Runtime& runtime, int port) {
  const engine::MemoryPlan& plan = runtime.engine->plan();
  const serve::HttpLimits& limits = o.server.limits;
  const std::string url = local_url(o.server.host, port, o.has_ssl);
  std::fprintf(stderr, "%s: %s, KV scheme %s, context %s tokens, cache %s tokens\n",
               o.model_names.front().c_str(), runtime.backend.c_str(),
               kv_scheme_name(o.runtime.engine.quant_policy).c_str(),
               count_text(plan.session_len).c_str(),
               count_text(plan.n_pages * cache::kPageTokens).c_str());
  std::fprintf(
      stderr,
      "limits: %d answers run at a time, %d requests are taken, %d connections; a body has "
      "at most %s, n at most %d\n",
      plan.max_batch_size, limits.calls, limits.connections,
      bytes_text(static_cast<double>(limits.body_bytes)).c_str(), o.max_n);
  std::fprintf(stderr, "HINT:    base URL for OpenAI's clients: %s/v1\n", url.c_str());
  if (o.has_pages && !web_files().files().empty()) {
    std::fprintf(stderr, "HINT:    chat in a browser: %s/\n", url.c_str());
    std::fprintf(stderr, "HINT:    documentation of the API: %s/docs\n", url.c_str());
  }
  const bool is_open = o.server.api_keys.empty() && o.server.api_keys_file.empty();
  if (is_open && (!serve::is_loopback(o.server.host) || o.has_keys_without_key)) {
    std::fprintf(
        stderr,
        "lmd: warning: everybody who reaches %s:%d is served; --api-keys KEY asks for a key\n",
        o.server.host.c_str(), port);
  }
}

/// Where requests that do not say get their sampling from.
[[nodiscard]] serve::RecommendedSampling recommended(const ApiServerOptions& o,
                                                     const Runtime& runtime) {
  if (o.generation_config == "lmdeploy") return {};
  const bool is_model = o.generation_config == "auto";
  const std::string file =
      (is_model ? runtime.folder : o.generation_config) + "/generation_config.json";
  if (is_model && !std::filesystem::exists(file)) return {};
  return serve::read_recommended_sampling(file);
}

[[nodiscard]] serve::ServedModel served_model(const ApiServerOptions& o, const Runtime& runtime) {
  serve::ServedModel model;
  model.names = o.model_names;
  model.tokenizer = runtime.tokenizer.get();
  model.chat_template = runtime.chat_template;
  model.stop_ids =
      serve::stop_ids(runtime.engine->model(), *runtime.tokenizer, runtime.chat_template);
  model.vocab_size = runtime.engine->model().vocab_size;
  model.session_len = runtime.engine->plan().session_len;
  model.recommended = recommended(o, runtime);
  model.compat = o.server.compat;
  model.max_n = o.max_n;
  model.allowed_media_domains = o.media_domains;
  return model;
}

}  // namespace

ExitCode run_api_server(ApiServerOptions& o) {
  finish_options(o);
  std::signal(SIGPIPE, SIG_IGN);
  serve::ServerLog log(STDERR_FILENO, o.is_log_json);
  set_level(log, o);
  const LibraryLog library(log);
  const serve::StaticFiles pages = o.has_pages ? web_files() : serve::StaticFiles();
  o.has_pages = !pages.files().empty();
  serve::Server server(o.server, pages, log);
  server.on_reload([&] { set_level(log, o); });
  server.listen();
  int status = 0;
  std::unique_ptr<serve::Api>
      api;  // outlives its routes, and requests of the engine that use its sessions
  Runtime runtime;
  std::thread io([&] { status = server.run(); });
  try {
    o.runtime.needs_tokenizer = true;
    runtime = load_shown(o.model, o.runtime);
    if (o.model_names.empty()) o.model_names.push_back(model_name(runtime.folder));
    api = std::make_unique<serve::Api>(served_model(o, runtime), o.has_pages);
    introduce(o, runtime, server.port());
    server.serve(*runtime.engine, o.model_names.front(), api->routes());
  } catch (...) {
    server.stop();
    io.join();
    throw;
  }
  io.join();
  return static_cast<ExitCode>(status);
}

void add_api_server(CLI::App& serve, Action& action) {
  const auto options = std::make_shared<ApiServerOptions>();
  CLI::App& app = *serve.add_subcommand("api_server", "Serve a model as OpenAI's API");
  add_api_server_flags(app, *options);
  app.footer(
      "Examples:\n"
      "  lmd serve api_server SmolLM2-135M-Instruct\n"
      "  lmd serve api_server ./internlm2_5-7b-chat-4bit --model-format awq --quant-policy 4 \\\n"
      "      --cache-max-entry-count 0.4 --server-name 0.0.0.0 --server-port 23333 --api-keys "
      "SECRET\n"
      "  curl http://127.0.0.1:23333/v1/models\n");
  app.callback([&action, options] { action = [options] { return run_api_server(*options); }; });
}

}  // namespace lmd::apps
