/// \file  The KV formats and schemes this library ships, and the list everything iterates over.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/core/type_list.hpp>
#include <lmd/quant/kv_format.hpp>

namespace lmd::quant {

/// Half precision, no parameters.
struct KvHalf {
  static constexpr const char* kName = "f16";
  static constexpr int kBits = 16;
  static constexpr ParamAxis kAxis = ParamAxis::kNone;

  static LMD_HD AffineParams fit(float, float) { return {}; }
  static LMD_HD std::uint32_t encode(float x, AffineParams) { return to_half(x).bits; }
  static LMD_HD float decode(std::uint32_t code, AffineParams) {
    return to_float(Half{static_cast<std::uint16_t>(code)});
  }
};

/// Unsigned codes of `Bits` bits with a scale and a zero point.
template <int Bits, ParamAxis Axis>
  requires(Bits == 4 || Bits == 8)
struct KvAffine {
  static constexpr const char* kName = Bits == 4 ? "int4" : "int8";
  static constexpr int kBits = Bits;
  static constexpr ParamAxis kAxis = Axis;
  static constexpr int kMaxCode = (1 << Bits) - 1;

  /// A constant gets scale 1, so that decode returns it and nothing divides by 0.
  static LMD_HD AffineParams fit(float lo, float hi) {
    const Half scale = to_half((hi - lo) / kMaxCode);
    return {to_float(scale) > 0.0f ? scale : to_half(1.0f), to_half(lo)};
  }

  /// Rounds half up and saturates.
  static LMD_HD std::uint32_t encode(float x, AffineParams p) {
    const float code = floorf((x - to_float(p.zero)) / to_float(p.scale) + 0.5f);
    return static_cast<std::uint32_t>(fminf(fmaxf(code, 0.0f), static_cast<float>(kMaxCode)));
  }

  static LMD_HD float decode(std::uint32_t code, AffineParams p) {
    return to_float(p.scale) * static_cast<float>(code) + to_float(p.zero);
  }
};

using KvInt8 = KvAffine<8, ParamAxis::kToken>;
using KvInt4 = KvAffine<4, ParamAxis::kToken>;
using KvInt4Channel = KvAffine<4, ParamAxis::kChannel>;

namespace detail {
template <class F>
inline constexpr bool kIsKvAffine = false;
template <int Bits, ParamAxis Axis>
inline constexpr bool kIsKvAffine<KvAffine<Bits, Axis>> = true;
}  // namespace detail

/// Formats whose codes SIMD kernels read and write by the register: halves, or scale * code + zero.
/// They do not call the format's functions, so another meaning must not reach them; Host takes any.
template <class F>
concept SimdKvFormat = std::is_same_v<F, KvHalf> || detail::kIsKvAffine<F>;

struct Kv16 {
  using Key = KvHalf;
  using Value = KvHalf;
  static constexpr const char* kName = "16";
  static constexpr int kQuantPolicy = 0;
};
struct Kv8 {
  using Key = KvInt8;
  using Value = KvInt8;
  static constexpr const char* kName = "8";
  static constexpr int kQuantPolicy = 8;
};
struct Kv4 {
  using Key = KvInt4;
  using Value = KvInt4;
  static constexpr const char* kName = "4";
  static constexpr int kQuantPolicy = 4;
};
/// Keys decide where attention looks and tolerate less than values, which are averaged.
struct Kv8V4 {
  using Key = KvInt8;
  using Value = KvInt4;
  static constexpr const char* kName = "k8v4";
  static constexpr int kQuantPolicy = 84;
};
/// Keys share parameters along a channel of a page: the outliers of keys sit in fixed channels.
struct Kv4c {
  using Key = KvInt4Channel;
  using Value = KvInt4;
  static constexpr const char* kName = "4c";
  static constexpr int kQuantPolicy = 40;
};

/// Dispatch, tests, benchmarks and error messages all walk this list; nothing else names them all.
using KvSchemes = TypeList<Kv16, Kv8, Kv4, Kv8V4, Kv4c>;

static_assert(KvScheme<Kv16> && KvScheme<Kv8> && KvScheme<Kv4> && KvScheme<Kv8V4> && KvScheme<Kv4c>,
              "a scheme that misses a member fails here, not in a kernel");

}  // namespace lmd::quant
