/// \file  Reading a request's fields as leniently as clients expect, and saying what is wrong with one.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/json/bounded_json.hpp>
#include <lmd/serve/error_reply.hpp>
#include <lmd/serve/json_number.hpp>
#include <lmd/serve/limits.hpp>

#include <charconv>
#include <cmath>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace lmd::serve {

using Location = std::vector<std::string>;

/// A part of the body that has the wrong form. \param problem  pydantic's word for it
[[nodiscard]] inline ApiFailure malformed(Location location,
                                          std::string problem,
                                          std::string message) {
  return ApiFailure({.what = ErrorCase::kMalformed,
                     .message = std::move(message),
                     .location = std::move(location),
                     .problem = std::move(problem)});
}

/// A value that is understood and that lmd, or this model, cannot honour. `message` is a whole sentence.
[[nodiscard]] inline ApiFailure refused(std::string message) {
  return ApiFailure({.what = ErrorCase::kOutOfRange, .message = std::move(message)});
}

namespace detail {

[[nodiscard]] inline std::string_view trimmed(std::string_view text) {
  constexpr std::string_view kSpaces = " \t\r\n";
  const std::size_t begin = text.find_first_not_of(kSpaces);
  if (begin == std::string_view::npos) return {};
  return text.substr(begin, text.find_last_not_of(kSpaces) - begin + 1);
}

/// "true", "1", "yes", "on" and their like, in any case.
[[nodiscard]] inline std::optional<bool> bool_of_word(std::string_view word) {
  std::string lower(word);
  for (char& c : lower)
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c + 32);
  for (const char* yes : {"true", "1", "yes", "on", "t", "y"})
    if (lower == yes) return true;
  for (const char* no : {"false", "0", "no", "off", "f", "n"})
    if (lower == no) return false;
  return std::nullopt;
}

/// A number as it was found and as Python shows it.
struct FoundNumber {
  double value = 0.0;
  std::string shown;
};

[[nodiscard]] inline FoundNumber found_real(double value) {
  FoundNumber found{value, {}};
  append_json_real(found.shown, value);
  return found;
}

[[nodiscard]] inline std::optional<double> real_of_text(std::string_view text) {
  double value = 0.0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (text.empty() || end != text.data() + text.size() || error != std::errc{}) return std::nullopt;
  return value;
}

/// Numbers, truth values and texts of numbers. None: something else.
[[nodiscard]] inline std::optional<FoundNumber> real_of(const json::OrderedJson& value) {
  if (value.is_boolean()) return found_real(value.get<bool>() ? 1.0 : 0.0);
  if (value.is_number()) return found_real(value.get<double>());
  if (!value.is_string()) return std::nullopt;
  const auto number = real_of_text(trimmed(value.get_ref<const std::string&>()));
  return number ? std::optional(found_real(*number)) : std::nullopt;
}

/// The same for integers; a fraction is none.
[[nodiscard]] inline std::optional<FoundNumber> integer_of(const json::OrderedJson& value) {
  if (value.is_boolean()) return value.get<bool>() ? FoundNumber{1.0, "1"} : FoundNumber{0.0, "0"};
  if (value.is_number_integer()) return FoundNumber{value.get<double>(), value.dump()};
  if (value.is_number_float()) {
    const double number = value.get<double>();
    return number == std::floor(number) ? std::optional(found_real(number)) : std::nullopt;
  }
  if (!value.is_string()) return std::nullopt;
  const std::string_view text = trimmed(value.get_ref<const std::string&>());
  if (text.empty() || text.find_first_not_of("+-0123456789") != std::string_view::npos)
    return std::nullopt;
  std::int64_t whole = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), whole);
  if (error == std::errc{} && end == text.data() + text.size())
    return FoundNumber{static_cast<double>(whole), std::to_string(whole)};
  const auto number = real_of_text(text);
  return number ? std::optional(found_real(*number)) : std::nullopt;
}

