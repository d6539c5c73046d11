/// \file  What the tests of text share: golden files, hexadecimal, folders that vanish, errors.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/core/error.hpp>
#include <lmd/core/file.hpp>
#include <lmd/json/json.hpp>

#include <algorithm>
#include <ctime>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include <doctest/doctest.h>
#include <unistd.h>

namespace text_support {

/// Large golden files beside the tree; absent in most checkouts.
inline const std::string kShared = LMD_SHARED_DATA;
inline const std::string kGolden = std::string(LMD_TEST_DATA) + "/text/golden";

/// False, with a visible line, when a file of the shared data is missing.
inline bool has_shared(const std::string& name) {
  const bool is_there = std::filesystem::exists(kShared + "/" + name);
  if (!is_there) MESSAGE("skipped: ", kShared, "/", name, " is missing");
  return is_there;
}

inline std::string from_hex(std::string_view hex) {
  std::string bytes;
  for (std::size_t i = 0; i + 1 < hex.size(); i += 2) {
    bytes.push_back(static_cast<char>(std::stoi(std::string(hex.substr(i, 2)), nullptr, 16)));
  }
  return bytes;
}

/// A folder of its own, removed with its content.
class Folder {
 public:
  Folder() {
    std::string path = (std::filesystem::temp_directory_path() / "lmd-text-XXXXXX").string();
    REQUIRE(::mkdtemp(path.data()) != nullptr);
    path_ = path;
  }
  Folder(const Folder&) = delete;
  Folder& operator=(const Folder&) = delete;
  ~Folder() { std::filesystem::remove_all(path_); }

  const std::string& path() const { return path_; }
  void write(const std::string& name, std::string_view content) const {
    lmd::NewFile file(path_ + "/" + name);
    file.write(content);
    file.commit();
  }

 private:
  std::string path_;
};

struct Failure {
  bool has_failed = false;
  lmd::ErrorCode code = lmd::ErrorCode::kInternal;
  std::string message;
};

/// Whether a message can go to a terminal as it is, whatever the file that it is about holds.
inline bool is_one_safe_line(std::string_view message) {
  const auto is_control = [](char c) { return (c >= 0 && c < 32) || c == 127; };
  return message.size() < 1000 && std::none_of(message.begin(), message.end(), is_control);
}

/// The lmd::Error that `f` throws; any other exception goes through and fails the test, and so does a
/// message that is no single line.
template <class F>
Failure failure_of(F&& f) {
  try {
    f();
  } catch (const lmd::Error& e) {
    CHECK_MESSAGE(is_one_safe_line(e.what()), std::string_view(e.what()).substr(0, 2000));
    return {true, e.code(), e.what()};
  }
  return {};
}

inline bool contains(std::string_view text, std::string_view part) {
  return text.find(part) != std::string_view::npos;
}

/// Seconds of processor time: other work on the machine does not count.
inline double cpu_seconds() {
  return static_cast<double>(std::clock()) / CLOCKS_PER_SEC;
}

/// n log2 n microseconds for n = 10^6: 5 times what the slowest run took under a sanitizer, and a
/// thousandth of what quadratic time would take.
inline constexpr double kMaxSecondsOfMillion = 20;

}  // namespace text_support
