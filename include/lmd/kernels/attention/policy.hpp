/// \file  What attention is compiled for (KvPolicy): a KV scheme, a head size, tiles.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/cache/fragment_tile.hpp>
#include <lmd/cache/sealed_unit.hpp>

namespace lmd::kernels {

/// Meaning: which codes are read, and how. One kernel exists per distinct KvPolicy.
template <quant::KvScheme S,
          int HeadDim,
          template <int, int> class KeyTile = cache::ChannelMajorTile,
          template <int, int> class ValueTile = cache::TokenMajorTile,
          class OpenOrder = cache::PlainOpenOrder>
struct KvPolicy {
  using Scheme = S;
  using Open = OpenOrder;
  using Unit = cache::SealedUnit<S, HeadDim, KeyTile, ValueTile>;
  static constexpr int kHeadDim = HeadDim;
  static_assert(HeadDim % 32 == 0,
                "a register of 16 or 32 lanes covers a head with whole registers");
};

/// What the Cuda backend runs: pages in the order of tensor-core fragments.
template <quant::KvScheme S, int HeadDim>
using FragmentKvPolicy = KvPolicy<S,
                                  HeadDim,
                                  cache::FragmentKeyTile,
                                  cache::FragmentValueTile,
                                  cache::FragmentOpenOrder>;

/// What kernels ask of their policy: users may pass their own type instead of KvPolicy.
template <class P>
concept AttentionPolicy = quant::KvScheme<typename P::Scheme> && requires {
  { P::kHeadDim } -> std::convertible_to<int>;
  { P::Unit::kBytes } -> std::convertible_to<int>;
  typename P::Open;
};

}  // namespace lmd::kernels
