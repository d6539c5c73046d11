/// \file  The flags of `lmd serve api_server`.
// SPDX-License-Identifier: Apache-2.0
#include "api_server_flags.hpp"

#include <algorithm>
#include <cctype>
#include <chrono>

#include "../byte_size.hpp"
#include "../engine_flags.hpp"
#include "../flags.hpp"
#include "../terminal.hpp"

namespace lmd::apps {

namespace {

constexpr const char* kAccess = "Who may talk to it";
constexpr const char* kOperation = "Operation";
constexpr const char* kCompatible = "For LMDeploy's command lines";

/// One or more words behind a flag.
CLI::Option* add_words(CLI::App& app,
                       const std::string& flag,
                       std::vector<std::string>& target,
                       const char* type,
                       const std::string& help) {
  return app.add_option(flag, target, help)
      ->type_name(type)
      ->expected(1, -1)
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
}

template <class Duration>
CLI::Option* add_seconds(
    CLI::App& app, const std::string& flag, Duration& target, int max, const std::string& help) {
  const auto seconds = std::chrono::duration_cast<std::chrono::seconds>(target);
  const auto parse = [&target, flag, max](const std::string& text) {
    target = std::chrono::seconds(parse_integer<int>(flag, text, 0, max));
  };
  return app.add_option_function<std::string>(flag, parse, help)
      ->type_name("SECONDS")
      ->default_str(std::to_string(seconds.count()));
}

void add_address_flags(CLI::App& app, ApiServerOptions& o) {
  add_text(app, "--server-name", o.server.host, "ADDRESS",
           "where to listen; 0.0.0.0: on every address of this machine")
      ->default_str(o.server.host);
  const auto set_port = [&o](const std::string& text) {
    o.server.port = static_cast<std::uint16_t>(parse_integer<int>("--server-port", text, 0, 65535));
  };
  app.add_option_function<std::string>("--server-port", set_port, "0: any port that is free")
      ->type_name("N")
      ->default_str(std::to_string(o.server.port));
  add_words(
      app, "--model-name", o.model_names, "NAME",
      "what clients call the model; else its folder's name. Several are all known, the first is "
      "the one in answers");
  app.add_flag("--ssl", o.has_ssl,
               "HTTPS, with the key of the file $SSL_KEYFILE and the certificate of $SSL_CERTFILE");
  add_choice(app, "--api-compat", o.compat, {"0.18", "0.16", "0.5"},
             "whose errors, statuses and defaults clients expect: LMDeploy 0.18 (as 0.16), or 0.5");
}

void add_access_flags(CLI::App& app, ApiServerOptions& o) {
  add_words(app, "--api-keys,--api-key", o.server.api_keys, "KEY",
            "clients must show one of these; else everybody is served who reaches the port")
      ->expected(0, -1)  // as in LMDeploy, where scripts leave it empty
      ->group(kAccess);
  add_text(app, "--api-keys-file", o.server.api_keys_file, "FILE",
           "the same, one a line; read again on SIGHUP")
      ->group(kAccess);
  add_words(app, "--allow-origins", o.server.cross_origin.origins, "ORIGIN",
            "pages of these origins may use the server from a browser, such as "
            "https://chat.example.com; *: all")
      ->group(kAccess);
  add_words(app, "--allow-methods", o.server.cross_origin.methods, "METHOD", "that they may use")
      ->default_str("*")
      ->group(kAccess);
  add_words(app, "--allow-headers", o.server.cross_origin.headers, "NAME", "that they may send")
      ->default_str("*")
      ->group(kAccess);
  app.add_flag("--allow-credentials", o.server.cross_origin.has_credentials,
               "they may send cookies and keys of their own")
      ->group(kAccess);
  add_words(app, "--allowed-hosts", o.server.cross_origin.hosts, "NAME",
            "names under which browsers reach this server, beside localhost and addresses")
      ->group(kAccess);
  add_words(app, "--allowed-media-domains", o.media_domains, "DOMAIN",
            "image URLs of these are not refused for their host; nothing is fetched, as no "
            "supported model sees images")
      ->group(kAccess);
}

void add_limit_flags(CLI::App& app, ApiServerOptions& o) {
  serve::HttpLimits& limits = o.server.limits;
  add_integer(app, "--max-concurrent-requests", limits.calls, 0, 65536,
              "more are refused with 429; 0: those that run and those that may wait")
      ->group(kOperation);
  engine::EngineConfig& engine = o.runtime.engine;
  add_integer(app, "--max-queued-requests", engine.max_queued_requests, 0, 65536,
              "answers that wait for others to end; more are refused with 429")
      ->group(kOperation);
  add_integer(app, "--max-queued-tokens", engine.max_queued_tokens, std::int64_t{0},
              std::int64_t{1} << 40, "of their prompts; 0: twice what the cache holds")
      ->group(kOperation);
  add_integer(app, "--max-connections", limits.connections, 1, 65536, "more are refused with 503")
      ->group(kOperation);
  add_integer(app, "--max-n", o.max_n, 1, 128, "answers to one prompt")->group(kOperation);
  const auto set_body = [&limits](const std::string& text) {
    limits.body_bytes = static_cast<std::uint64_t>(parse_byte_size("--max-body-size", text));
  };
  app.add_option_function<std::string>("--max-body-size", set_body, "of a request")
      ->type_name("SIZE")
      ->default_str("32MiB")
      ->group(kOperation);
  add_integer(app, "--worker-threads", o.server.worker_threads, 1, 64,
              "threads that parse and tokenize requests")
      ->group(kOperation);
}

void add_log_flags(CLI::App& app, ApiServerOptions& o) {
  const auto set_level = [&o](const std::string& word) {
    (void)parse_log_level("--log-level", word);
    o.log_level = word;
  };
  app.add_option_function<std::string>("--log-level", set_level,
                                       "what is logged: ERROR, WARNING, INFO or DEBUG")
      ->type_name("LEVEL")
      ->default_str(o.log_level)
      ->group(kOperation);
  add_text(app, "--log-level-file", o.log_level_file, "FILE",
           "a file with the level; read again on SIGHUP")
      ->group(kOperation);
  app.add_flag("--log-json", o.is_log_json, "a JSON object a line")->group(kOperation);
  constexpr int kWholePrompts = 1 << 20;
  app.add_flag_callback(
         "--log-prompts", [&o] { o.server.logged_body_bytes = kWholePrompts; },
         "log what clients ask; else no prompt is ever logged")
      ->group(kOperation);
  add_integer(app, "--max-log-len", o.server.logged_body_bytes, 0, kWholePrompts,
              "log so many bytes of what clients ask")
      ->group(kOperation);
}

void add_operation_flags(CLI::App& app, ApiServerOptions& o) {
  add_choice(app, "--metrics-compat", o.metrics_compat, {"none", "vllm", "lmdeploy"},
             "whose names /metrics has beside lmd's own")
      ->group(kOperation);
  app.add_flag("--metrics-public", o.server.has_public_metrics, "/metrics asks for no key")
      ->group(kOperation);
  app.add_flag_callback(
         "--disable-metrics", [&o] { o.server.has_metrics = false; }, "no /metrics")
      ->group(kOperation);
  add_seconds(
      app, "--sse-ping-interval", o.server.sse_ping_period, 3600,
      "a stream that is silent so long gets a comment line; 0: never. Old clients of LMDeploy "
      "cannot read these")
      ->group(kOperation);
  add_seconds(app, "--queue-timeout", o.server.queue_time, 86400,
              "a request that has not started by then is refused with 503; 0: none is")
      ->group(kOperation);
  add_seconds(app, "--drain-grace", o.server.drain_grace, 3600,
              "requests are still taken so long after SIGTERM: what balances load has to notice")
      ->group(kOperation);
  add_seconds(app, "--drain-timeout", o.server.drain_time, 86400,
              "then answers that still run are cut")
      ->group(kOperation);
  add_seconds(app, "--ready-timeout", o.server.health.ready, 86400,
              "an engine that is silent so long is not ready (/health/ready)")
      ->group(kOperation);
  add_seconds(app, "--live-timeout", o.server.health.live, 86400,
              "... is not alive (/health/live, systemd's watchdog)")
      ->group(kOperation);
  add_seconds(app, "--watchdog-timeout", o.server.health.restart, 86400,
              "... ends the process with status 70; 0: never")
      ->group(kOperation);
}

void add_compatible_flags(CLI::App& app, ApiServerOptions& o) {
  app.add_flag_callback(
         "--disable-fastapi-docs", [&o] { o.has_pages = false; }, "no pages, not even /docs")
      ->group(kCompatible);
  add_text(app, "--generation-config", o.generation_config, "auto|lmdeploy|FOLDER",
           "where the sampling of requests that do not say comes from: the model's "
           "generation_config.json, LMDeploy's defaults, or another folder's")
      ->default_str(o.generation_config)
      ->group(kCompatible);
  const auto check_qos = [](const std::string& path) {
    LMD_REQUIRE(
        path.empty(), ErrorCode::kConfig,
        "--qos-config-path '" + path + "': not part of lmd; clients take turns by their keys");
  };
  app.add_option_function<std::string>("--qos-config-path", check_qos,
                                       "only '': clients take turns by their keys")
      ->type_name("''")
      ->group(kCompatible);
  detail::add_only(app, "--vision-max-batch-size", "1", "images are encoded one at a time");
  detail::add_only(app, "--tool-call-parser", "internlm", "calls are found in InternLM's form");
}

}  // namespace

LogLevel parse_log_level(const std::string& where, const std::string& word) {
  std::string upper = word;
  for (char& c : upper)
    c = static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
  if (upper == "CRITICAL" || upper == "FATAL" || upper == "ERROR") return LogLevel::kError;
  if (upper == "WARN" || upper == "WARNING") return LogLevel::kWarn;
  if (upper == "INFO" || upper == "REQUEST") return LogLevel::kInfo;
  if (upper == "DEBUG" || upper == "NOTSET") return LogLevel::kDebug;
  throw Error(ErrorCode::kConfig, where + " '" + word +
                                      "' is unknown; known: CRITICAL FATAL ERROR WARN WARNING INFO "
                                      "REQUEST DEBUG NOTSET");
}

void add_api_server_flags(CLI::App& app, ApiServerOptions& options) {
  constexpr int kSequences = 64;
  options.runtime.engine.max_batch_size = kSequences;
  add_model(app, options.model)->required();
  add_address_flags(app, options);
  add_access_flags(app, options);
  add_limit_flags(app, options);
  add_log_flags(app, options);
  add_operation_flags(app, options);
  add_chat_template(app, options.runtime.chat_template);
  add_engine_flags(app, options.runtime);
  add_compatible_flags(app, options);
}

void drop_missing_key(ApiServerOptions& o) {
  o.has_keys_without_key = o.server.api_keys == std::vector<std::string>{""};
  if (o.has_keys_without_key) o.server.api_keys.clear();
}

void finish_options(ApiServerOptions& o) {
  drop_missing_key(o);
  o.server.compat = o.compat == "0.5" ? serve::ApiCompat::k05 : serve::ApiCompat::k018;
  if (o.metrics_compat == "vllm") o.server.metric_names = serve::MetricNames::kVllm;
  if (o.metrics_compat == "lmdeploy") o.server.metric_names = serve::MetricNames::kLmdeploy;
  serve::HttpLimits& limits = o.server.limits;
  const engine::EngineConfig& engine = o.runtime.engine;
  if (limits.calls == 0) limits.calls = engine.max_batch_size + engine.max_queued_requests;
  if (!o.has_ssl) return;
  o.server.tls_key_file = environment("SSL_KEYFILE");
  o.server.tls_certificate_file = environment("SSL_CERTFILE");
  LMD_REQUIRE(!o.server.tls_key_file.empty() && !o.server.tls_certificate_file.empty(),
              ErrorCode::kConfig,
              "--ssl: the environment must name two files, SSL_KEYFILE and SSL_CERTFILE");
}

}  // namespace lmd::apps
