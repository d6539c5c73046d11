/// \file  Embedding lookup over any weight format, host backend: the definition of the operation.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/core/backend.hpp>
#include <lmd/kernels/linear/policy.hpp>

namespace lmd::kernels {

struct EmbedArgs {
  float* out = nullptr;                  ///< [m, k]
  const int* ids = nullptr;              ///< [m], each in [0, n)
  const std::uint8_t* codes = nullptr;   ///< [n, k] codes in the policy's order
  const std::uint8_t* params = nullptr;  ///< [n, k / group] of the format's Params
  int m = 0;                             ///< tokens
  int n = 0;                             ///< rows of the table
  int k = 0;                             ///< elements of a row
};

/// out[i] = w[ids[i]], as floats.
template <LinearPolicy P>
void embed(Host, const EmbedArgs& a) {
  using Params = typename P::Format::Params;
  const typename P::Weights w{a.codes, reinterpret_cast<const Params*>(a.params), a.k, a.n};
  for (int i = 0; i < a.m; ++i) {
    for (int l = 0; l < a.k; ++l)
      a.out[std::int64_t{i} * a.k + l] = w.weight(a.ids[i], l);
  }
}

}  // namespace lmd::kernels
