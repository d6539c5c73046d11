/// \file  Sizes and offsets of a model's cache: the one function for each.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/cache/tile.hpp>

namespace lmd::cache {

/// Sealed pages lie in a pool, one after another:   page | layer | KV head | sealed unit
/// A slot's open page lies apart, at 16 bit:        layer | keys, values | KV head | 64 x head_dim
struct CacheGeometry {
  int n_layers = 0;
  int kv_heads = 0;
  int head_dim = 0;
  int unit_bytes = 0;  ///< of one sealed page of one KV head in one layer

  [[nodiscard]] std::int64_t layer_bytes() const { return std::int64_t{kv_heads} * unit_bytes; }
  [[nodiscard]] std::int64_t page_bytes() const { return n_layers * layer_bytes(); }

  /// Elements of the open keys, or of the open values, of one layer.
  [[nodiscard]] std::int64_t open_tile() const {
    return std::int64_t{kv_heads} * kPageTokens * head_dim;
  }
  /// Elements of a slot.
  [[nodiscard]] std::int64_t open_elements() const {
    return std::int64_t{2} * n_layers * open_tile();
  }
  [[nodiscard]] std::int64_t open_keys_at(int layer) const {
    return std::int64_t{2} * layer * open_tile();
  }
  [[nodiscard]] std::int64_t open_values_at(int layer) const {
    return open_keys_at(layer) + open_tile();
  }
};

}  // namespace lmd::cache
