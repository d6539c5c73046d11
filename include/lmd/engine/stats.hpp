/// \file  What an engine says of itself.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

namespace lmd::engine {

/// As they were behind the last step; counters are since the start.
struct EngineStats {
  std::int64_t prompt_tokens = 0;  ///< of requests that have started
  std::int64_t reused_tokens = 0;  ///< of these, taken from the prefix tree
  std::int64_t generated_tokens = 0;
  std::int64_t steps = 0;
  std::int64_t computed_tokens = 0;  ///< that steps took in, of prompts and answers
  std::int64_t preemptions = 0;      ///< a sequence gave its memory to older ones
  int running = 0;                   ///< sequences with a slot
  int preempted = 0;                 ///< that have given it back, and wait for another
  int waiting = 0;                   ///< requests that have not started
  std::int64_t waiting_tokens = 0;   ///< of their prompts
  int pages = 0;                     ///< sealed pages, of 64 tokens each
  int free_pages = 0;
  int idle_pages = 0;  ///< free but for the prefix tree, which remembers them
};

}  // namespace lmd::engine
