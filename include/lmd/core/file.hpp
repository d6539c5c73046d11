/// \file  Files: read by pread into owned memory, written beside and renamed.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/core/error.hpp>

#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <string>
#include <string_view>
#include <utility>

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

namespace lmd {

/// Whether something has this name. What cannot be looked at counts: opening it says why.
[[nodiscard]] inline bool is_there(const std::string& path) {
  struct stat st {};
  return ::stat(path.c_str(), &st) == 0 || (errno != ENOENT && errno != ENOTDIR);
}

/// An open file of known size. It is read, never mapped: reading a file that another process cuts
/// short is an error here, and would be SIGBUS under a map.
class File {
 public:
  /// \throws Error(kIo) when `path` cannot be opened or is not a regular file.
  explicit File(std::string path) : path_(std::move(path)) {
    // Without O_NONBLOCK, opening a pipe waits for somebody who writes.
    fd_ = ::open(path_.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    LMD_REQUIRE(fd_ >= 0, ErrorCode::kIo, path_ + ": " + std::strerror(errno));
    struct stat st {};
    const bool is_file = ::fstat(fd_, &st) == 0 && S_ISREG(st.st_mode);
    if (!is_file) {
      ::close(fd_);
      throw Error(ErrorCode::kIo, path_ + ": not a regular file");
    }
    size_ = st.st_size;
  }
  File(File&& other) noexcept
      : path_(std::move(other.path_)), fd_(std::exchange(other.fd_, -1)), size_(other.size_) {}
  File(const File&) = delete;
  File& operator=(const File&) = delete;
  File& operator=(File&&) = delete;
  ~File() {
    if (fd_ >= 0) ::close(fd_);
  }

  [[nodiscard]] const std::string& path() const { return path_; }
  [[nodiscard]] std::int64_t size() const { return size_; }

  /// Copies bytes [offset, offset + n) to `to`.
  /// \throws Error(kFormat) when the file ends before, Error(kIo) when reading fails.
  void read(std::int64_t offset, void* to, std::int64_t n) const {
    LMD_REQUIRE(offset >= 0 && n >= 0 && offset <= size_ && n <= size_ - offset, ErrorCode::kFormat,
                path_ + ": ends at byte " + std::to_string(size_) + ", expected " +
                    std::to_string(n) + " bytes at " + std::to_string(offset));
    auto* at = static_cast<char*>(to);
    while (n > 0) {
      const ssize_t got = ::pread(fd_, at, static_cast<std::size_t>(n), offset);
      if (got < 0 && errno == EINTR) continue;
      LMD_REQUIRE(got >= 0, ErrorCode::kIo, path_ + ": " + std::strerror(errno));
      LMD_REQUIRE(got > 0, ErrorCode::kFormat,
                  path_ + ": became shorter while it was read, at byte " + std::to_string(offset));
      at += got;
      offset += got;
      n -= got;
    }
  }

 private:
  std::string path_;
  int fd_ = -1;
  std::int64_t size_ = 0;
};

/// The whole file as text. \throws Error(kFormat) when it is larger than `max_bytes`, Error(kIo).
[[nodiscard]] inline std::string read_text_file(const std::string& path, std::int64_t max_bytes) {
  const File file(path);
  LMD_REQUIRE(file.size() <= max_bytes, ErrorCode::kFormat,
              path + ": has " + std::to_string(file.size()) + " bytes, at most " +
                  std::to_string(max_bytes) + " are read");
  std::string text(static_cast<std::size_t>(file.size()), '\0');
  file.read(0, text.data(), file.size());
  return text;
}

/// A file that appears under its name only when `commit` succeeds: until then it is written beside
/// it, and removed if the object dies uncommitted.
class NewFile {
 public:
  /// \throws Error(kIo) when it cannot be created.
  explicit NewFile(std::string path)
      : path_(std::move(path)), partial_(path_ + ".partial-" + std::to_string(::getpid())) {
    out_ = std::fopen(partial_.c_str(), "wb");
    LMD_REQUIRE(out_ != nullptr, ErrorCode::kIo, partial_ + ": " + std::strerror(errno));
  }
  NewFile(const NewFile&) = delete;
  NewFile& operator=(const NewFile&) = delete;
  ~NewFile() {
    if (out_ != nullptr) {
      std::fclose(out_);
      std::remove(partial_.c_str());
    }
  }

  /// \throws Error(kIo), for instance when the disk is full.
  void write(const void* from, std::size_t n) {
    LMD_REQUIRE(std::fwrite(from, 1, n, out_) == n, ErrorCode::kIo,
                partial_ + ": " + std::strerror(errno));
  }
  void write(std::string_view text) { write(text.data(), text.size()); }

  /// Flushes to disk and renames. \throws Error(kIo).
  void commit() {
    const bool flushed = std::fflush(out_) == 0 && ::fsync(::fileno(out_)) == 0;
    const bool closed = std::fclose(std::exchange(out_, nullptr)) == 0;
    if (flushed && closed && std::rename(partial_.c_str(), path_.c_str()) == 0) return;
    const std::string why = std::strerror(errno);
    std::remove(partial_.c_str());
    throw Error(ErrorCode::kIo, path_ + ": " + why);
  }

 private:
  std::string path_;
  std::string partial_;
  std::FILE* out_ = nullptr;
};

}  // namespace lmd
