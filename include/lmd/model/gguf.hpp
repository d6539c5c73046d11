/// \file  Reader of GGUF files, versions 2 and 3. No number of the file is believed before it is
///        checked against the bytes that are there. Source: the format's description in ggml.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/core/error.hpp>
#include <lmd/core/file.hpp>
#include <lmd/core/math.hpp>
#include <lmd/core/shown_name.hpp>
#include <lmd/model/dtype.hpp>
#include <lmd/model/gguf_blocks.hpp>

#include <algorithm>
#include <bit>
#include <cmath>
#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

namespace lmd::model {

/// A value of the metadata. Integers of every width and sign are one kind, floats another.
using GgufValue = std::variant<std::int64_t,
                               double,
                               bool,
                               std::string,
                               std::vector<std::int64_t>,
                               std::vector<double>,
                               std::vector<std::string>>;

struct GgufTensor {
  GgufType type = GgufType::kF32;
  Shape shape;  ///< outermost first: [out, in] for a matrix (the file says ne = {in, out})
  std::int64_t offset = 0;  ///< bytes from the start of the file
  std::int64_t bytes = 0;

  /// Length of a row: the contiguous dimension.
  [[nodiscard]] std::int64_t columns() const { return shape.back(); }
  [[nodiscard]] std::int64_t rows() const {
    std::int64_t rows = 1;
    for (std::size_t i = 0; i + 1 < shape.size(); ++i)
      rows *= shape[i];
    return rows;
  }
  [[nodiscard]] std::int64_t row_bytes() const { return bytes / rows(); }
};

namespace detail {

/// Value types by their number in the file.
enum class GgufKind : std::uint32_t {
  kU8,
  kI8,
  kU16,
  kI16,
  kU32,
  kI32,
  kF32,
  kBool,
  kString,
  kArray,
  kU64,
  kI64,
  kF64
};

/// Fewest bytes that an element takes in the file; what bounds a count before it is allocated.
inline constexpr int kGgufKindBytes[] = {1, 1, 2, 2, 4, 4, 4, 1, 8, 12, 8, 8, 8};

/// Walks through a file in order, through a window of 64 KiB.
class GgufCursor {
 public:
  explicit GgufCursor(const File& file) : file_(&file) {}

  [[nodiscard]] std::int64_t position() const { return position_; }
  /// Bytes that the head may still take.
  [[nodiscard]] std::int64_t remaining() const {
    return std::min(file_->size(), kMaxHeadBytes) - position_;
  }
  [[nodiscard]] const std::string& path() const { return file_->path(); }

  void copy(void* to, std::int64_t n) {
    if (position_ < window_start_ || position_ + n > window_start_ + window_bytes()) {
      if (n > kWindow / 2) return copy_past_window(to, n);
      const std::int64_t bytes = std::min(kWindow, std::max(remaining(), n));
      window_.resize(static_cast<std::size_t>(bytes));
      file_->read(position_, window_.data(), bytes);
      window_start_ = position_;
    }
    std::memcpy(to, window_.data() + (position_ - window_start_), static_cast<std::size_t>(n));
    position_ += n;
  }

  template <class T>
  T number() {
    T value;
    copy(&value, sizeof value);
    return value;
  }

  /// A count of things of at least `bytes_each`. \throws Error(kFormat) when they cannot be there.
  std::int64_t count(int bytes_each, const std::string& what) {
    const auto n = number<std::uint64_t>();
    LMD_REQUIRE(n <= static_cast<std::uint64_t>(remaining() / bytes_each), ErrorCode::kFormat,
                path() + ": " + what + " is " + std::to_string(n) + ", more than the " +
                    std::to_string(remaining()) + " bytes left can hold");
    return static_cast<std::int64_t>(n);
  }

  std::string string(const std::string& what, std::int64_t max_bytes = INT64_MAX) {
    const std::int64_t n = count(1, "the length of " + what);
    LMD_REQUIRE(n <= max_bytes, ErrorCode::kFormat,
                path() + ": " + what + " has " + std::to_string(n) + " bytes, at most " +
                    std::to_string(max_bytes) + " are allowed");
    std::string text(static_cast<std::size_t>(n), '\0');
    copy(text.data(), n);
    return text;
  }

