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
};
using EmbedArgs = BasicEmbedArgs<float>;

/// out[i] = w[ids[i]], or zeros where the id is outside [0, n): -1 is what a sampler gives for a row
/// without an answer, and the next step may be queued before anybody has looked at it.
template <LinearPolicy P, Activation T = float>
void embed(Host, const BasicEmbedArgs<T>& a) {
  using Params = typename P::Format::Params;
  const typename P::Weights w{a.codes, reinterpret_cast<const Params*>(a.params), a.k, a.n};
  for (int i = 0; i < a.m; ++i) {
    const bool is_known = a.ids[i] >= 0 && a.ids[i] < a.n;
    for (int l = 0; l < a.k; ++l)
      a.out[std::int64_t{i} * a.k + l] = from_float<T>(is_known ? w.weight(a.ids[i], l) : 0.0f);
  }
}

}  // namespace lmd::kernels
