/// \file  A folder that appears under its name only when it is complete.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/core/error.hpp>

#include <filesystem>
#include <string>
#include <system_error>
#include <utility>

#include <unistd.h>

namespace lmd::model {

/// Written beside its final name and renamed by `commit`; removed if the object dies before.
///
/// An existing folder is only taken when it is empty: what lies in a full one may be somebody's.
class NewFolder {
 public:
  /// \throws Error(kConfig) when `path` exists and is not an empty folder, Error(kIo).
  explicit NewFolder(std::string path) : path_(std::move(path)) {
    while (path_.size() > 1 && path_.back() == '/')
      path_.pop_back();
    require_free();
    partial_ = path_ + ".partial-" + std::to_string(::getpid());
    std::error_code error;
    const std::filesystem::path parent = std::filesystem::path(path_).parent_path();
    if (!parent.empty()) std::filesystem::create_directories(parent, error);
    const bool created = !error && std::filesystem::create_directory(partial_, error);
    LMD_REQUIRE(created, ErrorCode::kIo,
                partial_ + ": cannot be created: " + (error ? error.message() : "it exists"));
    is_open_ = true;
  }
  NewFolder(const NewFolder&) = delete;
  NewFolder& operator=(const NewFolder&) = delete;
  ~NewFolder() {
    std::error_code ignored;
    if (is_open_) std::filesystem::remove_all(partial_, ignored);
  }

  /// Where to write until `commit`.
  [[nodiscard]] const std::string& partial_path() const { return partial_; }

  /// \throws Error(kIo), Error(kConfig) when the name was taken meanwhile.
  void commit() {
    require_free();
    std::error_code error;
    std::filesystem::rename(partial_, path_, error);
    LMD_REQUIRE(!error, ErrorCode::kIo, path_ + ": cannot be put in place: " + error.message());
    is_open_ = false;
  }

 private:
  void require_free() const {
    std::error_code error;
    const auto status = std::filesystem::symlink_status(path_, error);
    if (!std::filesystem::exists(status)) return;
    const bool is_empty_folder =
        std::filesystem::is_directory(status) && std::filesystem::is_empty(path_, error) && !error;
    LMD_REQUIRE(is_empty_folder, ErrorCode::kConfig,
                path_ + ": already exists and is not an empty folder; remove it or name another");
  }

  std::string path_;
  std::string partial_;
  bool is_open_ = false;
};

}  // namespace lmd::model
