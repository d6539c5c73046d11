/// \file  lmd bench serve: load for any OpenAI-compatible server.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "../commands.hpp"

namespace lmd::apps {

void add_bench_serve(CLI::App& bench, Action& action);

}  // namespace lmd::apps