  std::int64_t integer(GgufKind kind, const std::string& what) {
    switch (kind) {
      case GgufKind::kU8:
        return number<std::uint8_t>();
      case GgufKind::kI8:
        return number<std::int8_t>();
      case GgufKind::kU16:
        return number<std::uint16_t>();
      case GgufKind::kI16:
        return number<std::int16_t>();
      case GgufKind::kU32:
        return number<std::uint32_t>();
      case GgufKind::kI32:
        return number<std::int32_t>();
      case GgufKind::kBool:
        return boolean(what) ? 1 : 0;
      case GgufKind::kI64:
        return number<std::int64_t>();
      default:
        break;
    }
    const auto value = number<std::uint64_t>();
    LMD_REQUIRE(value <= INT64_MAX, ErrorCode::kFormat,
                path() + ": " + what + " is " + std::to_string(value) + ", beyond 63 bits");
    return static_cast<std::int64_t>(value);
  }

  bool boolean(const std::string& what) {
    const auto value = number<std::uint8_t>();
    LMD_REQUIRE(value <= 1, ErrorCode::kFormat,
                path() + ": " + what + " is " + std::to_string(value) + ", expected 0 or 1");
    return value == 1;
  }

  double real(GgufKind kind) {
    return kind == GgufKind::kF32 ? static_cast<double>(number<float>()) : number<double>();
  }

  GgufKind kind(const std::string& what) {
    const auto id = number<std::uint32_t>();
    LMD_REQUIRE(id < std::size(kGgufKindBytes), ErrorCode::kFormat,
                path() + ": " + what + " has value type " + std::to_string(id) +
                    ", known are 0 to " + std::to_string(std::size(kGgufKindBytes) - 1));
    return static_cast<GgufKind>(id);
  }

 private:
  static constexpr std::int64_t kWindow = 64 << 10;
  /// 6 times the largest known (256 Ki tokens). In memory it may become eight times as large.
  static constexpr std::int64_t kMaxHeadBytes = 100 << 20;

  [[nodiscard]] std::int64_t window_bytes() const {
    return static_cast<std::int64_t>(window_.size());
  }
  void copy_past_window(void* to, std::int64_t n) {
    file_->read(position_, to, n);
    position_ += n;
  }

  const File* file_;
  std::int64_t position_ = 0;
  std::int64_t window_start_ = 0;
  std::string window_;
};

/// A value as it may stand in a message: what it is and, where it is short, which.
inline std::string shown(const GgufValue& value) {
  struct Visitor {
    std::string operator()(std::int64_t v) const { return "the integer " + std::to_string(v); }
    std::string operator()(double v) const { return "the number " + std::to_string(v); }
    std::string operator()(bool v) const { return v ? "true" : "false"; }
    std::string operator()(const std::string& v) const { return "the text " + shown_name(v); }
    std::string operator()(const std::vector<std::int64_t>& v) const {
      return list(v.size(), "integers");
    }
    std::string operator()(const std::vector<double>& v) const { return list(v.size(), "numbers"); }
    std::string operator()(const std::vector<std::string>& v) const {
      return list(v.size(), "texts");
    }
    static std::string list(std::size_t n, const char* of) {
      return "a list of " + std::to_string(n) + ' ' + of;
    }
  };
  return std::visit(Visitor{}, value);
}

/// By the index of a kind in GgufValue.
inline constexpr const char* kGgufKindNames[] = {
    "an integer",         "a number",          "true or false",  "a text",
    "a list of integers", "a list of numbers", "a list of texts"};
static_assert(std::size(kGgufKindNames) == std::variant_size_v<GgufValue>, "each kind has a name");

inline bool is_real(GgufKind kind) {
  return kind == GgufKind::kF32 || kind == GgufKind::kF64;
}

inline GgufValue read_gguf_array(GgufCursor& in, const std::string& what) {
  const GgufKind kind = in.kind(what);
  LMD_REQUIRE(kind != GgufKind::kArray, ErrorCode::kFormat,
              in.path() + ": " + what + " is an array of arrays, which no key has");
  const std::int64_t n = in.count(kGgufKindBytes[static_cast<int>(kind)], "the length of " + what);
  const auto fill = [&](auto values, auto next) {
    values.reserve(static_cast<std::size_t>(n));
    for (std::int64_t i = 0; i < n; ++i)
      values.push_back(next());
    return GgufValue(std::move(values));
  };
  if (kind == GgufKind::kString)
    return fill(std::vector<std::string>{}, [&] { return in.string(what); });
  if (is_real(kind)) return fill(std::vector<double>{}, [&] { return in.real(kind); });
  return fill(std::vector<std::int64_t>{}, [&] { return in.integer(kind, what); });
}

inline GgufValue read_gguf_value(GgufCursor& in, const std::string& what) {
  const GgufKind kind = in.kind(what);
  if (kind == GgufKind::kArray) return read_gguf_array(in, what);
  if (kind == GgufKind::kString) return in.string(what);
  if (kind == GgufKind::kBool) return in.boolean(what);
  if (is_real(kind)) return in.real(kind);
  return in.integer(kind, what);
}

}  // namespace detail

/// One file: metadata and tensor list read and checked, tensors on demand.
///
/// Errors:  \throws Error(kIo), Error(kFormat) naming file and key or tensor.
class GgufFile {
 public:
  explicit GgufFile(const std::string& path) : file_(path) {
    detail::GgufCursor in(file_);
    LMD_REQUIRE(
        file_.size() >= 24, ErrorCode::kFormat,
        path + ": has " + std::to_string(file_.size()) + " bytes, a GGUF file has at least 24");
    char magic[4];
    in.copy(magic, 4);
    LMD_REQUIRE(std::string_view(magic, 4) == "GGUF", ErrorCode::kFormat,
                path + ": starts with " + shown_name({magic, 4}) + ", expected GGUF");
    const auto version = in.number<std::uint32_t>();
    LMD_REQUIRE(version == 2 || version == 3, ErrorCode::kFormat,
                path + ": GGUF version is " + std::to_string(version) +
                    ", read are 2 and 3 in little endian");
    // An info is a name, a rank, one size, a type and an offset; a pair a key, a type and a byte.
    const std::int64_t n_tensors = in.count(32, "the tensor count");
    const std::int64_t n_values = in.count(13, "the key count");
    for (std::int64_t i = 0; i < n_values; ++i)
      read_pair(in);
    for (std::int64_t i = 0; i < n_tensors; ++i)
      read_tensor_info(in);
    place_tensors(in.position());
  }

