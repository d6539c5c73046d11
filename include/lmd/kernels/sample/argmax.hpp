/// \file  The best token of each row, host backend: the definition of the operation.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/core/backend.hpp>
#include <lmd/kernels/sample/sampler.hpp>

#include <cstdint>

namespace lmd::kernels {

struct ArgmaxArgs {
  int* ids = nullptr;             ///< [m]
  const float* logits = nullptr;  ///< [m, vocab], rows `stride` apart
  std::int64_t stride = 0;
  int m = 0;
  int vocab = 0;
};

/// The lowest id of the largest logit; -1 where one is NaN or +inf or none is above -inf.
inline void argmax(Host, const ArgmaxArgs& a) {
  for (int i = 0; i < a.m; ++i)
    a.ids[i] = argmax({a.logits + i * a.stride, static_cast<std::size_t>(a.vocab)});
}

}  // namespace lmd::kernels
