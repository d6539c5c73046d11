/// \file  Embedding lookup over any weight format, Cuda backend.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/core/launch.cuh>
#include <lmd/kernels/elementwise/embed.hpp>
#include <lmd/kernels/primitive/pack.cuh>

#include <concepts>

namespace lmd::kernels {

namespace detail {

inline constexpr int kEmbedThreads = 256;

/// Whether rows of the table are numbers of 16 bits side by side.
template <LinearPolicy P>
inline constexpr bool kHasPlainRows = false;
template <LinearPolicy P>
  requires requires {
    typename P::Order;
  }
inline constexpr bool kHasPlainRows<P> =
    std::same_as<typename P::Weights, quant::RowWeights<typename P::Format, typename P::Order>> &&
    (std::same_as<typename P::Format, quant::WeightHalf> ||
     std::same_as<typename P::Format, quant::WeightBFloat16>);

/// Elements [l, l + kPack) of row j of the table, 0 beyond k.
template <LinearPolicy P, Activation T>
__device__ __forceinline__ Pack<T> table_pack(const BasicEmbedArgs<T>& a, int j, int l) {
  using Format = typename P::Format;
  if constexpr (kHasPlainRows<P> && sizeof(T) == 2) {
    // 16 bytes at a time.
    using Stored = std::conditional_t<std::same_as<Format, quant::WeightHalf>, Half, BFloat16>;
    const auto* table = reinterpret_cast<const Stored*>(a.codes);
    const Pack<Stored> stored = load_pack(table + std::int64_t{j} * a.k + l, a.k - l,
                                          rows_are_aligned<Stored>(a.k, a.codes));
    Pack<T> pack;
#pragma unroll
    for (int i = 0; i < kPack<T>; ++i)
      pack.x[i] = stored.x[i];
    return pack;
  } else {
    using Params = typename Format::Params;
    const typename P::Weights w{a.codes, reinterpret_cast<const Params*>(a.params), a.k, a.n};
    Pack<T> pack;
#pragma unroll
    for (int i = 0; i < kPack<T>; ++i) {
      if (l + i < a.k) pack.x[i] = w.weight(j, l + i);
    }
    return pack;
  }
}

/// Block b computes kEmbedThreads packs of row b / parts.
template <LinearPolicy P, Activation T>
__global__ void __launch_bounds__(kEmbedThreads) embed_kernel(BasicEmbedArgs<T> a) {
  allow_next_kernel();
  const int parts = ceil_div(a.k, kEmbedThreads * kPack<T>);
  const int i = static_cast<int>(blockIdx.x) / parts;
  const int part = static_cast<int>(blockIdx.x) % parts;
  const int l = (part * kEmbedThreads + static_cast<int>(threadIdx.x)) * kPack<T>;
  if (l >= a.k) return;
  wait_for_previous_kernel();
  const int j = embedded_row(a, i);
  Pack<T> pack;
  if (j >= 0) pack = table_pack<P>(a, j, l);
  store_pack(a.out + std::int64_t{i} * a.k + l, pack, a.k - l, rows_are_aligned<T>(a.k, a.out));
}

}  // namespace detail

/// The very numbers of the definition. Without `drawn` an id outside [0, n) gives zeros and reads nothing;
/// with it, ids are at least -(length of drawn).
///
/// Shapes:  `ids` and `drawn` in device memory.
/// Errors:  the status of the launch.
/// Stream:  one kernel on ctx.stream; the ids may come from the kernel before it.
/// Oracle:  embed(Host, ...)
template <LinearPolicy P, Activation T>
[[nodiscard]] cudaError_t embed(Cuda ctx, const BasicEmbedArgs<T>& a) {
  if (a.m == 0 || a.k == 0) return cudaSuccess;
  const std::int64_t blocks = std::int64_t{a.m} * ceil_div(a.k, detail::kEmbedThreads * kPack<T>);
  if (blocks > INT32_MAX) return cudaErrorInvalidValue;
  const LaunchShape shape{.grid = dim3(static_cast<unsigned>(blocks)),
                          .block = dim3(detail::kEmbedThreads)};
  return launch(ctx, shape, detail::embed_kernel<P, T>, a);
}

}  // namespace lmd::kernels