  [[nodiscard]] const std::string& path() const { return file_.path(); }
  [[nodiscard]] const std::map<std::string, GgufTensor, std::less<>>& tensors() const {
    return tensors_;
  }
  /// Names in the order of the file.
  [[nodiscard]] const std::vector<std::string>& tensor_names() const { return names_; }

  /// Null when there is no such tensor.
  [[nodiscard]] const GgufTensor* find(std::string_view name) const {
    const auto at = tensors_.find(name);
    return at == tensors_.end() ? nullptr : &at->second;
  }

  /// Copies bytes [from, from + n) of a tensor.
  void read(const GgufTensor& tensor, std::int64_t from, void* to, std::int64_t n) const {
    LMD_REQUIRE(from >= 0 && n >= 0 && n <= tensor.bytes - from, ErrorCode::kInternal,
                path() + ": bytes outside a tensor were asked for");
    file_.read(tensor.offset + from, to, n);
  }

  [[nodiscard]] bool has(std::string_view key) const { return values_.contains(key); }

  /// The value of a key as T, one of GgufValue's kinds.
  /// \throws Error(kFormat) when the key is missing or of another kind.
  template <class T>
  [[nodiscard]] const T& get(std::string_view key) const {
    const auto at = values_.find(key);
    LMD_REQUIRE(at != values_.end(), ErrorCode::kFormat,
                path() + ": key " + std::string(key) + " is missing");
    const T* value = std::get_if<T>(&at->second);
    LMD_REQUIRE(value != nullptr, ErrorCode::kFormat,
                path() + ": key " + std::string(key) + " is " + detail::shown(at->second) +
                    ", expected " + detail::kGgufKindNames[GgufValue(T{}).index()]);
    return *value;
  }
  template <class T>
  [[nodiscard]] T get_or(std::string_view key, T fallback) const {
    return has(key) ? get<T>(key) : std::move(fallback);
  }

  /// \throws Error(kFormat) unless an integer in [min, max].
  [[nodiscard]] std::int64_t integer(std::string_view key,
                                     std::int64_t min,
                                     std::int64_t max) const {
    const auto value = get<std::int64_t>(key);
    LMD_REQUIRE(value >= min && value <= max, ErrorCode::kFormat,
                path() + ": key " + std::string(key) + " is " + std::to_string(value) +
                    ", expected an integer from " + std::to_string(min) + " to " +
                    std::to_string(max));
    return value;
  }

  /// \throws Error(kFormat) unless a number in [min, max].
  [[nodiscard]] double number(std::string_view key, double min, double max) const {
    const auto value = get<double>(key);
    LMD_REQUIRE(value >= min && value <= max, ErrorCode::kFormat,
                path() + ": key " + std::string(key) + " is " + std::to_string(value) +
                    ", expected a number from " + std::to_string(min) + " to " +
                    std::to_string(max));
    return value;
  }

 private:
  static constexpr std::int64_t kMaxKeyBytes = 65535;  // the format's own limit
  static constexpr std::int64_t kMaxNameBytes = 64;    // as above
  static constexpr std::int64_t kDefaultAlignment = 32;
  static constexpr std::int64_t kMaxAlignment = 1 << 20;

