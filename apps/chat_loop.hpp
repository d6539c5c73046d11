/// \file  The chat at a terminal.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "chat_partner.hpp"
#include "exit_code.hpp"

namespace lmd::apps {

struct ChatLoopOptions {
  bool needs_double_enter = false;  ///< a message ends with an empty line, as in LMDeploy
};

/// Reads messages and commands from the terminal until the person leaves. Answers go to standard
/// output, everything else to standard error.
[[nodiscard]] ExitCode run_chat_loop(ChatPartner& partner, const ChatLoopOptions& options);

/// Answers once on standard output. \throws Interrupted, Error.
void answer_once(ChatPartner& partner, const std::string& text);

}  // namespace lmd::apps
