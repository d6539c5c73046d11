/// \file  lmd eval logits: what the model computes for given tokens, for comparison with others.
// SPDX-License-Identifier: Apache-2.0
#include "eval_logits.hpp"

#include <lmd/engine/evaluate.hpp>
#include <lmd/engine/request.hpp>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <memory>
#include <numeric>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "engine_flags.hpp"
#include "load_shown.hpp"
#include "npy.hpp"
#include "standard_io.hpp"
#include "token_ids.hpp"

namespace lmd::apps {

namespace {

struct LogitsFlags {
  std::string model;
  std::optional<std::string> ids;
  std::optional<std::string> prompt;
  bool is_raw = false;
  int top = 10;
  std::string npy;
  RuntimeOptions runtime;
};

std::vector<int> ids_of(const LogitsFlags& flags, const Runtime& runtime) {
  if (flags.ids) return parse_token_ids(*flags.ids, runtime.config.model.vocab_size, "--ids");
  const text::Tokenizer& tokenizer = tokenizer_of(runtime);
  std::string text = *flags.prompt;
  if (!flags.is_raw) {
    const text::Message message{.role = "user", .content = text, .name = {}, .tool_calls = {}};
    text = text::render(runtime.chat_template, {&message, 1});
  }
  return tokenizer.encode(text, {.add_bos = tokenizer.adds_bos()});
}

/// The `n` largest, best first; equal ones by id.
std::vector<int> best_ids(std::span<const float> logits, int n) {
  std::vector<int> order(logits.size());
  std::iota(order.begin(), order.end(), 0);
  const auto end = order.begin() + std::min<std::ptrdiff_t>(n, std::ssize(order));
  std::partial_sort(order.begin(), end, order.end(), [&](int a, int b) {
    return logits[a] > logits[b] || (logits[a] == logits[b] && a < b);
  });
  order.erase(end, order.end());
  return order;
}

/// The shortest digits that are this float again.
std::string float_text(float value) {
  char text[32];
  return {text, std::to_chars(text, text + sizeof text, value).ptr};
}

/// \throws Error(kInternal) for logits that JSON has no form for.
std::string report(std::span<const int> ids, std::span<const float> logits, int n_top) {
  LMD_REQUIRE(std::ranges::all_of(logits, [](float x) { return std::isfinite(x); }),
              ErrorCode::kInternal, engine::kNotANumber);
  std::string json = "{\"ids\": [" + token_ids_text(ids, ", ") + "], \"top\": [";
  const char* between = "";
  for (const int id : best_ids(logits, n_top)) {
    json += std::string(between) + '[' + std::to_string(id) + ", " + float_text(logits[id]) + ']';
    between = ", ";
  }
  return json + "]}\n";
}

ExitCode run_logits(LogitsFlags& flags) {
  LMD_REQUIRE(flags.ids.has_value() != flags.prompt.has_value(), ErrorCode::kConfig,
              "give either --ids 1,2,3 or --prompt TEXT");
  LMD_REQUIRE(!flags.is_raw || flags.prompt, ErrorCode::kConfig,
              "--raw is for --prompt: --ids go to the model as they are");
  flags.runtime.needs_tokenizer = flags.prompt.has_value();
  Runtime runtime = load_shown(flags.model, flags.runtime);
  const std::vector<int> ids = ids_of(flags, runtime);
  const int n = static_cast<int>(ids.size());
  const int session_len = runtime.engine->plan().session_len;
  LMD_REQUIRE(n > 0, ErrorCode::kConfig, "the prompt has no tokens");
  LMD_REQUIRE(n <= session_len, ErrorCode::kCapacity,
              "the prompt has " + std::to_string(n) + " tokens, the session takes " +
                  std::to_string(session_len));
  std::optional<NpyFile> npy;
  if (!flags.npy.empty())
    writing([&] { npy.emplace(flags.npy, n, runtime.config.model.vocab_size); });
  Progress progress("evaluating", ProgressUnit::kTokens);
  std::string json;
  engine::Evaluator evaluator(runtime.engine->executor(), n);
  evaluator.run(ids, [&](int position, std::span<float> logits) {
    if (npy) writing([&] { npy->write(logits); });
    if (position == n - 1) json = report(ids, logits, flags.top);
    progress.update(position + 1, n);
  });
  progress.finish();
  if (npy) writing([&] { npy->commit(); });
  write_standard_output(json);
  return ExitCode::kOk;
}

}  // namespace

void add_logits(CLI::App& eval, Action& action) {
  const auto flags = std::make_shared<LogitsFlags>();
  flags->runtime.engine.max_batch_size = 1;
  CLI::App& app = *eval.add_subcommand("logits", "The logits after given tokens, as JSON");
  add_model(app, flags->model)->required();
  app.add_option("--ids", flags->ids, "token ids, between commas or spaces")->type_name("IDS");
  app.add_option("--prompt", flags->prompt, "a text, put into the chat template")
      ->type_name("TEXT");
  app.add_flag("--raw", flags->is_raw, "the prompt goes to the model as it is");
  add_integer(app, "--top", flags->top, 1, 1'000'000, "how many of the largest logits to print");
  add_text(app, "--npy", flags->npy, "FILE",
           "write the logits of every position, float32 [tokens, vocabulary]");
  add_chat_template(app, flags->runtime.chat_template);
  add_engine_flags(app, flags->runtime);
  app.footer(
      "Examples:\n"
      "  lmd eval logits SmolLM2-135M-Instruct --ids 504,3575,282,4649,314 --top 3\n"
      "  lmd eval logits SmolLM2-135M-Instruct --prompt \"2+2=\" --raw --npy logits.npy\n"
      "\nPrints {\"ids\": [...], \"top\": [[id, logit], ...]} of the last position.\n");
  app.callback([&action, flags] { action = [flags] { return run_logits(*flags); }; });
}

}  // namespace lmd::apps
