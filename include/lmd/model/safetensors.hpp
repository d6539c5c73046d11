/// \file  Reader and writer of safetensors files, single or sharded. Nothing of a header is trusted.
///        Source: the format description of the safetensors project.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/core/error.hpp>
#include <lmd/core/file.hpp>
#include <lmd/core/shown_name.hpp>
#include <lmd/json/json.hpp>
#include <lmd/model/dtype.hpp>

#include <algorithm>
#include <bit>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace lmd::model {

static_assert(std::endian::native == std::endian::little, "files are little endian and are copied");

/// Where one tensor lies in its file.
struct TensorEntry {
  DType dtype = DType::kF32;
  Shape shape;
  std::int64_t offset = 0;  ///< bytes from the start of the file
  std::int64_t bytes = 0;
};

using TensorMap = std::map<std::string, TensorEntry, std::less<>>;

namespace detail {

/// A header beyond this is refused before it is read; the format's own reader has the same limit.
inline constexpr std::int64_t kMaxHeaderBytes = 100'000'000;
inline constexpr std::size_t kMaxRank = 8;

/// Reads and checks the entry of one tensor. `data_bytes` is the size of the file after its header.
inline TensorEntry parse_entry(const json::Json& value,
                               const std::string& where,
                               std::int64_t data_bytes) {
  const json::Object entry(value, where);
  const std::string& name = entry.string("dtype");
  const std::optional<DType> dtype = dtype_named(name);
  LMD_REQUIRE(dtype.has_value(), ErrorCode::kFormat,
              where + ": dtype " + shown_name(name) + " is unknown; known: F64 F32 F16 BF16 " +
                  "F8_E4M3 F8_E5M2 I64 I32 I16 I8 U8 BOOL");
  TensorEntry tensor{*dtype, {}, 0, 0};
  const json::Json& shape = entry.array("shape");
  LMD_REQUIRE(shape.size() <= kMaxRank, ErrorCode::kFormat,
              where + ": has " + std::to_string(shape.size()) + " dimensions, at most " +
                  std::to_string(kMaxRank) + " are read");
  for (const json::Json& n : shape) {
    LMD_REQUIRE(n.is_number_unsigned() && n.get<std::uint64_t>() <= INT64_MAX, ErrorCode::kFormat,
                where + ": shape is " + json::shown(shape) + ", expected sizes of 0 and more");
    tensor.shape.push_back(n.get<std::int64_t>());
  }
  const json::Json& offsets = entry.array("data_offsets");
  const bool is_pair =
      offsets.size() == 2 && offsets[0].is_number_unsigned() && offsets[1].is_number_unsigned();
  LMD_REQUIRE(is_pair, ErrorCode::kFormat,
              where + ": data_offsets is " + json::shown(offsets) + ", expected [begin, end]");
  const auto begin = offsets[0].get<std::uint64_t>();
  const auto end = offsets[1].get<std::uint64_t>();
  LMD_REQUIRE(begin <= end && end <= static_cast<std::uint64_t>(data_bytes), ErrorCode::kFormat,
              where + ": data_offsets is " + json::shown(offsets) + ", the file holds " +
                  std::to_string(data_bytes) + " bytes of data");
  const std::optional<std::int64_t> expected = size_in_bytes(tensor.shape, tensor.dtype);
  LMD_REQUIRE(expected.has_value() && static_cast<std::uint64_t>(*expected) == end - begin,
              ErrorCode::kFormat,
              where + ": has " + std::to_string(end - begin) + " bytes, expected " +
                  (expected ? std::to_string(*expected) : "more than can be counted") + " for " +
                  name + " " + to_string(tensor.shape));
  tensor.offset = static_cast<std::int64_t>(begin);
  tensor.bytes = *expected;
  return tensor;
}

/// \throws Error(kFormat) where two tensors share bytes.
inline void require_no_overlap(const TensorMap& tensors, const std::string& path) {
  std::vector<const TensorMap::value_type*> by_offset;
  for (const auto& item : tensors)
    if (item.second.bytes > 0) by_offset.push_back(&item);
  std::sort(by_offset.begin(), by_offset.end(),
            [](const auto* a, const auto* b) { return a->second.offset < b->second.offset; });
  for (std::size_t i = 1; i < by_offset.size(); ++i) {
    const auto& [name, before] = *by_offset[i - 1];
    const auto& [next_name, next] = *by_offset[i];
    LMD_REQUIRE(before.offset + before.bytes <= next.offset, ErrorCode::kFormat,
                path + ": tensor " + shown_name(next_name) + " starts at byte " +
                    std::to_string(next.offset) + ", before the end of " + shown_name(name) +
                    " at " + std::to_string(before.offset + before.bytes));
  }
}

}  // namespace detail

