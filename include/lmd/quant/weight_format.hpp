/// \file  What a stored weight code means: the WeightFormat concept and the built-in formats.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/core/activation.hpp>
#include <lmd/core/bfloat16.hpp>
#include <lmd/core/half.hpp>
#include <lmd/core/type_list.hpp>

#include <bit>
#include <concepts>
#include <cstdint>
#include <type_traits>

namespace lmd::quant {

/// A weight format is an empty type: what a code means, given its group's parameters. A group is
/// kGroupSize neighbouring input features of one output feature. Where codes and parameters lie is
/// a layout's business: see quant/weight_layout.hpp.
template <class W>
concept WeightFormat = std::is_empty_v<W> &&
    requires(std::uint32_t code, typename W::Params params) {
  { W::kName } -> std::convertible_to<const char*>;
  { W::kBits } -> std::convertible_to<int>;
  { W::kGroupSize } -> std::convertible_to<int>;  // 0: no parameters
  { W::decode(code, params) } -> std::same_as<float>;
};

struct NoParams {};

struct WeightFloat {
  using Params = NoParams;
  static constexpr const char* kName = "f32";
  static constexpr int kBits = 32;
  static constexpr int kGroupSize = 0;
  static LMD_HD float decode(std::uint32_t code, Params) {
#if defined(__CUDA_ARCH__)
    return __uint_as_float(code);
#else
    return std::bit_cast<float>(code);
#endif
  }
};

struct WeightHalf {
  using Params = NoParams;
  static constexpr const char* kName = "f16";
  static constexpr int kBits = 16;
  static constexpr int kGroupSize = 0;
  static LMD_HD float decode(std::uint32_t code, Params) {
    return to_float(Half{static_cast<std::uint16_t>(code)});
  }
};

struct WeightBFloat16 {
  using Params = NoParams;
  static constexpr const char* kName = "bf16";
  static constexpr int kBits = 16;
  static constexpr int kGroupSize = 0;
  static LMD_HD float decode(std::uint32_t code, Params) {
    return to_float(BFloat16{static_cast<std::uint16_t>(code)});
  }
};

/// The format of weights that are numbers of type T.
template <Activation T>
using NumberFormat =
    std::conditional_t<std::same_as<T, float>,
                       WeightFloat,
                       std::conditional_t<std::same_as<T, Half>, WeightHalf, WeightBFloat16>>;

/// AWQ: w = (code - zero) * scale with an integer zero point of the same width.
template <int GroupSize>
  requires(GroupSize == 32 || GroupSize == 64 || GroupSize == 128)
struct WeightInt4 {
  struct Params {
    Half scale;
    std::uint8_t zero;  ///< 0 .. 15
    std::uint8_t unused;
  };
  static constexpr const char* kName = GroupSize == 32   ? "awq4g32"
                                       : GroupSize == 64 ? "awq4g64"
                                                         : "awq4g128";
  static constexpr int kBits = 4;
  static constexpr int kGroupSize = GroupSize;
  static LMD_HD float decode(std::uint32_t code, Params p) {
    return static_cast<float>(static_cast<int>(code) - p.zero) * to_float(p.scale);
  }
};

/// w = scale * code + minimum, as GGUF's Q4_1 stores it.
template <int GroupSize>
  requires(GroupSize == 32)
struct WeightAffine4 {
  struct Params {
    Half scale;
    Half minimum;
  };
  static constexpr const char* kName = "affine4g32";
  static constexpr int kBits = 4;
  static constexpr int kGroupSize = GroupSize;
  static LMD_HD float decode(std::uint32_t code, Params p) {
    return to_float(p.scale) * static_cast<float>(code) + to_float(p.minimum);
  }
};

/// w = scale * code with a signed code, as GGUF's Q8_0 stores it.
template <int GroupSize>
  requires(GroupSize == 32)
struct WeightInt8 {
  struct Params {
    Half scale;
  };
  static constexpr const char* kName = "int8g32";
  static constexpr int kBits = 8;
  static constexpr int kGroupSize = GroupSize;
  static LMD_HD float decode(std::uint32_t code, Params p) {
    return to_float(p.scale) * static_cast<float>(static_cast<std::int8_t>(code));
  }
};

/// Everything that must know all formats walks this list; a format's place in it is its number.
using WeightFormats = TypeList<WeightFloat,
                               WeightHalf,
                               WeightBFloat16,
                               WeightInt4<32>,
                               WeightInt4<64>,
                               WeightInt4<128>,
                               WeightAffine4<32>,
                               WeightInt8<32>>;

static_assert(WeightFormat<WeightFloat> && WeightFormat<WeightHalf> &&
                  WeightFormat<WeightBFloat16> && WeightFormat<WeightInt4<128>> &&
                  WeightFormat<WeightAffine4<32>> && WeightFormat<WeightInt8<32>>,
              "a format that misses a member fails here, not in a kernel");

}  // namespace lmd::quant
