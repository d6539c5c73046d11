/// \file  Matrices of float32 as .npy files, which NumPy and others read.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/core/file.hpp>

#include <bit>
#include <cstdint>
#include <span>
#include <string>

namespace lmd::apps {

/// The bytes before the values of a C-ordered little-endian float32 matrix.
///
///   \x93NUMPY  1 0  | length of the rest, 16 bit | Python dictionary, spaces, line feed
///
/// Layout:  the whole is a multiple of 64 bytes, so that the values are aligned.
/// Source:  NumPy's format description, version 1.0.
[[nodiscard]] inline std::string npy_header(std::int64_t rows, std::int64_t columns) {
  std::string dictionary = "{'descr': '<f4', 'fortran_order': False, 'shape': (" +
                           std::to_string(rows) + ", " + std::to_string(columns) + "), }";
  constexpr std::size_t kPrefix = 10;  // magic, version, length
  while ((kPrefix + dictionary.size() + 1) % 64 != 0)
    dictionary += ' ';
  dictionary += '\n';
  std::string header("\x93NUMPY\x01\x00", 8);
  header += static_cast<char>(dictionary.size() & 0xFF);
  header += static_cast<char>(dictionary.size() >> 8);
  return header + dictionary;
}

/// A matrix that appears under its name when all of its rows are written.
class NpyFile {
 public:
  /// \throws Error(kIo).
  NpyFile(const std::string& path, std::int64_t rows, std::int64_t columns) : out_(path) {
    static_assert(std::endian::native == std::endian::little, "values are written as they lie");
    out_.write(npy_header(rows, columns));
  }
  void write(std::span<const float> row) { out_.write(row.data(), row.size_bytes()); }
  void commit() { out_.commit(); }

 private:
  NewFile out_;
};

}  // namespace lmd::apps
