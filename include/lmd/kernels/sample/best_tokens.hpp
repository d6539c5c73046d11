/// \file  The best token of each row from the best of its parts, host backend: the definition of the
///        operation.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/core/backend.hpp>
#include <lmd/kernels/sample/rank_key.hpp>

#include <algorithm>
#include <cstdint>

namespace lmd::kernels {

struct BestTokensArgs {
  int* ids = nullptr;                   ///< [m]
  const std::uint64_t* keys = nullptr;  ///< [m, parts]: as `linear` leaves with kBest
  int m = 0;
  int parts = 0;
};

/// What `argmax` says of the logits whose keys these are: the lowest id of the largest, -1 where one is
/// NaN or +inf or none is above -inf.
inline void best_tokens(Host, const BestTokensArgs& a) {
  for (int i = 0; i < a.m; ++i) {
    const std::uint64_t* row = a.keys + std::int64_t{i} * a.parts;
    a.ids[i] = best_token(*std::min_element(row, row + a.parts));
  }
}

}  // namespace lmd::kernels
