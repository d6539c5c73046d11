/// \file  JSON from strangers: parsed in one pass with bounds, the order of keys kept.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/core/error.hpp>
#include <lmd/json/json.hpp>

#include <algorithm>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace lmd::json {

/// What a text may hold.
struct Bounds {
  int depth = kMaxDepth;
  std::int64_t values = 100'000;  ///< numbers, strings, words, arrays and objects together
  std::size_t key_bytes = 1024;
};

namespace detail {

/// Builds the value; says no at the first event that is out of bounds.
class BoundedBuilder {
 public:
  explicit BoundedBuilder(const Bounds& bounds) : bounds_(bounds) {}

  [[nodiscard]] const std::string& complaint() const { return complaint_; }
  [[nodiscard]] OrderedJson take() { return std::move(root_); }

  // What the library's parser calls.
  bool null() { return add(nullptr); }
  bool boolean(bool value) { return add(value); }
  bool number_integer(std::int64_t value) { return add(value); }
  bool number_unsigned(std::uint64_t value) { return add(value); }
  bool number_float(double value, const std::string&) { return add(value); }
  bool string(std::string& value) { return add(std::move(value)); }
  bool binary(OrderedJson::binary_t&) { return refuse("holds binary data"); }
  bool start_object(std::size_t) { return open(OrderedJson::object()); }
  bool start_array(std::size_t) { return open(OrderedJson::array()); }
  bool end_array() {
    open_.pop_back();
    return true;
  }
  bool end_object() {
    const auto& members = open_.back()->get_ref<const OrderedJson::object_t&>();
    std::vector<std::string_view> keys;
    keys.reserve(members.size());
    for (const auto& [key, value] : members)
      keys.emplace_back(key);
    std::ranges::sort(keys);
    open_.pop_back();
    const bool is_unique = std::ranges::adjacent_find(keys) == keys.end();
    return is_unique || refuse("has a key twice in one object");
  }
  bool key(std::string& value) {
    if (value.size() > bounds_.key_bytes) {
      return refuse("has a key of more than " + std::to_string(bounds_.key_bytes) + " bytes");
    }
    key_ = std::move(value);
    return true;
  }
  template <class Exception>
  bool parse_error(std::size_t byte, const std::string&, const Exception& e) {
    constexpr int kOutOfRange = 406;  // of the library's numbers of exceptions
    return refuse(e.id == kOutOfRange ? std::string("holds a number beyond the range of a double")
                                      : "is not valid JSON at byte " + std::to_string(byte));
  }

 private:
  bool refuse(std::string complaint) {
    if (complaint_.empty()) complaint_ = std::move(complaint);
    return false;
  }

  /// Where the next value goes.
  OrderedJson& place(OrderedJson value) {
    if (open_.empty()) return root_ = std::move(value);
    OrderedJson& parent = *open_.back();
    if (parent.is_array()) {
      auto& items = parent.get_ref<OrderedJson::array_t&>();
      return items.emplace_back(std::move(value));
    }
    // Straight to the vector behind the map, which would look for the key at each insertion.
    using Members = OrderedJson::object_t::Container;
    Members& members = parent.get_ref<OrderedJson::object_t&>();
    return members.emplace_back(std::move(key_), std::move(value)).second;
  }

  bool add(OrderedJson value) {
    if (++n_values_ > bounds_.values) {
      return refuse("has more than " + std::to_string(bounds_.values) + " values");
    }
    (void)place(std::move(value));
    return true;
  }

  bool open(OrderedJson value) {
    if (std::ssize(open_) >= bounds_.depth) {
      return refuse("is nested more than " + std::to_string(bounds_.depth) + " deep");
    }
    if (++n_values_ > bounds_.values) {
      return refuse("has more than " + std::to_string(bounds_.values) + " values");
    }
    open_.push_back(&place(std::move(value)));
    return true;
  }

  Bounds bounds_;
  OrderedJson root_;
  std::vector<OrderedJson*> open_;  // a parent grows only while its last child is closed
  std::string key_;
  std::int64_t n_values_ = 0;
  std::string complaint_;
};

}  // namespace detail

/// \throws Error(kFormat) whose text says in fixed words what is wrong ("is not valid JSON at byte 7",
///         "is nested more than 64 deep", ...) and repeats nothing of `text`.
[[nodiscard]] inline OrderedJson parse_bounded(std::string_view text, const Bounds& bounds = {}) {
  detail::BoundedBuilder builder(bounds);
  const bool is_ok = OrderedJson::sax_parse(text.begin(), text.end(), &builder);
  LMD_REQUIRE(is_ok, ErrorCode::kFormat, builder.complaint());
  return builder.take();
}

/// A value as compact JSON text on one line.
[[nodiscard]] inline std::string to_text(const OrderedJson& value) {
  return value.dump();
}

}  // namespace lmd::json
