/// \file  Embedding lookup over any weight format, host backend: the definition of the operation.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/core/activation.hpp>
#include <lmd/core/backend.hpp>
#include <lmd/kernels/linear/policy.hpp>

namespace lmd::kernels {

template <Activation T>
struct BasicEmbedArgs {
  T* out = nullptr;                      ///< [m, k]
  const int* ids = nullptr;              ///< [m]
  const std::uint8_t* codes = nullptr;   ///< [n, k] codes in the policy's order
  const std::uint8_t* params = nullptr;  ///< [n, k / group] of the format's Params
  int m = 0;                             ///< tokens
  int n = 0;                             ///< rows of the table
  int k = 0;                             ///< elements of a row
  const int* drawn = nullptr;            ///< or null: an id of -1 - r stands for drawn[r]
};
using EmbedArgs = BasicEmbedArgs<float>;

/// The row of the table for token i, or -1 where its id, given or drawn, is outside [0, n): a sampler draws
/// -1 for a row without an answer, and the next step may be queued before anybody has looked at it.
template <Activation T>
LMD_HD int embedded_row(const BasicEmbedArgs<T>& a, int i) {
  int id = a.ids[i];
  if (id < 0 && a.drawn != nullptr) id = a.drawn[-1 - id];
  return id >= 0 && id < a.n ? id : -1;
}

/// out[i] = w[embedded_row(i)], or zeros where there is none.
template <LinearPolicy P, Activation T = float>
void embed(Host, const BasicEmbedArgs<T>& a) {
  using Params = typename P::Format::Params;
  const typename P::Weights w{a.codes, reinterpret_cast<const Params*>(a.params), a.k, a.n};
  for (int i = 0; i < a.m; ++i) {
    const int row = embedded_row(a, i);
    for (int l = 0; l < a.k; ++l)
      a.out[std::int64_t{i} * a.k + l] = from_float<T>(row >= 0 ? w.weight(row, l) : 0.0f);
  }
}

}  // namespace lmd::kernels
