/// \file  lmd eval logits: what the model computes for given tokens.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "commands.hpp"

namespace lmd::apps {

void add_logits(CLI::App& eval, Action& action);

}  // namespace lmd::apps
