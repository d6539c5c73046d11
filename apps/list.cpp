/// \file  lmd list: what lmd can run, and which models are on this machine.
// SPDX-License-Identifier: Apache-2.0
#include <lmd/model/hf_config.hpp>
#include <lmd/quant/kv_formats.hpp>
#include <lmd/quant/weight_format.hpp>

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <string>
#include <vector>

#include "commands.hpp"
#include "runtime.hpp"
#include "terminal.hpp"
#include "units.hpp"

namespace lmd::apps {

namespace {

namespace fs = std::filesystem;

struct FoundModel {
  std::string name;
  std::string text;  ///< architecture and size, or why it cannot be used
};

double folder_bytes(const fs::path& folder) {
  double bytes = 0.0;
  std::error_code error;
  for (const auto& entry : fs::recursive_directory_iterator(folder, error)) {
    if (entry.is_regular_file(error)) bytes += static_cast<double>(entry.file_size(error));
  }
  return bytes;
}

std::vector<FoundModel> find_models(const std::string& folder) {
  std::vector<FoundModel> found;
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(folder, error)) {
    if (!entry.is_directory(error) || !fs::exists(entry.path() / "config.json", error)) continue;
    FoundModel model{entry.path().filename().string(), {}};
    try {
      const model::HfConfig config = model::read_config(entry.path().string());
      const bool is_wrapped = !config.wrapper.empty();
      model.text = (is_wrapped ? config.wrapper : config.model.architecture) + ", " +
                   bytes_text(folder_bytes(entry.path()));
    } catch (const Error& e) {
      model.text = std::string("cannot be used: ") + e.what();
    }
    found.push_back(std::move(model));
  }
  std::sort(found.begin(), found.end(),
            [](const FoundModel& a, const FoundModel& b) { return a.name < b.name; });
  return found;
}

template <class List>
std::string names_of(List list) {
  std::string names;
  for_each_type(list, [&](auto t) { names += std::string(" ") + decltype(t)::type::kName; });
  return names;
}

ExitCode run_list() {
  std::printf("architectures: %s\n", model::kSupportedArchitectures);
  std::printf("weights:      %s\n", names_of(quant::WeightFormats{}).c_str());
  std::printf("KV schemes:   %s\n", names_of(quant::KvSchemes{}).c_str());
  const std::string folder = models_folder();
  const std::vector<FoundModel> found = find_models(folder);
  std::printf("models in %s:%s\n", folder.c_str(), found.empty() ? " none" : "");
  std::size_t width = 0;
  for (const FoundModel& model : found)
    width = std::max(width, model.name.size());
  for (const FoundModel& model : found) {
    std::printf("  %-*s  %s\n", static_cast<int>(width), without_controls(model.name).c_str(),
                without_controls(model.text).c_str());
  }
  return ExitCode::kOk;
}

}  // namespace

void add_list(CLI::App& root, Action& action) {
  CLI::App& app =
      *root.add_subcommand("list", "Show supported architectures and the models on this machine");
  app.footer("Models lie in ${LMD_HOME:-~/.cache/lmd}/models, one folder each.\n");
  app.callback([&action] { action = run_list; });
}

}  // namespace lmd::apps
