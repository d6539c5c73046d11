/// \file  Sealing a full page, host backend: the definition of the operation.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/cache/sealed_unit.hpp>
#include <lmd/core/backend.hpp>

#include <cmath>

namespace lmd::kernels {

struct SealArgs {
  std::uint8_t* unit = nullptr;  ///< [U::kBytes] of one page and KV head
  const Half* keys = nullptr;    ///< [head_dim * 64] after RoPE, in the open order
  const Half* values = nullptr;  ///< [head_dim * 64] in the open order
};

namespace detail {

/// Fits parameters along the format's axis, then codes every element with the stored ones.
/// `at(t, d)` is element d of token t.
template <quant::KvFormat F, class Tile, int HeadDim, class At>
void seal_tile(std::uint8_t* tile, std::uint8_t* params, At&& at) {
  const bool per_token = F::kAxis == quant::ParamAxis::kToken;
  const int outer = per_token ? cache::kPageTokens : HeadDim;
  const int inner = per_token ? HeadDim : cache::kPageTokens;
  for (int o = 0; o < outer; ++o) {
    const auto element = [&](int i) { return per_token ? at(o, i) : at(i, o); };
    float lo = element(0);
    float hi = lo;
    for (int i = 1; i < inner; ++i) {
      lo = std::fmin(lo, element(i));
      hi = std::fmax(hi, element(i));
    }
    // A zero has no sign here: which of two zeros is the smallest would depend on the order.
    const quant::AffineParams p = F::fit(lo + 0.0f, hi);
    if constexpr (F::kAxis != quant::ParamAxis::kNone) {
      reinterpret_cast<quant::AffineParams*>(params)[per_token ? Tile::token_params_at(o) : o] = p;
    }
    for (int i = 0; i < inner; ++i) {
      const int t = per_token ? o : i;
      const int d = per_token ? i : o;
      cache::store_code<Tile>(tile, t, d, F::encode(at(t, d), p));
    }
  }
}

}  // namespace detail

/// Quantises one full page of one KV head. From then on the unit is immutable.
template <class U, class Open = cache::PlainOpenOrder>
void seal_unit(Host, const SealArgs& a) {
  using S = typename U::Scheme;
  constexpr int kDim = U::kHeadDim;
  detail::seal_tile<typename S::Key, typename U::KeyTile, kDim>(
      a.unit, a.unit + U::kKeyParamsAt,
      [&](int t, int d) { return to_float(a.keys[Open::key_at(t, d, kDim)]); });
  detail::seal_tile<typename S::Value, typename U::ValueTile, kDim>(
      a.unit + U::kValuesAt, a.unit + U::kValueParamsAt,
      [&](int t, int d) { return to_float(a.values[Open::value_at(t, d, kDim)]); });
}

}  // namespace lmd::kernels