[[nodiscard]] inline std::string shown_bound(double bound) {
  std::string text;
  if (std::fabs(bound) <= kMaxExact && bound == std::floor(bound)) {
    append_json_integer(text, static_cast<std::int64_t>(bound));
  } else {
    append_json_real(text, bound);
  }
  return text;
}

/// "must be in (0, 1]."
[[nodiscard]] inline std::string range_rule(const NumberLimit& limit) {
  return std::string("must be in ") + (limit.is_min_open ? "(" : "[") + shown_bound(limit.min) +
         ", " + shown_bound(limit.max) + "].";
}

}  // namespace detail

/// An object of a body, with the words that errors name it by. Null counts as absent, unknown keys are
/// ignored. Refers to its value, which must outlive it.
class Fields {
 public:
  /// \throws ApiFailure(kMalformed) when `value` is no object.
  Fields(const json::OrderedJson& value, Location location, ApiCompat compat)
      : value_(&value), location_(std::move(location)), compat_(compat) {
    if (!value.is_object()) throw malformed(location_, "dict_type", "expected an object");
  }

  [[nodiscard]] const json::OrderedJson& value() const { return *value_; }
  [[nodiscard]] ApiCompat compat() const { return compat_; }

  [[nodiscard]] Location location(std::string_view key) const {
    Location location = location_;
    location.emplace_back(key);
    return location;
  }

  /// None: absent or null.
  [[nodiscard]] const json::OrderedJson* find(std::string_view key) const {
    const auto at = value_->find(std::string(key));
    return at == value_->end() || at->is_null() ? nullptr : &*at;
  }
  [[nodiscard]] bool has(std::string_view key) const { return find(key) != nullptr; }

  /// \throws ApiFailure(kMalformed) when it is absent or null.
  [[nodiscard]] const json::OrderedJson& at(std::string_view key) const {
    const json::OrderedJson* value = find(key);
    if (value == nullptr) throw malformed(location(key), "missing", "Field required");
    return *value;
  }

  [[nodiscard]] bool boolean_or(std::string_view key, bool fallback) const {
    const json::OrderedJson* value = find(key);
    if (value == nullptr) return fallback;
    if (value->is_boolean()) return value->get<bool>();
    std::optional<bool> word;
    if (value->is_string()) word = detail::bool_of_word(value->get_ref<const std::string&>());
    if (value->is_number() && value->get<double>() == 1.0) word = true;
    if (value->is_number() && value->get<double>() == 0.0) word = false;
    if (!word) throw malformed(location(key), "bool_parsing", "expected true or false");
    return *word;
  }

  /// \throws ApiFailure(kMalformed, kOutOfRange).
  [[nodiscard]] std::optional<double> number(const NumberLimit& limit) const {
    const json::OrderedJson* value = find(limit.name);
    if (value == nullptr) return std::nullopt;
    const bool is_integer = limit.type == FieldType::kInteger;
    const auto found = is_integer ? detail::integer_of(*value) : detail::real_of(*value);
    if (!found) {
      throw is_integer ? malformed(location(limit.name), "int_type", "expected an integer")
                       : malformed(location(limit.name), "float_type", "expected a number");
    }
    if (is_within(limit, found->value)) return found->value;
    const std::string_view rule = found->value < limit.max ? limit.below : limit.above;
    throw ApiFailure(out_of_range(compat_, limit.name, found->shown,
                                  rule.empty() ? detail::range_rule(limit) : std::string(rule)));
  }

  [[nodiscard]] std::optional<std::int64_t> integer(const NumberLimit& limit) const {
    const auto value = number(limit);
    return value ? std::optional(static_cast<std::int64_t>(*value)) : std::nullopt;
  }

