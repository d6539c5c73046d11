/// \file  What seal_step is called with. Plain data, the same for every policy.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/kernels/attention/step.hpp>

namespace lmd::kernels {

/// One decode step, all layers at once.
struct SealStepArgs {
  const SequenceChunk* chunks = nullptr;  ///< device [n_chunks], one token each; open_keys and
                                          ///< open_values point at layer 0
  int n_chunks = 0;
  int layers = 0;
  int kv_heads = 0;
  std::int64_t open_layer_stride = 0;  ///< elements from a layer's open keys (values) to the next's
  std::uint8_t* pool = nullptr;        ///< page 0, layer 0
  std::int64_t page_bytes = 0;         ///< from one page id to the next
  std::int64_t layer_bytes = 0;        ///< from one layer to the next in a page
};

}  // namespace lmd::kernels
