/// \file  The subcommands of `lmd serve`.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "../commands.hpp"

namespace lmd::apps {

void add_api_server(CLI::App& serve, Action& action);
void add_api_client(CLI::App& serve, Action& action);
void add_gradio(CLI::App& serve, Action& action);

}  // namespace lmd::apps
