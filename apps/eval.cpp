/// \file  lmd eval: how well a model predicts a text, and what exactly it computes.
// SPDX-License-Identifier: Apache-2.0
#include "commands.hpp"
#include "eval_logits.hpp"
#include "eval_perplexity.hpp"

namespace lmd::apps {

void add_eval(CLI::App& root, Action& action) {
  CLI::App& app = *root.add_subcommand("eval", "Measure a model: perplexity, or its logits");
  app.footer(
      "Examples:\n"
      "  lmd eval ppl SmolLM2-135M-Instruct --text wikitext2.txt --ctx 2048\n"
      "  lmd eval logits SmolLM2-135M-Instruct --ids 504,3575,282,4649,314\n");
  add_perplexity(app, action);
  add_logits(app, action);
}

}  // namespace lmd::apps
