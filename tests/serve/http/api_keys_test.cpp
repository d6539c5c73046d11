/// \file  Keys: who is let in, and what a file of them may hold.
// SPDX-License-Identifier: Apache-2.0
#include <lmd/serve/http/api_keys.hpp>

#include <filesystem>
#include <fstream>
#include <string>

#include <doctest/doctest.h>
#include <unistd.h>

using namespace lmd;
using serve::ApiKeys;
using serve::bearer_key;

namespace {

/// A file that vanishes.
class KeyFile {
 public:
  explicit KeyFile(const std::string& text)
      : path_(std::filesystem::temp_directory_path() / ("lmd-keys-" + std::to_string(::getpid()))) {
    std::ofstream(path_) << text;
  }
  ~KeyFile() { std::filesystem::remove(path_); }
  std::string path() const { return path_.string(); }

 private:
  std::filesystem::path path_;
};

ErrorCode refusal(const std::vector<std::string>& keys, const std::string& file) {
  try {
    (void)ApiKeys(keys, file);
  } catch (const Error& e) {
    return e.code();
  }
  return ErrorCode::kInternal;
}

}  // namespace

TEST_CASE("a key is known as a whole, and names its client") {
  const ApiKeys keys({"first", "second"}, "");
  CHECK_FALSE(keys.empty());
  CHECK(keys.find("first"));
  CHECK(keys.find("second"));
  CHECK(keys.find("first") == ApiKeys({"first"}, "").find("first"));
  CHECK(keys.find("first") != keys.find("second"));
  for (const char* wrong : {"", "firs", "first ", "First", "firstsecond"})
    CHECK_FALSE(keys.find(wrong));
  CHECK(ApiKeys().empty());
}

TEST_CASE("a file has a key a line") {
  const KeyFile file("# comment\nalpha\r\n\n  \nbeta");
  const ApiKeys keys({}, file.path());
  CHECK(keys.find("alpha"));
  CHECK(keys.find("beta"));
  CHECK_FALSE(keys.find("# comment"));
  CHECK_FALSE(keys.find(""));
}

TEST_CASE("what would let everybody in is refused") {
  CHECK(refusal({""}, "") == ErrorCode::kConfig);
  CHECK(refusal({}, KeyFile("# nothing\n\n").path() + "-absent") == ErrorCode::kIo);
  const KeyFile empty("# nothing\n\n");
  CHECK(refusal({}, empty.path()) == ErrorCode::kConfig);
  CHECK(refusal({"one"}, empty.path()) == ErrorCode::kConfig);
}

TEST_CASE("a key comes behind Bearer") {
  CHECK(bearer_key("Bearer abc") == "abc");
  CHECK(bearer_key("bearer  abc") == "abc");
  CHECK(bearer_key("Basic abc").empty());
  CHECK(bearer_key("Bearer").empty());
  CHECK(bearer_key("Bearer ").empty());
  CHECK(bearer_key("abc").empty());
}
