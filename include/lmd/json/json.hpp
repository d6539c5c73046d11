/// \file  The one place that knows the JSON library: bounded parsing, and getters whose errors name
///        file, key, value and what was expected.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/core/error.hpp>
#include <lmd/core/file.hpp>
#include <lmd/core/shown_name.hpp>

#include <cmath>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include <nlohmann/json.hpp>

namespace lmd::json {

using Json = nlohmann::json;
using OrderedJson = nlohmann::ordered_json;  ///< keys stay in the order of the text

inline constexpr int kMaxDepth = 64;

/// Bracket depth beyond which a text is refused before it is parsed; quotes are honoured.
[[nodiscard]] inline int depth_of(std::string_view text) {
  int depth = 0;
  int deepest = 0;
  bool in_string = false;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (in_string) {
      if (c == '\\') ++i;
      if (c == '"') in_string = false;
    } else if (c == '"') {
      in_string = true;
    } else if (c == '{' || c == '[') {
      deepest = ++depth > deepest ? depth : deepest;
    } else if (c == '}' || c == ']') {
      --depth;
    }
  }
  return deepest;
}

/// A value as it may stand in an error message: one line, at most 60 bytes.
[[nodiscard]] inline std::string shown(const Json& value) {
  std::string text = value.dump(-1, ' ', true, Json::error_handler_t::replace);
  if (text.size() > 60) text = text.substr(0, 57) + "...";
  return text;
}

/// \throws Error(kFormat) naming `where` and the byte, when `text` is not JSON or is nested deeper
///         than kMaxDepth.
[[nodiscard]] inline Json parse(std::string_view text, const std::string& where) {
  const int depth = depth_of(text);
  LMD_REQUIRE(depth <= kMaxDepth, ErrorCode::kFormat,
              where + ": nested " + std::to_string(depth) + " deep, at most " +
                  std::to_string(kMaxDepth) + " is read");
  try {
    return Json::parse(text);
  } catch (const Json::parse_error& e) {
    throw Error(ErrorCode::kFormat, where + ": not valid JSON at byte " + std::to_string(e.byte));
  } catch (const Json::out_of_range&) {
    throw Error(ErrorCode::kFormat, where + ": holds a number beyond the range of a double");
  }
}

/// \throws Error(kIo, kFormat). Files larger than `max_bytes` are refused.
[[nodiscard]] inline Json parse_file(const std::string& path,
                                     std::int64_t max_bytes = std::int64_t{100} << 20) {
  return parse(read_text_file(path, max_bytes), path);
}

/// An object of a JSON file together with the words that errors name it by.
class Object {
 public:
  /// \throws Error(kFormat) when `value` is not an object.
  Object(const Json& value, std::string where) : value_(&value), where_(std::move(where)) {
    LMD_REQUIRE(value.is_object(), ErrorCode::kFormat,
                where_ + ": is " + shown(value) + ", expected an object");
  }

  [[nodiscard]] const Json& value() const { return *value_; }
  [[nodiscard]] const std::string& where() const { return where_; }

  /// Null counts as absent.
  [[nodiscard]] bool has(const char* key) const {
    const auto at = value_->find(key);
    return at != value_->end() && !at->is_null();
  }

  /// \throws Error(kFormat) when the key is absent or null.
  [[nodiscard]] const Json& at(const char* key) const {
    LMD_REQUIRE(has(key), ErrorCode::kFormat,
                where_ + ": required key " + shown_name(key) + " is missing");
    return *value_->find(key);
  }

  [[nodiscard]] Object object(const char* key) const {
    return {at(key), where_ + ": " + shown_name(key)};
  }

  /// \throws Error(kFormat) unless an integer in [min, max].
  [[nodiscard]] std::int64_t integer(const char* key, std::int64_t min, std::int64_t max) const {
    const Json& v = at(key);
    const bool ok = v.is_number_integer() &&
                    !(v.is_number_unsigned() && v.get<std::uint64_t>() > INT64_MAX) &&
                    v.get<std::int64_t>() >= min && v.get<std::int64_t>() <= max;
    require(ok, key, v, "an integer from " + std::to_string(min) + " to " + std::to_string(max));
    return v.get<std::int64_t>();
  }
  [[nodiscard]] std::int64_t integer_or(const char* key,
                                        std::int64_t min,
                                        std::int64_t max,
                                        std::int64_t fallback) const {
    return has(key) ? integer(key, min, max) : fallback;
  }

  /// \throws Error(kFormat) unless a finite number in [min, max].
  [[nodiscard]] double number(const char* key, double min, double max) const {
    const Json& v = at(key);
    const bool ok = v.is_number() && std::isfinite(v.get<double>()) && v.get<double>() >= min &&
                    v.get<double>() <= max;
    require(ok, key, v, "a number from " + Json(min).dump() + " to " + Json(max).dump());
    return v.get<double>();
  }
  [[nodiscard]] double number_or(const char* key, double min, double max, double fallback) const {
    return has(key) ? number(key, min, max) : fallback;
  }

  [[nodiscard]] bool boolean(const char* key) const {
    const Json& v = at(key);
    require(v.is_boolean(), key, v, "true or false");
    return v.get<bool>();
  }
  [[nodiscard]] bool boolean_or(const char* key, bool fallback) const {
    return has(key) ? boolean(key) : fallback;
  }

  [[nodiscard]] const std::string& string(const char* key) const {
    const Json& v = at(key);
    require(v.is_string(), key, v, "a string");
    return v.get_ref<const std::string&>();
  }
  [[nodiscard]] std::string string_or(const char* key, const std::string& fallback) const {
    return has(key) ? string(key) : fallback;
  }

  /// \throws Error(kFormat) unless an array.
  [[nodiscard]] const Json& array(const char* key) const {
    const Json& v = at(key);
    require(v.is_array(), key, v, "an array");
    return v;
  }

 private:
  void require(bool ok, const char* key, const Json& found, const std::string& expected) const {
    LMD_REQUIRE(ok, ErrorCode::kFormat,
                where_ + ": " + shown_name(key) + " is " + shown(found) + ", expected " + expected);
  }

  const Json* value_;
  std::string where_;
};

}  // namespace lmd::json
