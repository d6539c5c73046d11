/// \file  Tokens that the backend does not have yet -> behind those that it has, host backend: the
///        definition of the operation.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/core/backend.hpp>

#include <algorithm>

namespace lmd::kernels {

/// Neighbouring tokens of one sequence. `from` and `to` do not overlap.
struct TokenRun {
  int* to = nullptr;          ///< [n]
  const int* from = nullptr;  ///< [n]
  int n = 0;
};

/// Every pointer, those of the runs too, is to memory of the backend.
struct TokenRunArgs {
  const TokenRun* runs = nullptr;  ///< [n_runs] to different places
  int n_runs = 0;
};

/// to[i] = from[i] for every run.
inline void copy_token_runs(Host, const TokenRunArgs& a) {
  for (int r = 0; r < a.n_runs; ++r)
    std::copy_n(a.runs[r].from, a.runs[r].n, a.runs[r].to);
}

}  // namespace lmd::kernels