  /// None: absent. \throws ApiFailure(kMalformed)
  [[nodiscard]] const std::string* string(std::string_view key) const {
    const json::OrderedJson* value = find(key);
    if (value == nullptr) return nullptr;
    if (!value->is_string()) throw malformed(location(key), "string_type", "expected a string");
    return &value->get_ref<const std::string&>();
  }
  [[nodiscard]] std::string string_or(std::string_view key, std::string_view fallback) const {
    const std::string* value = string(key);
    return value == nullptr ? std::string(fallback) : *value;
  }
  [[nodiscard]] const std::string& required_string(std::string_view key) const {
    (void)at(key);
    return *string(key);
  }

  /// \throws ApiFailure(kMalformed) unless an object.
  [[nodiscard]] Fields object(std::string_view key) const {
    return {at(key), location(key), compat_};
  }

  /// \throws ApiFailure(kMalformed) unless an array of at most `max` values.
  [[nodiscard]] const json::OrderedJson& array(std::string_view key, std::size_t max) const {
    const json::OrderedJson& value = at(key);
    if (!value.is_array()) throw malformed(location(key), "list_type", "expected a list");
    require_count(key, value.size(), max);
    return value;
  }

  /// \throws ApiFailure(kMalformed) when there are more than `max`.
  void require_count(std::string_view key, std::size_t n, std::size_t max) const {
    if (n <= max) return;
    throw malformed(
        location(key), "too_long",
        "holds " + std::to_string(n) + " entries, at most " + std::to_string(max) + " are taken");
  }

  /// Token ids in [0, vocab_size), at most `max` of them.
  [[nodiscard]] std::vector<int> ids(std::string_view key, int vocab_size, std::size_t max) const {
    return ids_of(array(key, max), location(key), vocab_size);
  }

  /// The ids of an array. \throws ApiFailure(kMalformed)
  [[nodiscard]] static std::vector<int> ids_of(const json::OrderedJson& array,
                                               const Location& location,
                                               int vocab_size) {
    std::vector<int> ids;
    ids.reserve(array.size());
    for (const json::OrderedJson& item : array) {
      const bool is_id =
          item.is_number_integer() && item.get<double>() >= 0 && item.get<double>() < vocab_size;
      if (!is_id) {
        Location place = location;
        place.push_back(std::to_string(ids.size()));
        throw malformed(std::move(place), "int_type",
                        "expected a token id from 0 to " + std::to_string(vocab_size - 1));
      }
      ids.push_back(item.get<int>());
    }
    return ids;
  }

  /// \throws ApiFailure(kOutOfRange) naming the field, unless it is absent, false, zero or empty.
  void refuse_unless_empty(std::string_view key, std::string_view why) const {
    const json::OrderedJson* value = find(key);
    if (value == nullptr || value->empty()) return;
    if (value->is_string() && value->get_ref<const std::string&>().empty()) return;
    if (value->is_boolean() && !value->get<bool>()) return;
    if (value->is_number() && value->get<double>() == 0.0) return;
    throw refused(std::string(key) + " is not offered" + std::string(why) + '.');
  }

 private:
  const json::OrderedJson* value_;
  Location location_;
  ApiCompat compat_;
};

/// The body of a POST. `json::Bounds` are those of every request.
/// \throws ApiFailure(kMalformed) when it is no JSON object, is out of bounds, or is said to be something else.
[[nodiscard]] inline json::OrderedJson read_body(const ApiRequest& request) {
  std::string type(request.content_type.substr(0, request.content_type.find(';')));
  for (char& c : type)
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c + 32);
  const std::string_view bare = detail::trimmed(type);
  const bool is_json =
      bare == "application/json" || (bare.starts_with("application/") && bare.ends_with("+json"));
  if (!is_json) {
    throw malformed({"body"}, "model_attributes_type", "the Content-Type must be application/json");
  }
  try {
    return json::parse_bounded(request.body);
  } catch (const Error& e) {
    throw malformed({"body"}, "json_invalid", e.what());
  }
}

}  // namespace lmd::serve
