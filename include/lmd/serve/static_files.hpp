/// \file  Files that are part of the program: the page that the server shows, and what it loads.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <span>
#include <string_view>

namespace lmd::serve {

/// A file as the program holds it. Every view lasts as long as the program.
struct StaticFile {
  std::string_view path;          ///< of the URL: "/", "/assets/app.3f2a9c.js"
  std::string_view content_type;  ///< "text/html; charset=utf-8"
  std::string_view bytes;
  std::string_view gzip_bytes = {};  ///< the same compressed; empty: there is none
  std::string_view etag = {};        ///< without quotes; empty: none is sent
  bool is_immutable = false;  ///< its path changes with its content: browsers keep it for a year
};

/// Files by path. No path is ever joined with a folder: what is not listed is not there.
class StaticFiles {
 public:
  constexpr StaticFiles() = default;
  constexpr explicit StaticFiles(std::span<const StaticFile> files) : files_(files) {}

  [[nodiscard]] constexpr std::span<const StaticFile> files() const { return files_; }

  /// Null: none.
  [[nodiscard]] constexpr const StaticFile* find(std::string_view path) const {
    for (const StaticFile& file : files_) {
      if (file.path == path) return &file;
    }
    return nullptr;
  }

 private:
  std::span<const StaticFile> files_;
};

}  // namespace lmd::serve
