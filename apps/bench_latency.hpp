/// \file  lmd bench latency: how soon and how fast one engine answers.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "commands.hpp"

namespace lmd::apps {

void add_latency(CLI::App& bench, Action& action);

}  // namespace lmd::apps
