/// \file  Loading a model with a progress bar.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/core/error.hpp>
#include <lmd/engine/dispatch.hpp>

#include <cstdio>
#include <string>

#include "interrupt.hpp"
#include "progress.hpp"
#include "runtime.hpp"

namespace lmd::apps {

/// From here on Ctrl-C is a question that the work asks. \throws Interrupted, Error.
[[nodiscard]] inline Runtime load_shown(const std::string& model, const RuntimeOptions& options) {
  const std::string folder = find_model(model);
  catch_interrupts();
  Progress progress("loading", ProgressUnit::kBytes);
  Runtime runtime = load_model(folder, options, [&](std::int64_t done, std::int64_t total) {
    progress.update(done, total);
  });
  progress.finish();
  if (!runtime.device_note.empty()) std::fprintf(stderr, "%s\n", runtime.device_note.c_str());
  return runtime;
}

/// Of a model that was loaded with `needs_tokenizer`.
[[nodiscard]] inline const text::Tokenizer& tokenizer_of(const Runtime& runtime) {
  LMD_REQUIRE(runtime.tokenizer != nullptr, ErrorCode::kInternal,
              runtime.folder + ": was loaded without a tokenizer");
  return *runtime.tokenizer;
}

/// The last part of a folder's path: what people call the model.
[[nodiscard]] inline std::string model_name(std::string folder) {
  while (folder.size() > 1 && folder.back() == '/')
    folder.pop_back();
  return folder.substr(folder.find_last_of('/') + 1);
}

/// "16", "8", "4", "k8v4" or "4c"
[[nodiscard]] inline std::string kv_scheme_name(int quant_policy) {
  std::string name;
  engine::with_kv_scheme(quant_policy, [&]<class S>() { name = S::kName; });
  return name;
}

}  // namespace lmd::apps