  void read_pair(detail::GgufCursor& in) {
    std::string key = in.string("a key", kMaxKeyBytes);
    const std::string shown = shown_name(key);
    GgufValue value = detail::read_gguf_value(in, "key " + shown);
    LMD_REQUIRE(values_.emplace(std::move(key), std::move(value)).second, ErrorCode::kFormat,
                path() + ": key " + shown + " is there twice");
  }

  void read_tensor_info(detail::GgufCursor& in) {
    std::string name = in.string("a tensor's name", kMaxNameBytes);
    const std::string where = path() + ": tensor " + shown_name(name);
    const auto rank = in.number<std::uint32_t>();
    LMD_REQUIRE(rank >= 1 && rank <= 4, ErrorCode::kFormat,
                where + ": has " + std::to_string(rank) + " dimensions, expected 1 to 4");
    GgufTensor tensor;
    std::int64_t elements = 1;
    for (std::uint32_t i = 0; i < rank; ++i) {
      const std::int64_t n = in.integer(detail::GgufKind::kU64, "a size of " + shown_name(name));
      const bool ok = n >= 1 && checked_mul(elements, n, elements);
      LMD_REQUIRE(ok, ErrorCode::kFormat,
                  where + ": size " + std::to_string(n) + " of dimension " + std::to_string(i) +
                      " is out of range");
      tensor.shape.insert(tensor.shape.begin(), n);
    }
    const auto type = in.number<std::uint32_t>();
    const GgufTypeFacts* facts = gguf_type_facts(type);
    LMD_REQUIRE(facts != nullptr && facts->block_bytes > 0, ErrorCode::kFormat,
                where + ": type " + (facts ? facts->name : std::to_string(type)) +
                    " is not supported; supported: " + kSupportedGgufTypes);
    tensor.type = static_cast<GgufType>(type);
    const bool counts =
        tensor.columns() % facts->block_elements == 0 &&
        checked_mul(elements / facts->block_elements, facts->block_bytes, tensor.bytes);
    LMD_REQUIRE(counts, ErrorCode::kFormat,
                where + ": rows of " + std::to_string(tensor.columns()) + " do not fit type " +
                    facts->name + " with blocks of " + std::to_string(facts->block_elements));
    tensor.offset = in.integer(detail::GgufKind::kU64, "the offset of " + shown_name(name));
    LMD_REQUIRE(tensors_.emplace(name, std::move(tensor)).second, ErrorCode::kFormat,
                where + ": is there twice");
    names_.push_back(std::move(name));
  }

  /// Turns offsets within the data into offsets within the file, and checks them.
  void place_tensors(std::int64_t infos_end) {
    std::int64_t alignment = kDefaultAlignment;
    if (has("general.alignment")) alignment = integer("general.alignment", 1, kMaxAlignment);
    LMD_REQUIRE(std::has_single_bit(static_cast<std::uint64_t>(alignment)), ErrorCode::kFormat,
                path() + ": key general.alignment is " + std::to_string(alignment) +
                    ", expected a power of two");
    const std::int64_t start = round_up(infos_end, alignment);
    const std::int64_t data_bytes = std::max<std::int64_t>(0, file_.size() - start);
    std::vector<std::pair<std::int64_t, const std::string*>> by_offset;
    for (auto& [name, tensor] : tensors_) {
      LMD_REQUIRE(tensor.offset % alignment == 0, ErrorCode::kFormat,
                  path() + ": tensor " + shown_name(name) + ": offset " +
                      std::to_string(tensor.offset) + " is not a multiple of " +
                      std::to_string(alignment));
      LMD_REQUIRE(tensor.offset <= data_bytes && tensor.bytes <= data_bytes - tensor.offset,
                  ErrorCode::kFormat,
                  path() + ": tensor " + shown_name(name) + ": needs " +
                      std::to_string(tensor.bytes) + " bytes at " + std::to_string(tensor.offset) +
                      " of the data, the file has " + std::to_string(data_bytes));
      tensor.offset += start;
      by_offset.emplace_back(tensor.offset, &name);
    }
    std::sort(by_offset.begin(), by_offset.end());
    for (std::size_t i = 1; i < by_offset.size(); ++i) {
      const GgufTensor& before = tensors_.find(*by_offset[i - 1].second)->second;
      LMD_REQUIRE(before.offset + before.bytes <= by_offset[i].first, ErrorCode::kFormat,
                  path() + ": tensors " + shown_name(*by_offset[i - 1].second) + " and " +
                      shown_name(*by_offset[i].second) + " overlap");
    }
  }

  File file_;
  std::map<std::string, GgufValue, std::less<>> values_;
  std::map<std::string, GgufTensor, std::less<>> tensors_;
  std::vector<std::string> names_;
};

}  // namespace lmd::model
