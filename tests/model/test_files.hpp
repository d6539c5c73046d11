/// \file  Files for the tests of the readers: written byte by byte, independently of the writers.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/core/error.hpp>

#include <cstdint>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include <doctest/doctest.h>
#include <stdlib.h>

namespace lmd::test {

/// Removed with everything in it when the test ends.
struct TemporaryFolder {
  TemporaryFolder() {
    std::string pattern = (std::filesystem::temp_directory_path() / "lmd-test-XXXXXX").string();
    path = ::mkdtemp(pattern.data());
  }
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;
  ~TemporaryFolder() { std::filesystem::remove_all(path); }

  [[nodiscard]] std::string operator/(const std::string& name) const { return path + "/" + name; }

  std::string path;
};

inline void write_file(const std::string& path, const std::string& bytes) {
  std::ofstream out(path, std::ios::binary | std::ios::trunc);
  out.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
  REQUIRE(out.good());
}

inline std::string read_file(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

/// The message of the lmd::Error that `f` ends in, "" when it does not. Any other exception fails
/// the test, and so does a message of more than one line.
inline std::string error_of(const std::function<void()>& f) {
  try {
    f();
  } catch (const Error& e) {
    const std::string what = e.what();
    CHECK_MESSAGE(what.find('\n') == std::string::npos, what);
    CHECK_MESSAGE(!what.empty(), "an error says something");
    return what;
  }
  return "";
}

inline bool contains(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

/// The bytes of a number as they lie in memory.
template <class T>
std::string bytes_of(T value) {
  std::string bytes(sizeof value, '\0');
  std::memcpy(bytes.data(), &value, sizeof value);
  return bytes;
}

template <class T>
std::string bytes_of_all(const std::vector<T>& values) {
  std::string bytes;
  for (const T& value : values)
    bytes += bytes_of(value);
  return bytes;
}

/// A safetensors file from a header in JSON and its data.
inline std::string safetensors(const std::string& header, const std::string& data) {
  return bytes_of(static_cast<std::uint64_t>(header.size())) + header + data;
}

/// Builds a safetensors file tensor by tensor.
class SafetensorsBytes {
 public:
  SafetensorsBytes& add(const std::string& name,
                        const std::string& dtype,
                        const std::vector<std::int64_t>& shape,
                        const std::string& data) {
    std::string sizes;
    for (const std::int64_t n : shape)
      sizes += (sizes.empty() ? "" : ",") + std::to_string(n);
    header_ += (header_.empty() ? "{\"" : ",\"") + name + "\":{\"dtype\":\"" + dtype +
               "\",\"shape\":[" + sizes + "],\"data_offsets\":[" + std::to_string(data_.size()) +
               "," + std::to_string(data_.size() + data.size()) + "]}";
    data_ += data;
    return *this;
  }
  /// Floats that all have one value.
  SafetensorsBytes& add_constant(const std::string& name,
                                 const std::vector<std::int64_t>& shape,
                                 float value) {
    std::int64_t n = 1;
    for (const std::int64_t size : shape)
      n *= size;
    return add(name, "F32", shape,
               bytes_of_all(std::vector<float>(static_cast<std::size_t>(n), value)));
  }
  [[nodiscard]] std::string bytes() const { return safetensors(header_ + "}", data_); }

 private:
  std::string header_;
  std::string data_;
};

/// Builds a GGUF file. Sizes are given as the file has them: ne[0], the row's length, first.
class GgufBytes {
 public:
  static std::string text(const std::string& s) {
    return bytes_of(static_cast<std::uint64_t>(s.size())) + s;
  }

  GgufBytes& value(const std::string& key, std::uint32_t type, const std::string& bytes) {
    values_ += text(key) + bytes_of(type) + bytes;
    ++n_values_;
    return *this;
  }
  GgufBytes& u32(const std::string& key, std::uint32_t v) { return value(key, 4, bytes_of(v)); }
  GgufBytes& f32(const std::string& key, float v) { return value(key, 6, bytes_of(v)); }
  GgufBytes& string(const std::string& key, const std::string& v) { return value(key, 8, text(v)); }
  GgufBytes& strings(const std::string& key, const std::vector<std::string>& v) {
    std::string bytes = bytes_of(std::uint32_t{8}) + bytes_of(static_cast<std::uint64_t>(v.size()));
    for (const std::string& s : v)
      bytes += text(s);
    return value(key, 9, bytes);
  }
  GgufBytes& tensor(const std::string& name,
                    const std::vector<std::uint64_t>& ne,
                    std::uint32_t type,
                    const std::string& data) {
    infos_ += text(name) + bytes_of(static_cast<std::uint32_t>(ne.size())) + bytes_of_all(ne) +
              bytes_of(type) + bytes_of(static_cast<std::uint64_t>(data_.size()));
    data_ += data;
    data_.resize((data_.size() + 31) / 32 * 32, '\0');
    ++n_tensors_;
    return *this;
  }

  /// Everything before the data, without the padding.
  [[nodiscard]] std::string head(std::uint32_t version = 3) const {
    return "GGUF" + bytes_of(version) + bytes_of(n_tensors_) + bytes_of(n_values_) + values_ +
           infos_;
  }
  [[nodiscard]] std::string bytes(std::uint32_t version = 3) const {
    std::string all = head(version);
    all.resize((all.size() + 31) / 32 * 32, '\0');
    return all + data_;
  }

 private:
  std::uint64_t n_values_ = 0;
  std::uint64_t n_tensors_ = 0;
  std::string values_, infos_, data_;
};

}  // namespace lmd::test
