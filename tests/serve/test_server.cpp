/// \file  The server over engines without weights, for tests from outside and for measurements.
// SPDX-License-Identifier: Apache-2.0
#include <lmd/json/json.hpp>
#include <lmd/serve/api.hpp>
#include <lmd/serve/http/server.hpp>
#include <lmd/text/chat_templates.hpp>

#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <string>

#include "../../apps/serve/web_files.hpp"
#include "echo_executor.hpp"
#include "plain_api.hpp"
#include <CLI/CLI.hpp>

namespace lmd::serve_test {

namespace {

EchoHooks hooks;

struct Options {
  serve::ServerOptions server = {.port = 0};
  EchoOptions echo;
  engine::EngineConfig engine = {
      .session_len = 4096, .max_batch_size = 64, .max_prefill_tokens = 512};
  std::string compat = "0.18";
  std::string metric_names = "own";
  std::string script;
  std::string fail_on;
  std::string fatal_on;
  std::string log_level_file;
  int load_ms = 0;
  bool is_json = false;
  bool is_quiet = false;
};

void add_milliseconds(CLI::App& app, const char* flag, std::chrono::milliseconds& target) {
  app.add_option_function<int>(flag, [&target](int ms) { target = std::chrono::milliseconds(ms); });
}

void add_flags(CLI::App& app, Options& o) {
  app.add_option("--port", o.server.port);
  app.add_option("--host", o.server.host);
  app.add_option("--api-keys", o.server.api_keys);
  app.add_option("--api-keys-file", o.server.api_keys_file);
  app.add_option("--api-compat", o.compat);
  app.add_option("--metrics-compat", o.metric_names);
  app.add_flag("--metrics-public", o.server.has_public_metrics);
  app.add_option("--allow-origins", o.server.cross_origin.origins);
  app.add_flag("--allow-credentials", o.server.cross_origin.has_credentials);
  app.add_option("--allowed-hosts", o.server.cross_origin.hosts);
  app.add_option("--tls-key", o.server.tls_key_file);
  app.add_option("--tls-certificate", o.server.tls_certificate_file);
  app.add_option("--max-calls", o.server.limits.calls);
  app.add_option("--max-connections", o.server.limits.connections);
  app.add_option("--max-body", o.server.limits.body_bytes);
  app.add_option("--max-all-bodies", o.server.limits.all_body_bytes);
  app.add_option("--worker-threads", o.server.worker_threads);
  app.add_option("--log-body", o.server.logged_body_bytes);
  add_milliseconds(app, "--header-ms", o.server.limits.header_time);
  add_milliseconds(app, "--body-ms", o.server.limits.body_time);
  add_milliseconds(app, "--idle-ms", o.server.limits.idle_time);
  add_milliseconds(app, "--write-ms", o.server.limits.write_time);
  add_milliseconds(app, "--ready-ms", o.server.health.ready);
  add_milliseconds(app, "--live-ms", o.server.health.live);
  add_milliseconds(app, "--restart-ms", o.server.health.restart);
  add_milliseconds(app, "--grace-ms", o.server.drain_grace);
  app.add_option_function<int>("--drain-s",
                               [&o](int s) { o.server.drain_time = std::chrono::seconds(s); });
  app.add_option_function<int>("--sse-ping-s",
                               [&o](int s) { o.server.sse_ping_period = std::chrono::seconds(s); });
  app.add_option_function<int>("--queue-s",
                               [&o](int s) { o.server.queue_time = std::chrono::seconds(s); });
  app.add_option("--max-queued", o.engine.max_queued_requests);
  app.add_option("--rate", o.echo.steps_per_s);
  app.add_option("--prefill-us", o.echo.prefill_us_per_token);
  app.add_option("--script", o.script, "JSON file: [{\"when\": TEXT, \"say\": TEXT}]");
  app.add_option("--fail-on", o.fail_on);
  app.add_option("--fatal-on", o.fatal_on);
  app.add_option("--batch", o.engine.max_batch_size);
  app.add_option("--session-len", o.engine.session_len);
  app.add_option("--max-prefill", o.engine.max_prefill_tokens);
  app.add_option("--load-ms", o.load_ms);
  app.add_flag("--log-json", o.is_json);
  app.add_flag("--quiet", o.is_quiet);
}

void read_words(Options& o, const text::Tokenizer& tokenizer) {
  o.server.compat = o.compat == "0.5" ? serve::ApiCompat::k05 : serve::ApiCompat::k018;
  if (o.metric_names == "vllm") o.server.metric_names = serve::MetricNames::kVllm;
  if (o.metric_names == "lmdeploy") o.server.metric_names = serve::MetricNames::kLmdeploy;
  o.echo.failing_prompt = tokenizer.encode(o.fail_on);
  o.echo.fatal_prompt = tokenizer.encode(o.fatal_on);
  if (o.script.empty()) return;
  for (const json::Json& line : json::parse_file(o.script)) {
    const json::Object entry(line, o.script);
    o.echo.script.push_back(
        {tokenizer.encode(entry.string("when")), tokenizer.encode(entry.string("say"))});
  }
}

/// No system text: an echo would say it.
serve::ServedModel echo_model(const Options& o, const text::Tokenizer& tokenizer) {
  serve::ServedModel model;
  model.names = {"echo"};
  model.tokenizer = &tokenizer;
  model.chat_template = text::builtin_template("internlm2");
  model.chat_template.meta_instruction.reset();
  model.stop_ids = {kEos, *tokenizer.id_of("<|im_end|>"), *tokenizer.id_of("<|action_end|>")};
  model.vocab_size = kVocabulary;
  model.session_len = o.engine.session_len;
  model.compat = o.server.compat;
  return model;
}

int serve_echo(Options& o) {
  const auto tokenizer = make_byte_tokenizer();
  read_words(o, *tokenizer);
  serve::ServerLog log(STDERR_FILENO, o.is_json);
  if (o.is_quiet) log.set_level(LogLevel::kError);
  const engine::MemoryPlan plan = echo_plan(o.engine);
  engine::Engine engine(std::make_unique<EchoExecutor>(echo_config(o.engine.session_len), o.echo,
                                                       hooks, plan.max_rows),
                        o.engine, plan);
  serve::Server server(o.server, apps::web_files(), log);
  server.listen();
  std::printf("port %d\n", server.port());
  std::fflush(stdout);
  serve::Api api(echo_model(o, *tokenizer), !apps::web_files().files().empty());
  std::thread loading([&] {
    std::this_thread::sleep_for(std::chrono::milliseconds(o.load_ms));
    std::vector<serve::Route> routes = api.routes();
    routes.push_back(plain_route(*tokenizer));
    routes.push_back(routes_route(server.core().routes));
    server.serve(engine, "echo", std::move(routes));
  });
  const int status = server.run();
  loading.join();
  return status;
}

}  // namespace

}  // namespace lmd::serve_test

/// SIGUSR1 makes the engine hang, SIGUSR2 lets it go on.
int main(int argc, char** argv) {
  using namespace lmd::serve_test;
  std::signal(SIGPIPE, SIG_IGN);
  std::signal(SIGUSR1, [](int) { hooks.hangs = true; });
  std::signal(SIGUSR2, [](int) { hooks.hangs = false; });
  CLI::App app("lmd's server over an engine that says the prompt again");
  Options options;
  add_flags(app, options);
  CLI11_PARSE(app, argc, argv);
  try {
    return serve_echo(options);
  } catch (const std::exception& e) {
    std::fprintf(stderr, "lmd_test_server: %s\n", e.what());
    return 2;
  }
}
