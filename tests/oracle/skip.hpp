/// \file  The visible line of a test that cannot run here. The test runner collects these lines.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdio>
#include <string>
#include <sys/stat.h>

namespace lmd::test {

/// Prints `skipped: <what> (<why>)`. The caller returns after it.
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

}  // namespace lmd::test
