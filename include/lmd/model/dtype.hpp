/// \file  Element types of tensors in model files, and how names and shapes stand in messages.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/core/bfloat16.hpp>
#include <lmd/core/half.hpp>
#include <lmd/core/math.hpp>

#include <cstdint>
#include <cstring>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace lmd::model {

/// Called while a long step runs. Units: bytes.
using Progress = std::function<void(std::int64_t done_bytes, std::int64_t total_bytes)>;

enum class DType { kF64, kF32, kF16, kBF16, kF8E4M3, kF8E5M2, kI64, kI32, kI16, kI8, kU8, kBool };

struct DTypeFacts {
  DType dtype;
  const char* name;  ///< as a safetensors header spells it
  int bytes;         ///< of one element
};

inline constexpr DTypeFacts kDTypes[] = {
    {DType::kF64, "F64", 8},   {DType::kF32, "F32", 4},        {DType::kF16, "F16", 2},
    {DType::kBF16, "BF16", 2}, {DType::kF8E4M3, "F8_E4M3", 1}, {DType::kF8E5M2, "F8_E5M2", 1},
    {DType::kI64, "I64", 8},   {DType::kI32, "I32", 4},        {DType::kI16, "I16", 2},
    {DType::kI8, "I8", 1},     {DType::kU8, "U8", 1},          {DType::kBool, "BOOL", 1},
};
static_assert(
    [] {
      int i = 0;
      for (const DTypeFacts& f : kDTypes)
        if (static_cast<int>(f.dtype) != i++) return false;
      return true;
    }(),
    "a dtype is its row in the table");

[[nodiscard]] constexpr const char* name_of(DType dtype) {
  return kDTypes[static_cast<int>(dtype)].name;
}

[[nodiscard]] constexpr int bytes_of(DType dtype) {
  return kDTypes[static_cast<int>(dtype)].bytes;
}

[[nodiscard]] inline std::optional<DType> dtype_named(std::string_view name) {
  for (const DTypeFacts& f : kDTypes)
    if (name == f.name) return f.dtype;
  return std::nullopt;
}

/// True for the three types that a weight may be stored in unquantised.
[[nodiscard]] constexpr bool is_weight_float(DType dtype) {
  return dtype == DType::kF32 || dtype == DType::kF16 || dtype == DType::kBF16;
}

using Shape = std::vector<std::int64_t>;

/// As it stands in messages: [2, 3].
[[nodiscard]] inline std::string to_string(const Shape& shape) {
  std::string text = "[";
  for (const std::int64_t n : shape)
    text += (text.size() > 1 ? ", " : "") + std::to_string(n);
  return text + "]";
}

/// Number of bytes of a tensor, or nothing where the product overflows or a size is negative.
[[nodiscard]] inline std::optional<std::int64_t> size_in_bytes(const Shape& shape, DType dtype) {
  std::int64_t bytes = bytes_of(dtype);
  for (const std::int64_t n : shape)
    if (!checked_mul(bytes, n, bytes)) return std::nullopt;
  return bytes;
}

/// Stored numbers -> float, exactly.
///
/// Shapes:  from: n elements of `dtype`, little endian, unaligned; to [n].
/// \pre     is_weight_float(dtype)
inline void to_floats(DType dtype, const void* from, std::int64_t n, float* to) {
  const auto* at = static_cast<const std::uint8_t*>(from);
  if (dtype == DType::kF32) {
    std::memcpy(to, at, static_cast<std::size_t>(n) * sizeof(float));
    return;
  }
  for (std::int64_t i = 0; i < n; ++i) {
    std::uint16_t bits = 0;
    std::memcpy(&bits, at + 2 * i, sizeof bits);
    to[i] = dtype == DType::kF16 ? to_float(Half{bits}) : to_float(BFloat16{bits});
  }
}

/// Floats -> stored numbers, rounded to nearest even. Returns the first index whose finite value
/// became infinite, or -1.
///
/// Shapes:  from [n]; to: n elements of `dtype`, unaligned.
/// \pre     is_weight_float(dtype)
[[nodiscard]] inline std::int64_t from_floats(DType dtype,
                                              const float* from,
                                              std::int64_t n,
                                              void* to) {
  auto* at = static_cast<std::uint8_t*>(to);
  if (dtype == DType::kF32) {
    std::memcpy(at, from, static_cast<std::size_t>(n) * sizeof(float));
    return -1;
  }
  const std::uint16_t infinity = dtype == DType::kF16 ? 0x7c00 : 0x7f80;
  std::int64_t overflow = -1;
  for (std::int64_t i = 0; i < n; ++i) {
    const std::uint16_t bits =
        dtype == DType::kF16 ? to_half(from[i]).bits : to_bfloat16(from[i]).bits;
    if ((bits & 0x7fff) == infinity && overflow < 0 && std::isfinite(from[i])) overflow = i;
    std::memcpy(at + 2 * i, &bits, sizeof bits);
  }
  return overflow;
}

}  // namespace lmd::model
