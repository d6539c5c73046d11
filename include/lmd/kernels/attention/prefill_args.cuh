/// \file  What prefill_step is called with. Plain data, the same for every policy.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/kernels/attention/step.hpp>

namespace lmd::kernels {

/// One page of the cache that tokens of a chunk lie in.
struct PrefillPage {
  std::int32_t chunk = 0;
  std::int32_t page = 0;  ///< position in the sequence / 64
};

template <Activation T>
struct PrefillStepArgs {
  /// chunks [n_chunks] lie in device memory, each of any number of tokens.
  BasicAttentionStepArgs<T> step;
  std::int64_t open_at = 0;  ///< elements from a chunk's open keys and values to this layer's
  const PrefillPage* pages = nullptr;  ///< device [n_pages] all that a chunk's tokens lie in, in
                                       ///< order, chunk after chunk
  int n_pages = 0;
  /// [n_pages][keys, values][kv_heads, 64 * head_dim] in the open order: of full pages, whose own
  /// queries read them at 16 bit.
  Half* scratch = nullptr;
};

}  // namespace lmd::kernels
