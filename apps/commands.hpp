/// \file  The subcommands: each adds its flags to the parser and, when chosen, sets what will run.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>

#include "exit_code.hpp"
#include <CLI/CLI.hpp>

namespace lmd::apps {

/// Runs a subcommand after everything was parsed. \throws Error, Interrupted.
using Action = std::function<ExitCode()>;

void add_chat(CLI::App& root, Action& action);
void add_convert(CLI::App& root, Action& action);
void add_list(CLI::App& root, Action& action);
void add_check_env(CLI::App& root, Action& action);
void add_plan(CLI::App& root, Action& action);
void add_eval(CLI::App& root, Action& action);
void add_tokenize(CLI::App& root, Action& action);
void add_bench(CLI::App& root, Action& action);
#ifdef LMD_WITH_SERVE
void add_serve(CLI::App& root, Action& action);
#endif

}  // namespace lmd::apps
