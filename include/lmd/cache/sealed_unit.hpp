/// \file  The bytes of one sealed (page, KV head) pair, and the one function that reads them.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/cache/tile.hpp>
#include <lmd/core/math.hpp>
#include <lmd/quant/kv_format.hpp>

namespace lmd::cache {

/// Sealed units are immutable, contiguous, and start at multiples of 128 bytes:
///
///   | codes of 64 keys | codes of 64 values | key parameters | value parameters | padding |
template <quant::KvScheme S,
          int HeadDim,
          template <int, int> class KeyTileOf = ChannelMajorTile,
          template <int, int> class ValueTileOf = TokenMajorTile>
struct SealedUnit {
  using Scheme = S;
  using KeyTile = KeyTileOf<S::Key::kBits, HeadDim>;
  using ValueTile = ValueTileOf<S::Value::kBits, HeadDim>;
  static constexpr int kHeadDim = HeadDim;

  /// Parameter pairs of one tile.
  static LMD_HD constexpr int n_params(quant::ParamAxis axis) {
    return axis == quant::ParamAxis::kNone    ? 0
           : axis == quant::ParamAxis::kToken ? kPageTokens
                                              : HeadDim;
  }
  static constexpr int kValuesAt = KeyTile::kBytes;
  static constexpr int kKeyParamsAt = kValuesAt + ValueTile::kBytes;
  static constexpr int kValueParamsAt =
      kKeyParamsAt + n_params(S::Key::kAxis) * static_cast<int>(sizeof(quant::AffineParams));
  static constexpr int kBytes = round_up(
      kValueParamsAt + n_params(S::Value::kAxis) * static_cast<int>(sizeof(quant::AffineParams)),
      128);

  static LMD_HD float key(const std::uint8_t* unit, int t, int d) {
    return S::Key::decode(load_code<KeyTile>(unit, t, d),
                          params<typename S::Key, KeyTile>(unit + kKeyParamsAt, t, d));
  }
  static LMD_HD float value(const std::uint8_t* unit, int t, int d) {
    return S::Value::decode(load_code<ValueTile>(unit + kValuesAt, t, d),
                            params<typename S::Value, ValueTile>(unit + kValueParamsAt, t, d));
  }

 private:
  template <quant::KvFormat F, class Tile>
  static LMD_HD quant::AffineParams params(const std::uint8_t* at, int t, int d) {
    if constexpr (F::kAxis == quant::ParamAxis::kNone) {
      return {};
    } else {
      const auto* p = reinterpret_cast<const quant::AffineParams*>(at);
      return p[F::kAxis == quant::ParamAxis::kToken ? Tile::token_params_at(t) : d];
    }
  }
};

}  // namespace lmd::cache
