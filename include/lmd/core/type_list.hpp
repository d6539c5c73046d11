/// \file  Compile-time list of types, and the one loop over it that the project needs.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <type_traits>
#include <utility>

namespace lmd {

template <class... Ts>
struct TypeList {
  static constexpr std::size_t kSize = sizeof...(Ts);
};

/// Calls `f(std::type_identity<T>{})` for every T of the list, in order.
template <class... Ts, class F>
constexpr void for_each_type(TypeList<Ts...>, F&& f) {
  (f(std::type_identity<Ts>{}), ...);
}

/// Calls `f` for the first T with `match(type_identity<T>)`; false if there is none.
template <class... Ts, class Match, class F>
constexpr bool visit_first(TypeList<Ts...>, Match&& match, F&& f) {
  return ((match(std::type_identity<Ts>{}) ? (f(std::type_identity<Ts>{}), true) : false) || ...);
}

}  // namespace lmd
