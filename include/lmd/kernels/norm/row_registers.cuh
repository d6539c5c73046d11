/// \file  A row of activations in the registers of one block: what both norms read once and use twice.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/core/launch.cuh>
#include <lmd/kernels/primitive/block_sum.cuh>
#include <lmd/kernels/primitive/pack.cuh>

#include <algorithm>

namespace lmd::kernels::detail {

/// Threads of a block at most, and blocks that a multiprocessor should hold: one pack a thread leaves
/// registers for full occupancy, which hides the wait for the sum of a row behind other rows.
template <int Packs>
inline constexpr int kRowThreads = Packs == 1 ? 512 : 1024;
template <int Packs>
inline constexpr int kRowBlocks = Packs == 1 ? kDeviceArch.threads() / kRowThreads<1> : 1;

/// Thread t of the block holds packs t, t + blockDim, ... of row blockIdx.x, as many as Packs; what
/// is beyond them is read again each time, so that rows of any length work. Packs is 0 for rows that
/// are not aligned: all of them is read again, one by one.
template <class Args, Activation T, int Packs>
class RowRegisters {
 public:
  static constexpr bool kIsAligned = Packs > 0;

  __device__ explicit RowRegisters(const Args& a) : a_(a), row_(std::int64_t{blockIdx.x} * a.n) {}

  /// x += residual where there is one, and x into registers, rounded as it was stored.
  __device__ void load() {
#pragma unroll
    for (int p = 0; p < Packs; ++p) {
      if (const int j = first(p); j < a_.n) x_[p] = load_sum(j);
    }
    if (a_.residual == nullptr) return;
    for (int j = first(Packs); j < a_.n; j += step())
      (void)load_sum(j);
  }

  /// Calls `use(j, pack)` for each of the thread's packs: its first column, and its numbers, 0 beyond
  /// the row.
  template <class Use>
  __device__ void for_each_pack(Use&& use) const {
#pragma unroll
    for (int p = 0; p < Packs; ++p) {
      if (const int j = first(p); j < a_.n) use(j, unpack<T>(x_[p]));
    }
    for (int j = first(Packs); j < a_.n; j += step())
      use(j, load_pack(a_.x + row_ + j, a_.n - j, kIsAligned));
  }

  __device__ void store(int j, const Pack<T>& pack) const {
    store_pack(a_.out + row_ + j, pack, a_.n - j, kIsAligned);
  }

  /// Those of [n] parameters that belong to the pack at column j.
  [[nodiscard]] __device__ Pack<T> parameters(const float* all, int j) const {
    return load_parameters<T>(all + j, a_.n - j, kIsAligned);
  }

  /// Brings the thread's parameters near. They are no kernel's results: this may stand before
  /// wait_for_previous_kernel.
  __device__ void prefetch(const float* all) const {
    for (int j = first(0); j < a_.n; j += step())
      asm volatile("prefetch.global.L2 [%0];" ::"l"(all + j));
  }

 private:
  [[nodiscard]] __device__ static int first(int p) {
    return (p * static_cast<int>(blockDim.x) + static_cast<int>(threadIdx.x)) * kPack<T>;
  }
  [[nodiscard]] __device__ static int step() {
    return static_cast<int>(blockDim.x) * kPack<T>;
  }

  [[nodiscard]] __device__ uint4 load_sum(int j) const {
    T* at = a_.x + row_ + j;
    if constexpr (kIsAligned) {
      const uint4 x = *reinterpret_cast<const uint4*>(at);
      if (a_.residual == nullptr) return x;
      const uint4 sum = repack(
          add(unpack<T>(x), unpack<T>(*reinterpret_cast<const uint4*>(a_.residual + row_ + j))));
      *reinterpret_cast<uint4*>(at) = sum;
      return sum;
    } else {
      store_pack(
          at,
          add(load_pack(at, a_.n - j, false), load_pack(a_.residual + row_ + j, a_.n - j, false)),
          a_.n - j, false);
      return {};
    }
  }

  [[nodiscard]] __device__ static Pack<T> add(Pack<T> x, const Pack<T>& y) {
#pragma unroll
    for (int i = 0; i < kPack<T>; ++i)
      x.x[i] += y.x[i];
    return x;
  }

  const Args& a_;
  std::int64_t row_;                ///< offset of its first element
  uint4 x_[Packs > 0 ? Packs : 1];  ///< as stored
};

/// Queues one of four kernels, for 0, 1, 2 and 4 packs a thread, one block a row. The choice depends
/// on n and the alignment alone: a row's sum, and so its result, may not depend on how many rows there
/// are.
template <Activation T, class Args>
[[nodiscard]] cudaError_t launch_rows(Cuda ctx,
                                      const Args& a,
                                      bool is_aligned,
                                      void (*zero)(Args),
                                      void (*one)(Args),
                                      void (*two)(Args),
                                      void (*four)(Args)) {
  if (a.m == 0 || a.n == 0) return cudaSuccess;
  const int packs = ceil_div(a.n, kPack<T>);
  const bool is_one = is_aligned && packs <= kRowThreads<1>;
  const bool is_two = is_aligned && packs <= 2 * kRowThreads<2>;
  const int held = is_one || !is_aligned ? 1 : is_two ? 2 : 4;
  const int threads = std::min(kRowThreads<2>, round_up(ceil_div(packs, held), kWarp));
  const LaunchShape shape{.grid = dim3(static_cast<unsigned>(a.m)),
                          .block = dim3(static_cast<unsigned>(threads))};
  return launch(ctx, shape, !is_aligned ? zero : is_one ? one : is_two ? two : four, a);
}

}  // namespace lmd::kernels::detail
