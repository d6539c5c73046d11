/// \file  The visible line of a test that cannot run here, and where the files lie that tests may lack.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdio>
#include <cstdlib>
#include <string>

#include <sys/stat.h>

namespace lmd::test {

/// Prints `skipped: <what> (<why>)`, a line that scripts/test collects. The caller returns after it.
inline void skip(const std::string& what, const std::string& why) {
  std::printf("skipped: %s (%s)\n", what.c_str(), why.c_str());
}

/// Whether the file is there; if not, says so as a skip of `what`.
[[nodiscard]] inline bool has_file(const std::string& path, const std::string& what) {
  struct stat status {};
  if (::stat(path.c_str(), &status) == 0) return true;
  skip(what, path + " is not there");
  return false;
}

/// The folder of the default model, which scripts/get_default_model fills.
[[nodiscard]] inline std::string default_model_dir() {
  const char* lmd_home = std::getenv("LMD_HOME");
  const char* home = std::getenv("HOME");
  const std::string root = lmd_home != nullptr && *lmd_home != '\0'
                               ? std::string(lmd_home)
                               : std::string(home == nullptr ? "" : home) + "/.cache/lmd";
  return root + "/models/SmolLM2-135M-Instruct";
}

}  // namespace lmd::test
