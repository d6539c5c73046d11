/// \file  Timing an engine under a constant number of requests.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/engine/engine.hpp>

#include <algorithm>
#include <cstdint>
#include <utility>
#include <vector>

#include "interrupt.hpp"
#include "measuring.hpp"
#include "statistics.hpp"

namespace lmd::apps {

struct ThroughputCase {
  int requests = 32;
  int concurrency = 8;  ///< of these, under way at any time
  int prompt_len = 256;
  int gen_len = 64;
};

struct ThroughputRun {
  double seconds = 0.0;  ///< from the first request to the last token
  std::int64_t output_tokens = 0;
  std::vector<double> first_token_s;  ///< of each request, from handing it in
  std::vector<double> gap_s;          ///< between two tokens of a request, all requests together

  [[nodiscard]] double output_tokens_per_s() const {
    return static_cast<double>(output_tokens) / seconds;
  }
  [[nodiscard]] double total_tokens_per_s(const ThroughputCase& c) const {
    const auto prompts = static_cast<double>(c.requests) * c.prompt_len;
    return (prompts + static_cast<double>(output_tokens)) / seconds;
  }
  [[nodiscard]] double requests_per_s(const ThroughputCase& c) const {
    return c.requests / seconds;
  }
};

/// Takes the times of one run. As many requests as may be under way are handed in at first, then one
/// for each that has ended.
class ClosedLoop {
 public:
  ClosedLoop(engine::Engine& engine, const ThroughputCase& c)
      : engine_(&engine), case_(c), last_s_(static_cast<std::size_t>(c.requests), 0.0) {
    run_.first_token_s.resize(last_s_.size(), 0.0);
    run_.gap_s.reserve(last_s_.size() * static_cast<std::size_t>(c.gen_len - 1));
  }

  /// \throws Interrupted.
  [[nodiscard]] ThroughputRun run() {
    watch_ = Stopwatch();
    do {
      while (n_submitted_ < case_.requests && n_submitted_ - n_ended_ < case_.concurrency)
        submit();
      throw_if_interrupted();
    } while (engine_->step());
    run_.seconds = end_s_;
    return std::move(run_);
  }

 private:
  void submit() {
    const int index = n_submitted_++;
    engine::Request request =
        greedy_request(random_prompt(case_.prompt_len, engine_->model().vocab_size,
                                     {case_.prompt_len, case_.concurrency, index}),
                       case_.gen_len);
    const double submitted_s = watch_.seconds();
    (void)engine_->submit(std::move(request), [this, index, submitted_s, is_first = true](
                                                  const engine::TokenEvent& e) mutable {
      require_token(e);
      end_s_ = watch_.seconds();
      ++run_.output_tokens;
      double& last_s = last_s_[static_cast<std::size_t>(index)];
      if (is_first) {
        run_.first_token_s[static_cast<std::size_t>(index)] = end_s_ - submitted_s;
      } else {
        run_.gap_s.push_back(end_s_ - last_s);
      }
      is_first = false;
      last_s = end_s_;
      if (e.finish != engine::FinishReason::kNone) ++n_ended_;
    });
  }

  engine::Engine* engine_;
  ThroughputCase case_;
  Stopwatch watch_;
  ThroughputRun run_;
  std::vector<double> last_s_;  // when each request had its last token so far
  int n_submitted_ = 0;
  int n_ended_ = 0;
  double end_s_ = 0.0;
};

inline constexpr int kShortPrompt = 16;  // tokens, while warming up

/// Tokens of the longest sequence of `warm_up`.
[[nodiscard]] inline int longest_warm_up(const ThroughputCase& c) {
  return std::max(c.prompt_len + 2, std::min(kShortPrompt, c.prompt_len) + c.concurrency + 1);
}

/// Reads a whole prompt and decodes in every number of sequences up to `concurrency`, so that what
/// is made ready at first use is ready. \throws Interrupted.
inline void warm_up(engine::Engine& engine, const ThroughputCase& c) {
  for (int i = 0; i < c.concurrency; ++i) {
    const int n_tokens = i == 0 ? c.prompt_len : std::min(kShortPrompt, c.prompt_len);
    (void)engine.submit(
        greedy_request(random_prompt(n_tokens, engine.model().vocab_size, {c.prompt_len, -1, i}),
                       i + 2),
        require_token);
  }
  while (engine.step())
    throw_if_interrupted();
}

}  // namespace lmd::apps
