/// \file  What the program's exit status means: the one table.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/core/error.hpp>
#include <lmd/serve/client_error.hpp>

#include <string>

namespace lmd::apps {

enum class ExitCode {
  kOk = 0,
  kFailure = 1,
  kBadInput = 2,
  kDoesNotFit = 3,
  kNoServer = 4,
  kServerError = 5,
  kNoAccess = 6,
  kBrokenOff = 7,
  kEngineFailed = 70,  ///< EX_SOFTWARE
  kInterrupted = 130,  ///< 128 + SIGINT, as a shell reports it
};

struct ExitCodeText {
  ExitCode code;
  const char* meaning;
};

inline constexpr ExitCodeText kExitCodes[] = {
    {ExitCode::kOk, "done"},
    {ExitCode::kFailure, "failed while running: lmd itself, or writing"},
    {ExitCode::kBadInput, "bad input: a flag, a file, a configuration or a format"},
    {ExitCode::kDoesNotFit, "does not fit into memory or into the model's context"},
    {ExitCode::kNoServer, "a server that cannot be reached, or does not answer in time"},
    {ExitCode::kServerError, "a server that answers with an error, or not as it should"},
    {ExitCode::kNoAccess, "a server that wants an API key, or another one"},
    {ExitCode::kBrokenOff, "an answer that broke off and could not be taken up again"},
    {ExitCode::kEngineFailed, "a server whose engine failed for good; start it again"},
    {ExitCode::kInterrupted, "interrupted"},
};

/// A file, or standard output, that could not be written: the input was not at fault.
class WriteError : public Error {
 public:
  explicit WriteError(const std::string& what) : Error(ErrorCode::kIo, what) {}
};

/// Runs `f`, which writes files and has its input open already: what the system refuses then
/// becomes a WriteError.
template <class F>
void writing(F&& f) {
  try {
    f();
  } catch (const Error& e) {
    if (e.code() == ErrorCode::kIo) throw WriteError(e.what());
    throw;
  }
}

[[nodiscard]] inline ExitCode exit_code_of(serve::ClientFailure failure) {
  switch (failure) {
    case serve::ClientFailure::kResolve:
    case serve::ClientFailure::kConnect:
    case serve::ClientFailure::kTls:
    case serve::ClientFailure::kTimeout:
      return ExitCode::kNoServer;
    case serve::ClientFailure::kCut:
      return ExitCode::kBrokenOff;
    case serve::ClientFailure::kKey:
      return ExitCode::kNoAccess;
    case serve::ClientFailure::kCancelled:
      return ExitCode::kInterrupted;
    case serve::ClientFailure::kTooLarge:
    case serve::ClientFailure::kProtocol:
    case serve::ClientFailure::kStatus:
      break;
  }
  return ExitCode::kServerError;
}

[[nodiscard]] inline ExitCode exit_code_of(const Error& error) {
  if (dynamic_cast<const WriteError*>(&error) != nullptr) return ExitCode::kFailure;
  const auto* client = dynamic_cast<const serve::ClientError*>(&error);
  if (client != nullptr) return exit_code_of(client->kind());
  switch (error.code()) {
    case ErrorCode::kConfig:
    case ErrorCode::kIo:
    case ErrorCode::kFormat:
      return ExitCode::kBadInput;
    case ErrorCode::kCapacity:
      return ExitCode::kDoesNotFit;
    case ErrorCode::kCuda:
    case ErrorCode::kInternal:
    case ErrorCode::kBusy:
      break;
  }
  return ExitCode::kFailure;
}

/// The message of an error as it is printed: a table that precedes the last line stays above it.
[[nodiscard]] inline std::string error_text(const std::string& what) {
  const std::size_t end = what.find_last_not_of('\n');
  const std::size_t line = what.find_last_of('\n', end);
  const std::size_t begin = line == std::string::npos ? 0 : line + 1;
  return what.substr(0, begin) + "lmd: error: " + what.substr(begin, end + 1 - begin) + '\n';
}

/// For `lmd --help`.
[[nodiscard]] inline std::string exit_code_help() {
  std::string text = "Exit status:\n";
  for (const ExitCodeText& row : kExitCodes) {
    const std::string number = std::to_string(static_cast<int>(row.code));
    text += "  " + number + std::string(6 - number.size(), ' ') + row.meaning + '\n';
  }
  return text;
}

}  // namespace lmd::apps
