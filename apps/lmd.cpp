/// \file  The program: finds the subcommand, runs it, and turns what went wrong into one line and an
///        exit status.
// SPDX-License-Identifier: Apache-2.0
#include <lmd/core/config.hpp>
#include <lmd/core/error.hpp>

#include <algorithm>
#include <cstdio>
#include <exception>
#include <memory>
#include <new>
#include <string>
#include <vector>

#include "arguments.hpp"
#include "commands.hpp"
#include "interrupt.hpp"
#include "standard_io.hpp"

namespace lmd::apps {

namespace {

constexpr const char* kExamples =
    "Examples:\n"
    "  lmd chat SmolLM2-135M-Instruct\n"
    "  lmd chat SmolLM2-135M-Instruct --prompt \"What is the capital of France?\"\n"
    "  lmd serve api_client http://localhost:23333\n"
    "  lmd plan ./internlm2_5-7b-chat-4bit --quant-policy 4\n"
    "  lmd COMMAND --help                    flags, defaults and examples of one command\n"
    "\n"
    "A model is a Hugging Face style folder, or the name of one under\n"
    "${LMD_HOME:-~/.cache/lmd}/models. In long flags _ and - are the same.\n"
    "\n";

/// Breaks descriptions between words, so that they stay in their column.
class WrappingFormatter : public CLI::Formatter {
 public:
  std::string make_option_desc(const CLI::Option* option) const override {
    constexpr std::size_t kLine = 100;
    const std::size_t width = kLine - get_column_width();
    std::string text = option->get_description();
    for (std::size_t begin = 0; begin + width < text.size();) {
      const std::size_t space = text.rfind(' ', begin + width);
      if (space == std::string::npos || space <= begin) break;
      text[space] = '\n';
      begin = space + 1;
    }
    return text;
  }
};

void add_commands(CLI::App& root, Action& action) {
  root.option_defaults()->multi_option_policy(CLI::MultiOptionPolicy::TakeLast);
  root.set_help_flag("-h,--help", "this text");
  root.set_version_flag("--version", std::string("lmd ") + kVersion, "the version");
  const auto formatter = std::make_shared<WrappingFormatter>();
  formatter->column_width(34);
  root.formatter(formatter);
  root.footer(kExamples + exit_code_help());
  add_chat(root, action);
#ifdef LMD_WITH_SERVE
  add_serve(root, action);
#endif
  add_convert(root, action);
  add_list(root, action);
  add_plan(root, action);
  add_eval(root, action);
  add_tokenize(root, action);
  add_bench(root, action);
  add_check_env(root, action);
}

/// The chain of commands that was chosen, for "see `lmd eval ppl --help`".
std::string chosen_command(const CLI::App& root) {
  std::string command = root.get_name();
  for (const CLI::App* app = &root; !app->get_subcommands().empty();) {
    app = app->get_subcommands().front();
    command += ' ' + app->get_name();
  }
  return command;
}

/// What the parser says of values that are missing is put into the words of the other messages.
std::string complaint(const CLI::ParseError& error) {
  std::string what = error.what();
  if (error.get_name() != "ArgumentMismatch") return what;
  return what.substr(0, what.find(':')) + ": its value is missing";
}

/// Parses and runs. \throws Error, Interrupted.
ExitCode run(std::vector<std::string> arguments) {
  CLI::App root("Runs large language models on this machine.", "lmd");
  Action action;
  add_commands(root, action);
  try {
    arguments = checked_arguments(root, std::move(arguments));
    std::reverse(arguments.begin(), arguments.end());  // what the parser expects
    root.parse(std::move(arguments));
  } catch (const CLI::CallForHelp&) {
    write_standard_output(root.help());
    return ExitCode::kOk;
  } catch (const CLI::CallForVersion& version) {
    write_standard_output(std::string(version.what()) + '\n');
    return ExitCode::kOk;
  } catch (const CLI::ParseError& e) {
    throw Error(ErrorCode::kConfig, complaint(e) + "; see `" + chosen_command(root) + " --help`");
  }
  if (!action && root.get_subcommands().empty()) {
    std::fputs(root.help().c_str(), stderr);
    return ExitCode::kBadInput;
  }
  LMD_REQUIRE(
      action, ErrorCode::kConfig,
      chosen_command(root) + " needs to be told what; see `" + chosen_command(root) + " --help`");
  const ExitCode code = action();
  write_standard_output("");  // what is still in the buffer must arrive, too
  return code;
}

int status(ExitCode code) {
  return static_cast<int>(code);
}

}  // namespace

}  // namespace lmd::apps

int main(int argc, char** argv) {
  using namespace lmd::apps;
  try {
    return status(run({argv + std::min(argc, 1), argv + argc}));
  } catch (const Interrupted&) {
    std::fputs("lmd: interrupted\n", stderr);
    return status(ExitCode::kInterrupted);
  } catch (const lmd::Error& e) {
    std::fputs(error_text(e.what()).c_str(), stderr);
    return status(exit_code_of(e));
  } catch (const std::bad_alloc&) {
    std::fputs(error_text("out of memory").c_str(), stderr);
    return status(ExitCode::kDoesNotFit);
  } catch (const std::exception& e) {
    std::fputs(error_text(std::string("internal: ") + e.what()).c_str(), stderr);
    return status(ExitCode::kFailure);
  }
}
