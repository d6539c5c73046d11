/// \file  What a stored key or value code means (KvFormat), and which pair a cache holds (KvScheme).
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/core/half.hpp>

#include <concepts>
#include <cstdint>
#include <type_traits>

namespace lmd::quant {

/// x = scale * code + zero, as stored. Codes are computed with these rounded values, never with
/// the unrounded ones, so that decode(encode(x)) is the nearest representable value.
struct AffineParams {
  Half scale;
  Half zero;
};

/// Which elements of a sealed page (64 tokens x head_dim of one head) share parameters.
enum class ParamAxis {
  kNone,     ///< no parameters: 16-bit formats
  kToken,    ///< one pair per token: "per head, per token"
  kChannel,  ///< one pair per element index over the page's 64 tokens
};

/// A KV format is an empty type: constants say what it stores, three static functions say what a
/// code means. They run on host and device alike, so a format is defined exactly once. Where a
/// code lies is not its business: see cache/sealed_unit.hpp.
template <class F>
concept KvFormat = std::is_empty_v<F> && requires(float x, std::uint32_t code, AffineParams p) {
  { F::kName } -> std::convertible_to<const char*>;
  { F::kBits } -> std::convertible_to<int>;
  { F::kAxis } -> std::convertible_to<ParamAxis>;
  { F::fit(x, x) } -> std::same_as<AffineParams>;  // from the smallest and the largest element
  { F::encode(x, p) } -> std::same_as<std::uint32_t>;
  { F::decode(code, p) } -> std::same_as<float>;
};

/// What a cache holds: a format for keys, one for values, and the number on the command line.
template <class S>
concept KvScheme =
    std::is_empty_v<S> && KvFormat<typename S::Key> && KvFormat<typename S::Value> && requires {
  { S::kName } -> std::convertible_to<const char*>;
  { S::kQuantPolicy } -> std::convertible_to<int>;
};

}  // namespace lmd::quant
