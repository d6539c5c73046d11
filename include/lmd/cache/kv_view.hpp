/// \file  What kernels see of one sequence's cache in one layer. Trivially copyable.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/cache/tile.hpp>
#include <lmd/core/half.hpp>

namespace lmd::cache {

/// A query at position p reads keys and values of its own page, p / 64, at 16 bit from an open page
/// and those of earlier pages as sealed. Its own page is sealed after this layer's attention, once
/// it is full. The rule depends on positions alone, so chunking, batching and prefix reuse never
/// change a result. A prompt of n tokens can reuse up to (n - 1) / 64 pages: its last query needs
/// its own page at 16 bit.
struct KvView {
  const std::uint8_t* pool = nullptr;      ///< this layer's part of page 0
  const std::int32_t* page_ids = nullptr;  ///< [pages] this sequence's sealed pages, by position
  std::int64_t page_bytes = 0;             ///< from one page id to the next, in this layer
  const Half* open_keys = nullptr;         ///< [kv_heads, head_dim, 64] after RoPE
  const Half* open_values = nullptr;       ///< [kv_heads, 64, head_dim]

  [[nodiscard]] LMD_HD const std::uint8_t* unit(int page, int kvh, int unit_bytes) const {
    return pool + page_ids[page] * page_bytes + std::int64_t{kvh} * unit_bytes;
  }
};

}  // namespace lmd::cache
