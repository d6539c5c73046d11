/// \file  Reading stays inside the file; writing is all or nothing.
// SPDX-License-Identifier: Apache-2.0
#include <lmd/core/file.hpp>

#include <cstdlib>
#include <filesystem>
#include <string>

#include <doctest/doctest.h>
#include <sys/stat.h>

namespace {

namespace fs = std::filesystem;

/// A folder that dies with the test.
struct TemporaryFolder {
  TemporaryFolder() {
    std::string pattern = (fs::temp_directory_path() / "lmd-test-XXXXXX").string();
    path = ::mkdtemp(pattern.data());
  }
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;
  ~TemporaryFolder() { fs::remove_all(path); }

  fs::path path;
};

lmd::ErrorCode code_of_read(const lmd::File& file, std::int64_t offset, std::int64_t n) {
  char bytes[16] = {};
  try {
    file.read(offset, bytes, n);
  } catch (const lmd::Error& e) {
    return e.code();
  }
  return lmd::ErrorCode{};
}

}  // namespace

TEST_CASE("a new file appears on commit, and only then") {
  const TemporaryFolder folder;
  const std::string path = (folder.path / "out").string();
  {
    lmd::NewFile file(path);
    file.write("abc");
    CHECK_FALSE(fs::exists(path));
    file.write("def");
    file.commit();
  }
  CHECK(lmd::read_text_file(path, 6) == "abcdef");
  CHECK(std::distance(fs::directory_iterator(folder.path), {}) == 1);
}

TEST_CASE("a new file that is not committed leaves what was there, and nothing beside it") {
  const TemporaryFolder folder;
  const std::string path = (folder.path / "out").string();
  {
    lmd::NewFile file(path);
    file.write("old");
    file.commit();
  }
  {
    lmd::NewFile file(path);
    file.write("half of the new");
  }
  CHECK(lmd::read_text_file(path, 100) == "old");
  CHECK(std::distance(fs::directory_iterator(folder.path), {}) == 1);
}

TEST_CASE("reading refuses what lies outside the file") {
  const TemporaryFolder folder;
  const std::string path = (folder.path / "in").string();
  lmd::NewFile out(path);
  out.write("0123456789");
  out.commit();

  const lmd::File file(path);
  CHECK(file.size() == 10);
  CHECK(code_of_read(file, 0, 10) == lmd::ErrorCode{});
  CHECK(code_of_read(file, 10, 0) == lmd::ErrorCode{});
  CHECK(code_of_read(file, 1, 10) == lmd::ErrorCode::kFormat);
  CHECK(code_of_read(file, 11, 0) == lmd::ErrorCode::kFormat);
  CHECK(code_of_read(file, -1, 1) == lmd::ErrorCode::kFormat);
  CHECK(code_of_read(file, INT64_MAX, INT64_MAX) == lmd::ErrorCode::kFormat);
  char bytes[3] = {};
  file.read(7, bytes, 3);
  CHECK(std::string(bytes, 3) == "789");
}

TEST_CASE("what cannot be read is named") {
  const TemporaryFolder folder;
  CHECK_THROWS_WITH_AS(lmd::File("/nowhere/x"), "/nowhere/x: No such file or directory",
                       lmd::Error);
  CHECK_THROWS_WITH_AS(lmd::File(folder.path.string()),
                       (folder.path.string() + ": not a regular file").c_str(), lmd::Error);
  CHECK_THROWS_AS(lmd::NewFile("/nowhere/x"), lmd::Error);
}

TEST_CASE("what is no file is refused at once") {
  const TemporaryFolder folder;
  const std::string pipe = (folder.path / "pipe").string();
  REQUIRE(::mkfifo(pipe.c_str(), 0600) == 0);  // opening it would wait for a writer
  CHECK_THROWS_WITH_AS(lmd::File{pipe}, (pipe + ": not a regular file").c_str(), lmd::Error);
  CHECK(lmd::is_there(pipe));
  CHECK_FALSE(lmd::is_there(pipe + "s"));
  CHECK_FALSE(lmd::is_there("/dev/null/x"));
}

TEST_CASE("a text file larger than allowed is refused before it is read") {
  const TemporaryFolder folder;
  const std::string path = (folder.path / "in").string();
  lmd::NewFile out(path);
  out.write("0123456789");
  out.commit();
  CHECK(lmd::read_text_file(path, 10) == "0123456789");
  CHECK_THROWS_WITH_AS((void)lmd::read_text_file(path, 9),
                       (path + ": has 10 bytes, at most 9 are read").c_str(), lmd::Error);
}
