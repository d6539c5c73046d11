/// \file  lmd eval ppl: the perplexity of a text.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "commands.hpp"

namespace lmd::apps {

void add_perplexity(CLI::App& eval, Action& action);

}  // namespace lmd::apps