/// One file, its header read and checked; tensors are read on demand.
///
/// Layout:  u64 header length N, N bytes of JSON, data; data_offsets count from the data's start.
class SafetensorsFile {
 public:
  /// \throws Error(kIo), Error(kFormat) naming file and tensor for whatever does not add up.
  explicit SafetensorsFile(const std::string& path) : file_(path) {
    LMD_REQUIRE(file_.size() >= 8, ErrorCode::kFormat,
                path + ": has " + std::to_string(file_.size()) +
                    " bytes, a safetensors file starts with 8 of header length");
    std::uint64_t length = 0;
    file_.read(0, &length, sizeof length);
    const std::int64_t limit = std::min(detail::kMaxHeaderBytes, file_.size() - 8);
    LMD_REQUIRE(length >= 2 && length <= static_cast<std::uint64_t>(limit), ErrorCode::kFormat,
                path + ": header length is " + std::to_string(length) + ", expected 2 to " +
                    std::to_string(limit));
    std::string header(static_cast<std::size_t>(length), '\0');
    file_.read(8, header.data(), static_cast<std::int64_t>(length));
    const json::Json root = json::parse(header, path + ": header");
    const std::int64_t data_start = 8 + static_cast<std::int64_t>(length);
    const json::Object object(root, path + ": header");
    for (const auto& [name, value] : object.value().items()) {
      if (name == "__metadata__") continue;
      TensorEntry entry = detail::parse_entry(value, path + ": tensor " + shown_name(name),
                                              file_.size() - data_start);
      entry.offset += data_start;
      tensors_.emplace(name, std::move(entry));
    }
    detail::require_no_overlap(tensors_, path);
  }

  [[nodiscard]] const std::string& path() const { return file_.path(); }
  [[nodiscard]] const TensorMap& tensors() const { return tensors_; }

  /// Copies bytes [from, from + n) of a tensor. \throws Error(kIo, kFormat).
  void read(const TensorEntry& tensor, std::int64_t from, void* to, std::int64_t n) const {
    LMD_REQUIRE(from >= 0 && n >= 0 && n <= tensor.bytes - from, ErrorCode::kInternal,
                path() + ": bytes outside a tensor were asked for");
    file_.read(tensor.offset + from, to, n);
  }

 private:
  File file_;
  TensorMap tensors_;
};

/// A tensor and the file that holds it. Valid as long as the model it comes from.
struct TensorRef {
  const SafetensorsFile* file = nullptr;
  const TensorEntry* entry = nullptr;
  std::string name;

  [[nodiscard]] explicit operator bool() const { return entry != nullptr; }
  /// How messages name it.
  [[nodiscard]] std::string where() const { return file->path() + ": tensor " + shown_name(name); }
  void read(void* to) const { file->read(*entry, 0, to, entry->bytes); }
  void read(std::int64_t from, void* to, std::int64_t n) const { file->read(*entry, from, to, n); }
};

/// All tensors of a model folder: `model.safetensors`, or the shards that
/// `model.safetensors.index.json` lists.
class SafetensorsModel {
 public:
  /// \throws Error(kIo, kFormat).
  explicit SafetensorsModel(const std::string& folder) : folder_(folder) {
    const std::string single = folder + "/model.safetensors";
    const std::string index = folder + "/model.safetensors.index.json";
    if (is_there(single)) {
      files_.push_back(std::make_unique<SafetensorsFile>(single));
      for (const auto& [name, entry] : files_[0]->tensors())
        refs_.emplace(name, TensorRef{files_[0].get(), &entry, name});
      return;
    }
    LMD_REQUIRE(is_there(index), ErrorCode::kIo,
                folder + ": no weights: neither model.safetensors nor " +
                    "model.safetensors.index.json is there");
    read_index(index);
  }

  [[nodiscard]] const std::string& folder() const { return folder_; }
  [[nodiscard]] const std::map<std::string, TensorRef, std::less<>>& tensors() const {
    return refs_;
  }

  /// An empty reference when there is no such tensor.
  [[nodiscard]] TensorRef find(std::string_view name) const {
    const auto at = refs_.find(name);
    return at == refs_.end() ? TensorRef{} : at->second;
  }

  /// \throws Error(kFormat) when there is no such tensor.
  [[nodiscard]] TensorRef at(std::string_view name) const {
    TensorRef tensor = find(name);
    LMD_REQUIRE(tensor, ErrorCode::kFormat,
                folder_ + ": tensor " + shown_name(name) + " is missing from the weights");
    return tensor;
  }

