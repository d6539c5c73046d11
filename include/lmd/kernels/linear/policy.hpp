/// \file  What a linear kernel is compiled for: a weight format and where its codes lie.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/quant/weight_layout.hpp>

namespace lmd::kernels {

/// Meaning of the weights and their order in memory. One kernel exists per distinct policy.
template <quant::WeightFormat W, class OrderT = quant::PlainOrder>
struct WeightPolicy {
  using Format = W;
  using Order = OrderT;
  using Weights = quant::RowWeights<W, OrderT>;
};

/// What kernels ask of their policy: users may pass their own type instead of WeightPolicy.
template <class P>
concept LinearPolicy = quant::WeightFormat<typename P::Format> && requires {
  typename P::Order;
  typename P::Weights;
};

}  // namespace lmd::kernels
