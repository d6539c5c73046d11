/// \file  lmd tokenize: text on standard input -> token ids, and back.
// SPDX-License-Identifier: Apache-2.0
#include <lmd/text/load_tokenizer.hpp>

#include <cstdio>
#include <memory>
#include <string>

#include "commands.hpp"
#include "flags.hpp"
#include "runtime.hpp"
#include "standard_io.hpp"
#include "token_ids.hpp"

namespace lmd::apps {

namespace {

struct TokenizeFlags {
  std::string model;
  bool decodes = false;
  bool has_special = true;
  bool adds_bos = false;
};

ExitCode run_tokenize(const TokenizeFlags& flags) {
  const auto tokenizer = text::load_tokenizer(find_model(flags.model));
  const std::string input = read_standard_input();
  if (flags.decodes) {
    const auto ids = parse_token_ids(input, tokenizer->vocab_size(), "standard input");
    write_standard_output(tokenizer->decode(ids, !flags.has_special));
  } else {
    const auto ids =
        tokenizer->encode(input, {.parse_special = flags.has_special, .add_bos = flags.adds_bos});
    write_standard_output(token_ids_text(ids, " ") + '\n');
  }
  return ExitCode::kOk;
}

}  // namespace

void add_tokenize(CLI::App& root, Action& action) {
  const auto flags = std::make_shared<TokenizeFlags>();
  CLI::App& app = *root.add_subcommand("tokenize", "Turn text into token ids, or ids into text");
  add_model(app, flags->model)->required();
  app.add_flag("--decode", flags->decodes,
               "read ids, between spaces or commas, and print their text as it is");
  app.add_flag("--special,!--no-special", flags->has_special,
               "special tokens count: found in text, shown when decoding (the default); "
               "--no-special: they are plain text, and left out when decoding");
  app.add_flag("--bos", flags->adds_bos, "put the model's BOS token in front, if it has one");
  app.footer(
      "Examples:\n"
      "  echo -n \"Hello world\" | lmd tokenize SmolLM2-135M-Instruct        # 19556 905\n"
      "  echo 19556 905 | lmd tokenize SmolLM2-135M-Instruct --decode\n");
  app.callback([&action, flags] { action = [flags] { return run_tokenize(*flags); }; });
}

}  // namespace lmd::apps
