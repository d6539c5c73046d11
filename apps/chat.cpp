/// \file  lmd chat: a conversation with a model, or one answer.
// SPDX-License-Identifier: Apache-2.0
#include <cstdio>
#include <iterator>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "chat_loop.hpp"
#include "chat_session.hpp"
#include "commands.hpp"
#include "engine_flags.hpp"
#include "standard_io.hpp"
#include "terminal.hpp"
#include "units.hpp"
#include <unistd.h>

namespace lmd::apps {

namespace {

struct ChatOptions {
  std::string model;
  std::string model_name;
  RuntimeOptions runtime;
  AnswerSettings settings;
  std::optional<std::string> prompt;
  std::optional<std::string> system;
  std::string capability = "chat";
  bool needs_double_enter = false;
  bool is_verbose = false;
  bool has_temperature = false;
};

/// Model, backend, cache and memory, on standard error.
void introduce(const Runtime& runtime, const ChatOptions& options) {
  const engine::MemoryPlan& plan = runtime.engine->plan();
  const std::string name =
      options.model_name.empty() ? model_name(runtime.folder) : options.model_name;
  std::fprintf(stderr, "%s: %s, KV scheme %s, context %s tokens\n", name.c_str(),
               runtime.backend.c_str(), kv_scheme_name(options.runtime.engine.quant_policy).c_str(),
               count_text(plan.session_len).c_str());
  if (options.is_verbose) {
    std::fputs(engine::to_text(plan).c_str(), stderr);
    return;
  }
  const auto text = [](std::int64_t bytes) { return bytes_text(static_cast<double>(bytes)); };
  std::fprintf(
      stderr,
      "memory: weights %s, open pages %s, sealed pages %s = %s tokens, workspace %s; "
      "together %s of %s\n",
      text(plan.weights).c_str(), text(plan.open_pages).c_str(), text(plan.sealed_pages()).c_str(),
      count_text(plan.n_pages * cache::kPageTokens).c_str(), text(plan.workspace_bytes()).c_str(),
      text(plan.total()).c_str(), text(plan.available).c_str());
}

ExitCode run_chat(ChatOptions& options) {
  const bool is_interactive = !options.prompt && is_terminal(STDIN_FILENO);
  if (!is_interactive && !options.has_temperature) options.settings.temperature = 0.0;
  if (!is_interactive && !options.prompt) options.prompt = read_prompt();
  LMD_REQUIRE(is_interactive || !options.prompt->empty(), ErrorCode::kConfig,
              "there is nothing to answer: the prompt is empty");
  options.runtime.needs_tokenizer = true;
  Runtime runtime = load_shown(options.model, options.runtime);
  if (options.capability == "completion")
    runtime.chat_template.capability = text::Capability::kCompletion;
  introduce(runtime, options);
  ChatSession session(runtime, options.settings, options.system);
  if (!is_interactive) {
    answer_once(session, *options.prompt);
    return ExitCode::kOk;
  }
  return run_chat_loop(session, {options.needs_double_enter});
}

}  // namespace

void add_chat(CLI::App& root, Action& action) {
  const auto options = std::make_shared<ChatOptions>();
  options->runtime.engine.max_batch_size = 1;
  CLI::App& app = *root.add_subcommand("chat", "Talk to a model in the terminal");
  add_model(app, options->model)->required();
  app.add_option("--prompt", options->prompt,
                 "answer this once, greedily unless --temperature is given, and exit; the same "
                 "happens to text on standard input")
      ->type_name("TEXT");
  app.add_option("--system,--meta-instruction", options->system,
                 "the system text; else the template's own")
      ->type_name("TEXT");
  add_choice(app, "--cap", options->capability, {"chat", "completion"},
             "completion: the text goes to the model as it is, without a template");
  app.add_flag("--double-enter", options->needs_double_enter,
               "an empty line ends a message, as in LMDeploy");
  app.add_flag("--verbose", options->is_verbose, "show the whole memory plan");
  add_text(app, "--model-name", options->model_name, "NAME",
           "what to call the model; else its folder's name");
  add_chat_template(app, options->runtime.chat_template);
  add_answer_flags(app, options->settings);
  add_engine_flags(app, options->runtime);
  app.footer(
      "Examples:\n"
      "  lmd chat SmolLM2-135M-Instruct\n"
      "  lmd chat SmolLM2-135M-Instruct --prompt \"What is the capital of France?\"\n"
      "  echo \"Say hello\" | lmd chat ./model --max-new-tokens 20\n"
      "  lmd chat ./internlm2_5-7b-chat-4bit --quant-policy 4 --cache-max-entry-count 0.4\n");
  app.callback([&app, &action, options] {
    options->has_temperature = app.count("--temperature") > 0;
    action = [options] { return run_chat(*options); };
  });
}

}  // namespace lmd::apps
