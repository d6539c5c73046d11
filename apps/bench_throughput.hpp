/// \file  lmd bench throughput: what one engine does under a constant number of requests.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "commands.hpp"

namespace lmd::apps {

void add_throughput(CLI::App& bench, Action& action);

}  // namespace lmd::apps
