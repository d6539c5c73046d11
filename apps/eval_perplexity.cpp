/// \file  lmd eval ppl: the perplexity of a text, in windows that do not overlap.
// SPDX-License-Identifier: Apache-2.0
#include "eval_perplexity.hpp"

#include <lmd/core/file.hpp>
#include <lmd/engine/evaluate.hpp>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "engine_flags.hpp"
#include "load_shown.hpp"

namespace lmd::apps {

namespace {

struct PerplexityFlags {
  std::string model;
  std::string text;
  int context = 2048;
  int windows = 0;  ///< 0: all
  RuntimeOptions runtime;
};

struct Likelihood {
  double sum = 0.0;  ///< of -log p
  std::int64_t n = 0;

  [[nodiscard]] double perplexity() const { return std::exp(sum / static_cast<double>(n)); }
};

/// Tokens 1 .. n-1 of a window, predicted from its beginning.
void add_window(engine::Evaluator& evaluator,
                std::span<const int> window,
                Likelihood& likelihood,
                const std::function<void()>& after_each) {
  evaluator.run(window, [&](int position, std::span<float> logits) {
    const auto next = static_cast<std::size_t>(position) + 1;
    if (next < window.size()) {
      likelihood.sum += engine::negative_log_likelihood(logits, window[next]);
      ++likelihood.n;
    }
    after_each();
  });
}

ExitCode run_perplexity(PerplexityFlags& flags) {
  constexpr std::int64_t kMaxTextBytes = std::int64_t{1} << 30;
  const std::string text = read_text_file(flags.text, kMaxTextBytes);
  if (flags.runtime.engine.session_len == 0) flags.runtime.engine.session_len = flags.context;
  flags.runtime.needs_tokenizer = true;
  Runtime runtime = load_shown(flags.model, flags.runtime);
  const std::vector<int> tokens = tokenizer_of(runtime).encode(text);
  const auto context = static_cast<std::size_t>(flags.context);
  std::size_t n_windows = tokens.size() / context;
  LMD_REQUIRE(n_windows > 0, ErrorCode::kConfig,
              flags.text + ": has " + std::to_string(tokens.size()) + " tokens, fewer than --ctx " +
                  std::to_string(context));
  if (flags.windows > 0) n_windows = std::min(n_windows, static_cast<std::size_t>(flags.windows));

  engine::Evaluator evaluator(runtime.engine->executor(), flags.context);
  Likelihood likelihood;
  Progress progress("evaluating", ProgressUnit::kTokens);
  const auto n_tokens = static_cast<std::int64_t>(n_windows * context);
  std::int64_t n_done = 0;
  for (std::size_t w = 0; w < n_windows; ++w) {
    add_window(evaluator, std::span(tokens).subspan(w * context, context), likelihood,
               [&] { progress.update(++n_done, n_tokens); });
  }
  progress.finish();
  const ProgressState& state = progress.state();
  std::printf("%s: %s tokens in %zu windows of %zu, KV scheme %s, %s, %s tokens/s\n",
              model_name(runtime.folder).c_str(), count_text(n_tokens).c_str(), n_windows, context,
              kv_scheme_name(flags.runtime.engine.quant_policy).c_str(),
              seconds_text(state.seconds).c_str(), number_text(state.rate(), 1).c_str());
  std::printf("perplexity %.4f\n", likelihood.perplexity());
  return ExitCode::kOk;
}

}  // namespace

void add_perplexity(CLI::App& eval, Action& action) {
  const auto flags = std::make_shared<PerplexityFlags>();
  flags->runtime.engine.max_batch_size = 1;
  CLI::App& app = *eval.add_subcommand("ppl", "The perplexity of a text");
  add_model(app, flags->model)->required();
  add_text(app, "--text", flags->text, "FILE", "the text; tokenised as a whole, without BOS")
      ->required();
  add_integer(app, "--ctx", flags->context, 2, 1 << 20,
              "tokens of a window; what does not fill one is left out");
  add_integer(app, "--windows", flags->windows, 0, 1 << 30, "only the first N windows; 0: all");
  add_engine_flags(app, flags->runtime);
  app.footer(
      "Examples:\n"
      "  lmd eval ppl SmolLM2-135M-Instruct --text wikitext2.txt --ctx 2048 --quant-policy 4c\n"
      "\nThe last line is `perplexity X`: exp of the mean of -log p over tokens 1 to N-1 of each "
      "window.\n");
  app.callback([&action, flags] { action = [flags] { return run_perplexity(*flags); }; });
}

}  // namespace lmd::apps
