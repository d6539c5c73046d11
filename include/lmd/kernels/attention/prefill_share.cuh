/// \file  How prefill is shared out among blocks: columns of one page and KV head.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/kernels/attention/prefill_append.cuh>

namespace lmd::kernels::detail {

/// (token, query head) pairs that a block has at most.
inline constexpr int kBlockColumns = 128;

/// Blocks that the columns of a whole page and one KV head take.
LMD_HD constexpr int blocks_of_page(int group) {
  return ceil_div(cache::kPageTokens * group, kBlockColumns);
}

/// A block's share: up to kBlockColumns columns of one page and KV head. Column c is query head
/// c % group of the group, at token begin + c / group of the page.
struct PrefillShare {
  PageSpan span;
  int group = 0;
  int kvh = 0;
  int first_column = 0;
  int n_columns = 0;  ///< of this block; none: nothing to do
  int quarters = 0;   ///< of the block's own page that its columns see

  /// The token within the page of one of the block's columns.
  [[nodiscard]] __device__ __forceinline__ int token_of(int column) const {
    return span.begin + (first_column + column) / group;
  }
  /// The query head of a column.
  [[nodiscard]] __device__ __forceinline__ int head_of(int column) const {
    return kvh * group + (first_column + column) % group;
  }
};

/// Share `i` of pages * kv_heads * blocks_of_page. Late pages come first: they take longest.
template <int HeadDim, Activation T>
__device__ __forceinline__ void find_share(const PrefillStepArgs<T>& args,
                                           int i,
                                           PrefillShare& share) {
  share.group = args.step.heads / args.step.kv_heads;
  const int blocks = blocks_of_page(share.group);
  share.kvh = i / blocks % args.step.kv_heads;
  share.first_column = i % blocks * kBlockColumns;
  const int page = args.n_pages - 1 - i / (blocks * args.step.kv_heads);
  share.span = page_span<HeadDim>(args, page);
  const int columns = (share.span.end - share.span.begin) * share.group;
  share.n_columns = min(columns - share.first_column, kBlockColumns);
  share.quarters = share.token_of(share.n_columns - 1) / 16 + 1;
}

}  // namespace lmd::kernels::detail
