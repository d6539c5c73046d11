/// \file  lmd serve gradio: the chat page, before a server that runs or a model of its own.
// SPDX-License-Identifier: Apache-2.0
#include <lmd/serve/http/page_gateway.hpp>
#include <lmd/serve/server_log.hpp>

#include <algorithm>
#include <csignal>
#include <cstdio>
#include <filesystem>
#include <memory>
#include <string>
#include <utility>

#include "address.hpp"
#include "api_server_flags.hpp"
#include "serve_commands.hpp"
#include "web_files.hpp"
#include <boost/asio/signal_set.hpp>

namespace lmd::apps {

namespace {

/// "http://localhost:23333", or "localhost:23333" as LMDeploy takes it.
[[nodiscard]] bool is_server(const std::string& where) {
  if (where.find("://") != std::string::npos) return true;
  return where.find(':') != std::string::npos && !std::filesystem::exists(where);
}

[[nodiscard]] serve::Url server_url(const std::string& where) {
  return serve::parse_url(where.find("://") == std::string::npos ? "http://" + where : where);
}

/// Most flags are those of a model; before a server that runs they would do nothing.
/// \throws Error(kConfig) naming the flag.
void require_flags_of_page(const CLI::App& app, const std::string& url) {
  constexpr const char* kFlags[] = {
      "--help",          "--server-name",   "--server-port", "--api-keys", "--allow-origins",
      "--allowed-hosts", "--max-body-size", "--log-level",   "--log-json", "--max-connections"};
  for (const CLI::Option* option : app.get_options()) {
    if (option->count() == 0 || option->get_lnames().empty()) continue;
    const std::string name = "--" + option->get_lnames().front();
    const bool is_known = std::ranges::find(kFlags, name) != std::end(kFlags);
    LMD_REQUIRE(is_known, ErrorCode::kConfig,
                name + ": a flag for a model; it belongs to the server at " + url);
  }
}

void introduce(const serve::GatewayOptions& options, int port) {
  std::fprintf(stderr, "HINT:    chat in a browser: %s/\n",
               local_url(options.host, port, false).c_str());
  std::fprintf(stderr, "HINT:    it talks to %s\n", options.upstream.origin().c_str());
  if (serve::is_loopback(options.host)) return;
  std::fprintf(stderr, "lmd: warning: everybody who reaches %s:%d uses %s%s\n",
               options.host.c_str(), port, options.upstream.origin().c_str(),
               options.api_key.empty() ? "" : ", with the key that was given here");
}

ExitCode run_gateway(const CLI::App& app, ApiServerOptions& o) {
  drop_missing_key(o);
  serve::GatewayOptions options{.upstream = server_url(o.model)};
  require_flags_of_page(app, options.upstream.origin());
  LMD_REQUIRE(o.server.api_keys.size() <= 1, ErrorCode::kConfig,
              "--api-key: one key, that of the server at " + options.upstream.origin());
  if (!o.server.api_keys.empty()) options.api_key = o.server.api_keys.front();
  options.host = o.server.host;
  options.port = o.server.port;
  options.cross_origin = o.server.cross_origin;
  options.connections = o.server.limits.connections;
  options.body_bytes = o.server.limits.body_bytes;
  serve::ServerLog log(STDERR_FILENO, o.is_log_json);
  log.set_level(parse_log_level("--log-level", o.log_level));
  options.log = [&log](const std::string& line) { log.write(LogLevel::kInfo, line); };
  std::signal(SIGPIPE, SIG_IGN);

  boost::asio::io_context io(1);
  serve::PageGateway gateway(io, options, web_files());
  boost::asio::signal_set signals(io, SIGINT, SIGTERM);
  signals.async_wait([&gateway](const boost::system::error_code& error, int) {
    if (!error) gateway.stop();
  });
  gateway.start();
  introduce(options, gateway.port());
  io.run();
  return ExitCode::kOk;
}

}  // namespace

void add_gradio(CLI::App& serve, Action& action) {
  constexpr std::uint16_t kPort = 6006;
  const auto options = std::make_shared<ApiServerOptions>();
  options->server.port = kPort;
  CLI::App& app = *serve.add_subcommand(
      "gradio", "Show the chat page in a browser, for a server that runs or for a model");
  app.alias("webui");
  add_api_server_flags(app, *options);
  app.get_option("MODEL")->description(
      "URL of a server, or a model that is then served as by `lmd serve api_server`");
  app.footer(
      "Before a server only these flags count: --server-name, --server-port, --api-key (the "
      "server's),\n"
      "--allow-origins, --allowed-hosts, --max-connections, --max-body-size, --log-level, "
      "--log-json.\n\n"
      "Examples:\n"
      "  lmd serve gradio http://localhost:23333\n"
      "  lmd serve gradio http://localhost:23333 --server-name 0.0.0.0 --server-port 6006 "
      "--api-key SECRET\n"
      "  lmd serve webui SmolLM2-135M-Instruct\n");
  app.callback([&action, &app, options] {
    action = [&app, options] {
      LMD_REQUIRE(!web_files().files().empty(), ErrorCode::kConfig,
                  "the page is not in this program (-DLMD_WITH_WEBUI=OFF when it was built)");
      LMD_REQUIRE(options->has_pages, ErrorCode::kConfig,
                  "--disable-fastapi-docs: then there is no page, either; leave the flag out");
      return is_server(options->model) ? run_gateway(app, *options) : run_api_server(*options);
    };
  });
}

}  // namespace lmd::apps
