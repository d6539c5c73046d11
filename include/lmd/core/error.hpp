/// \file  Exceptions thrown by the host API and the macro that raises them.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <stdexcept>
#include <string>

namespace lmd {

/// What went wrong, stable across releases: callers may switch on it.
enum class ErrorCode {
  kConfig = 1,  ///< a flag, a configuration value or an argument is not usable
  kIo,          ///< a file cannot be opened, read or written
  kFormat,      ///< a file's content is damaged or not what its format says
  kCapacity,    ///< it would not fit into memory, or into the model's context
  kCuda,        ///< a CUDA call failed
  kInternal,    ///< lmd is wrong: please report it
  kBusy,        ///< too much is waiting already: later it would work
};

/// The message is one line: what was wrong, the value found, what would have been right.
class Error : public std::runtime_error {
 public:
  Error(ErrorCode code, const std::string& what) : std::runtime_error(what), code_(code) {}
  [[nodiscard]] ErrorCode code() const noexcept { return code_; }

 private:
  ErrorCode code_;
};

}  // namespace lmd

/// Throws Error(code, msg) unless `cond` holds. `msg` is evaluated only then.
#define LMD_REQUIRE(cond, code, msg)     \
  do {                                   \
    if (!(cond)) {                       \
      throw ::lmd::Error((code), (msg)); \
    }                                    \
  } while (false)
