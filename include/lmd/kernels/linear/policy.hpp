/// \file  What a linear kernel is compiled for: a weight format, where its codes lie, activations.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/core/activation.hpp>
#include <lmd/quant/fragment_weights.hpp>

namespace lmd::kernels {

/// Meaning of the weights and their order in memory. One kernel exists per distinct policy.
template <quant::WeightFormat W, class OrderT = quant::PlainOrder>
struct WeightPolicy {
  using Format = W;
  using Order = OrderT;
  using Act = float;
  using Weights = quant::RowWeights<W, OrderT>;
};

/// What the Cuda backend runs: weights in fragment order, activations of 16 bits.
template <quant::WeightFormat W, Activation T>
struct FragmentPolicy {
  using Format = W;
  using Act = T;
  using Weights = quant::FragmentWeights<W>;
};

/// What kernels ask of their policy: users may pass their own type instead of these.
template <class P>
concept LinearPolicy =
    quant::WeightFormat<typename P::Format> && Activation<typename P::Act> && requires {
  typename P::Weights;
};

}  // namespace lmd::kernels
