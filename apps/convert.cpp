/// \file  lmd convert: a checkpoint -> a Hugging Face style folder.
// SPDX-License-Identifier: Apache-2.0
#include <lmd/core/file.hpp>
#include <lmd/model/convert.hpp>
#include <lmd/model/convert_hf.hpp>

#include <cstdio>
#include <filesystem>
#include <memory>
#include <string>

#include "commands.hpp"
#include "flags.hpp"
#include "gguf_tokenizer.hpp"
#include "interrupt.hpp"
#include "progress.hpp"
#include "runtime.hpp"

namespace lmd::apps {

namespace {

struct ConvertFlags {
  std::string source;
  std::string target;
  std::string dtype = "keep";
};

/// A GGUF file as it was named, or a folder as every subcommand finds it.
bool is_file(const std::string& path) {
  std::error_code ignored;
  return std::filesystem::is_regular_file(path, ignored);
}

void convert_file(const ConvertFlags& flags, const model::Progress& progress) {
  const model::ConvertOptions options{.dtype = model::convert_dtype_named(flags.dtype)};
  { const model::GgufFile checked(flags.source); }
  writing([&] {
    model::convert_gguf(flags.source, flags.target, options, write_gguf_tokenizer, progress);
  });
}

void convert_folder(const ConvertFlags& flags, const model::Progress& progress) {
  const std::string folder = find_model(flags.source);
  const auto dtype = model::convert_dtype_named(flags.dtype);
  LMD_REQUIRE(dtype.has_value(), ErrorCode::kConfig,
              folder +
                  ": is a Hugging Face folder, which loads as it is; name a --dtype to convert "
                  "it to: float16 bfloat16 float32");
  (void)model::read_config(folder);
  { const model::SafetensorsModel checked(folder); }
  writing([&] { model::convert_hf(folder, flags.target, *dtype, progress); });
}

ExitCode run_convert(const ConvertFlags& flags) {
  catch_interrupts();
  Progress bar("converting", ProgressUnit::kBytes);
  const auto progress = [&](std::int64_t done, std::int64_t total) { bar.update(done, total); };
  if (is_file(flags.source)) {
    convert_file(flags, progress);
  } else {
    convert_folder(flags, progress);
  }
  bar.finish();
  std::printf("%s: %s written\n", flags.target.c_str(),
              bytes_text(static_cast<double>(bar.state().done)).c_str());
  return ExitCode::kOk;
}

}  // namespace

void add_convert(CLI::App& root, Action& action) {
  const auto flags = std::make_shared<ConvertFlags>();
  CLI::App& app = *root.add_subcommand(
      "convert", "Make a Hugging Face style folder of a GGUF file or a folder");
  app.add_option("SRC", flags->source, "a GGUF file, or a model's folder or name")
      ->type_name("")
      ->required();
  app.add_option("DST", flags->target, "the folder to make; must not exist, or be empty")
      ->type_name("")
      ->required();
  add_choice(app, "--dtype", flags->dtype, {"keep", "float16", "bfloat16", "float32"},
             "keep: 4-bit and 8-bit codes stay what they are; else every weight becomes this");
  app.footer(
      "Examples:\n"
      "  lmd convert SmolLM2-135M-Instruct.Q4_1.gguf ~/.cache/lmd/models/SmolLM2-135M-Instruct\n"
      "  lmd convert ./internlm2_5-7b-chat-4bit ./internlm2_5-7b-chat-f16 --dtype float16\n"
      "\nNothing is ever half there: the folder appears under its name when it is complete.\n");
  app.callback([&action, flags] { action = [flags] { return run_convert(*flags); }; });
}

}  // namespace lmd::apps
