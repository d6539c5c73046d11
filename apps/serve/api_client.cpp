/// \file  lmd serve api_client: a conversation with a model on a server, or one answer.
// SPDX-License-Identifier: Apache-2.0
#include <chrono>
#include <cstdio>
#include <memory>
#include <optional>
#include <string>

#include "../chat_loop.hpp"
#include "../flags.hpp"
#include "../interrupt.hpp"
#include "../standard_io.hpp"
#include "../terminal.hpp"
#include "remote_session.hpp"
#include "serve_commands.hpp"
#include <unistd.h>

namespace lmd::apps {

namespace {

struct ApiClientFlags {
  std::string url;
  RemoteOptions remote;
  AnswerSettings settings;
  std::optional<std::string> prompt;
  std::optional<std::string> system;
  bool needs_double_enter = false;
  double timeout_s = 300.0;
};

ExitCode run_api_client(ApiClientFlags& flags) {
  const bool is_interactive = !flags.prompt && is_terminal(STDIN_FILENO);
  if (!is_interactive && flags.settings.given.count("temperature") == 0)
    flags.settings.temperature = 0.0;
  RemoteOptions& remote = flags.remote;
  remote.base = api_base(flags.url);
  if (remote.key.empty()) remote.key = environment("OPENAI_API_KEY");
  remote.limits.idle = remote.limits.head =
      std::chrono::milliseconds(static_cast<std::int64_t>(1e3 * flags.timeout_s));
  if (!is_interactive && !flags.prompt) flags.prompt = read_prompt();
  LMD_REQUIRE(is_interactive || !flags.prompt->empty(), ErrorCode::kConfig,
              "there is nothing to answer: the prompt is empty");
  catch_interrupts();
  RemoteSession session(remote, flags.settings, flags.system);
  const std::string model = session.model();
  std::fprintf(stderr, "%s at %s\n", without_controls(model).c_str(), remote.base.origin().c_str());
  if (!is_interactive) {
    answer_once(session, *flags.prompt);
    return ExitCode::kOk;
  }
  return run_chat_loop(session, {flags.needs_double_enter});
}

}  // namespace

void add_api_client(CLI::App& serve, Action& action) {
  const auto flags = std::make_shared<ApiClientFlags>();
  CLI::App& app =
      *serve.add_subcommand("api_client", "Talk to a model on an OpenAI-compatible server");
  app.add_option("URL", flags->url, "the server's address, as http://localhost:23333")
      ->type_name("")
      ->required();
  add_text(app, "--api-key", flags->remote.key, "KEY", "the key; else that of OPENAI_API_KEY");
  add_text(app, "--model", flags->remote.model, "NAME",
           "the model's name there; else the first of /v1/models");
  app.add_option("--prompt", flags->prompt,
                 "answer this once, greedily unless --temperature is given, and exit; the same "
                 "happens to text on standard input")
      ->type_name("TEXT");
  app.add_option("--system,--meta-instruction", flags->system,
                 "the system text; else the server's own")
      ->type_name("TEXT");
  app.add_flag("--double-enter", flags->needs_double_enter,
               "an empty line ends a message, as in LMDeploy");
  add_integer(app, "--retries", flags->remote.retries, 0, 100,
              "how often an answer that broke off is taken up again");
  add_number(app, "--timeout", flags->timeout_s, 0.1, 86400,
             "seconds to wait for an answer's beginning, and for each next piece");
  add_integer<std::int64_t>(app, "--session-id", flags->remote.session_id, 1, INT64_MAX,
                            "the session on servers that have only /v1/chat/interactive "
                            "(LMDeploy before 0.10); no effect on others");
  add_answer_flags(app, flags->settings);
  app.footer(
      "Examples:\n"
      "  lmd serve api_client http://localhost:23333\n"
      "  lmd serve api_client http://localhost:23333 --api-key internlm2\n"
      "  echo \"Say hello\" | lmd serve api_client https://example.com/v1 --model m\n"
      "\n"
      "Exit status: 4 when the server cannot be reached, 5 when it answers with an error, 6 when "
      "it\n"
      "wants a key, 7 when the answer broke off and could not be taken up again. Standard output\n"
      "has the answer alone.\n");
  app.callback([&action, flags] { action = [flags] { return run_api_client(*flags); }; });
}

}  // namespace lmd::apps
