/// \file  A logit and its token as one number, in the order of the greedy choice.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/core/config.hpp>

#include <bit>
#include <cmath>
#include <cstdint>

namespace lmd::kernels {

/// The order of `argmax` as one number: a smaller key is a larger logit, or the lower id of equals.
/// Sums and limits in this order do not depend on which block holds which logit.
///
///   | 32 bits: the logit, order reversed | 20 bits: id |
inline constexpr int kIdBits = 20;
inline constexpr int kKeyBits = 32 + kIdBits;
inline constexpr int kMaxVocab = 1 << kIdBits;
inline constexpr std::uint64_t kInvalidKey = 0;  ///< before every other: a logit was NaN or +inf
inline constexpr std::uint64_t kNoKey = ~std::uint64_t{0};

/// Of a logit that is not NaN.
LMD_HD std::uint64_t rank_key(float x, int id) {
  x += 0.0f;  // -0 becomes 0: they are equal
#if defined(__CUDA_ARCH__)
  const std::uint32_t bits = __float_as_uint(x);
#else
  const std::uint32_t bits = std::bit_cast<std::uint32_t>(x);
#endif
  const std::uint32_t ascending = (bits & 0x80000000u) != 0 ? ~bits : bits | 0x80000000u;
  return std::uint64_t{~ascending} << kIdBits | static_cast<std::uint32_t>(id);
}

LMD_HD float key_logit(std::uint64_t key) {
  const auto ascending = ~static_cast<std::uint32_t>(key >> kIdBits);
  const std::uint32_t bits = (ascending & 0x80000000u) != 0 ? ascending & 0x7fffffffu : ~ascending;
#if defined(__CUDA_ARCH__)
  return __uint_as_float(bits);
#else
  return std::bit_cast<float>(bits);
#endif
}

LMD_HD int key_id(std::uint64_t key) {
  return static_cast<int>(key & (kMaxVocab - 1));
}

/// The key of any logit: kInvalidKey where `argmax` has no answer because of it.
LMD_HD std::uint64_t checked_rank_key(float x, int id) {
  return x < INFINITY ? rank_key(x, id) : kInvalidKey;
}

/// The token of the best key of a row, -1 where there is none.
LMD_HD int best_token(std::uint64_t key) {
  return key == kInvalidKey || !(key_logit(key) > -INFINITY) ? -1 : key_id(key);
}

}  // namespace lmd::kernels