 private:
  void read_index(const std::string& path) {
    const json::Json root = json::parse_file(path);
    const json::Object weight_map = json::Object(root, path).object("weight_map");
    std::map<std::string, const SafetensorsFile*> open;
    for (const auto& [name, value] : weight_map.value().items()) {
      const std::string where = path + ": weight_map: " + shown_name(name);
      LMD_REQUIRE(value.is_string(), ErrorCode::kFormat,
                  where + " is " + json::shown(value) + ", expected a file name");
      const auto& shard = value.get_ref<const std::string&>();
      const bool stays_inside = !shard.empty() && shard.find('\0') == std::string::npos &&
                                shard.find('/') == std::string::npos && shard != "..";
      LMD_REQUIRE(stays_inside, ErrorCode::kFormat,
                  where + " is " + json::shown(value) + ", expected a file of the same folder");
      const SafetensorsFile*& file = open[shard];
      if (file == nullptr) {
        LMD_REQUIRE(is_there(folder_ + "/" + shard), ErrorCode::kIo,
                    where + " is in " + shown_name(shard) + ", which is not there");
        files_.push_back(std::make_unique<SafetensorsFile>(folder_ + "/" + shard));
        file = files_.back().get();
      }
      const auto entry = file->tensors().find(name);
      LMD_REQUIRE(entry != file->tensors().end(), ErrorCode::kFormat,
                  file->path() + ": tensor " + shown_name(name) + " is missing, the index places" +
                      " it here");
      refs_.emplace(name, TensorRef{file, &entry->second, name});
    }
  }

  std::string folder_;
  std::vector<std::unique_ptr<SafetensorsFile>> files_;
  std::map<std::string, TensorRef, std::less<>> refs_;
};

/// A tensor that is going to be written.
struct TensorSpec {
  std::string name;
  DType dtype = DType::kF32;
  Shape shape;
};

/// Writes one file: all tensors are declared first, then their data comes in the same order and in
/// pieces of any size. The file appears under its name with `commit`.
class SafetensorsWriter {
 public:
  /// \throws Error(kIo), Error(kInternal) for sizes that overflow or a name given twice.
  SafetensorsWriter(const std::string& path, std::vector<TensorSpec> specs)
      : out_(path), specs_(std::move(specs)) {
    json::Json header = {{"__metadata__", {{"format", "pt"}}}};
    std::int64_t begin = 0;
    for (const TensorSpec& spec : specs_) {
      const std::optional<std::int64_t> bytes = size_in_bytes(spec.shape, spec.dtype);
      LMD_REQUIRE(bytes && !header.contains(spec.name), ErrorCode::kInternal,
                  path + ": tensor " + shown_name(spec.name) + " cannot be declared");
      header[spec.name] = {{"dtype", name_of(spec.dtype)},
                           {"shape", spec.shape},
                           {"data_offsets", {begin, begin + *bytes}}};
      ends_.push_back(begin += *bytes);
    }
    std::string text = header.dump();
    text.resize(round_up(text.size(), std::size_t{8}), ' ');  // data then starts aligned
    const std::uint64_t length = text.size();
    out_.write(&length, sizeof length);
    out_.write(text);
  }

  [[nodiscard]] std::int64_t bytes_total() const { return ends_.empty() ? 0 : ends_.back(); }
  [[nodiscard]] std::int64_t bytes_done() const { return done_; }

  /// The next `n` bytes of tensor `name`.
  /// \throws Error(kInternal) when it is not this tensor's turn, Error(kIo).
  void write(std::string_view name, const void* from, std::int64_t n) {
    while (current_ < specs_.size() && done_ == ends_[current_])
      ++current_;
    const bool expected = current_ < specs_.size() && specs_[current_].name == name && n >= 0 &&
                          n <= ends_[current_] - done_;
    LMD_REQUIRE(expected, ErrorCode::kInternal,
                "tensor " + shown_name(name) + " is written out of turn or past its end");
    out_.write(from, static_cast<std::size_t>(n));
    done_ += n;
  }

  /// \throws Error(kInternal) when data is missing, Error(kIo).
  void commit() {
    LMD_REQUIRE(done_ == bytes_total(), ErrorCode::kInternal,
                "only " + std::to_string(done_) + " of " + std::to_string(bytes_total()) +
                    " bytes of tensors were written");
    out_.commit();
  }

 private:
  NewFile out_;
  std::vector<TensorSpec> specs_;
  std::vector<std::int64_t> ends_;  ///< where each tensor's data ends, in bytes
  std::size_t current_ = 0;
  std::int64_t done_ = 0;
};

}  // namespace lmd::model
