/// \file  Stored weights of any format for tests and benches: random over all codes.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/core/buffer.hpp>
#include <lmd/quant/weight_layout.hpp>

#include <bit>
#include <cstring>

#include "cases/random.hpp"

namespace lmd::test {

/// Bytes of a matrix [n, k].
struct StoredWeights {
  Buffer<std::uint8_t> codes;
  Buffer<std::uint8_t> params;
};

namespace detail {

template <class T>
void put(Buffer<std::uint8_t>& to, std::int64_t i, T value) {
  std::memcpy(to.data() + i * static_cast<std::int64_t>(sizeof value), &value, sizeof value);
}

template <quant::WeightFormat F>
typename F::Params random_params(Random& random) {
  typename F::Params p{};
  p.scale = to_half(static_cast<float>(0.01 + 0.02 * random.uniform()));
  if constexpr (requires { p.minimum; }) {
    p.minimum = to_half(static_cast<float>(-0.3 * random.uniform()));
  }
  if constexpr (requires { p.zero; }) {
    p.zero = static_cast<std::uint8_t>(random.below(16));
    p.unused = static_cast<std::uint8_t>(random.bits());  // nobody may read it
  }
  return p;
}

}  // namespace detail

/// Quantised formats take every code; float formats normal numbers of deviation 0.05, the first of
/// each row an outlier 100 times as large. The same bytes serve every order of codes.
template <quant::WeightFormat F>
[[nodiscard]] StoredWeights random_weights(int n, int k, std::uint64_t seed) {
  Random random(seed);
  const std::int64_t size = std::int64_t{n} * k;
  StoredWeights w{Buffer<std::uint8_t>(size * F::kBits / 8), {}};
  if constexpr (F::kGroupSize != 0) {
    for (std::uint8_t& byte : w.codes)
      byte = static_cast<std::uint8_t>(random.bits());
    using Params = typename F::Params;
    const std::int64_t groups = size / F::kGroupSize;
    w.params = Buffer<std::uint8_t>(groups * static_cast<std::int64_t>(sizeof(Params)));
    for (std::int64_t g = 0; g < groups; ++g)
      detail::put(w.params, g, detail::random_params<F>(random));
  } else {
    for (std::int64_t i = 0; i < size; ++i) {
      const float value = random.normal() * (i % k == 0 ? 5.0f : 0.05f);
      if constexpr (F::kBits == 32) {
        detail::put(w.codes, i, value);
      } else if constexpr (std::is_same_v<F, quant::WeightHalf>) {
        detail::put(w.codes, i, to_half(value));
      } else {
        detail::put(w.codes, i, to_bfloat16(value));
      }
    }
  }
  return w;
}

}  // namespace lmd::test
