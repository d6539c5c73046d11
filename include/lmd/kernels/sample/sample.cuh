/// \file  One token for each row of a batch, Cuda backend: one kernel, nothing is sorted but a few
///        candidates.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/core/launch.cuh>
#include <lmd/kernels/sample/argmax.cuh>
#include <lmd/kernels/sample/row_sampler.cuh>

#include <algorithm>

namespace lmd::kernels {

namespace detail {

/// A cluster for each row. A template, as kernels cannot be inline.
template <class Args>
__global__ void __launch_bounds__(kSampleThreads) sample_kernel(Args a) {
  extern __shared__ __align__(16) unsigned char memory[];
  auto& shared = *reinterpret_cast<SampleShared*>(memory);
  RowSampler<Args>(a, shared, reinterpret_cast<float*>(memory + kLogitsAt)).run();
}

/// Logits of a slice that lies in `shared_bytes` as a whole.
[[nodiscard]] constexpr int whole_slice(int shared_bytes) {
  return std::min((shared_bytes - kLogitsAt) / 16 * 4, kMaxSlice);
}

/// `sample` with the given number of blocks a row: a power of two up to kMaxCluster, 1 without clusters.
[[nodiscard]] inline cudaError_t sample_with(Cuda ctx, const SampleArgs& a, int cluster) {
  if (a.vocab < 1 || a.vocab > kMaxVocab) return cudaErrorInvalidValue;
  int room = 0;
  LMD_CUDA_RETURN_IF_ERROR(shared_bytes_of_block(ctx, &room));
  const int slice = round_up(ceil_div(a.vocab, cluster), 4);
  if (slice <= whole_slice(room)) {
    const std::size_t bytes = kLogitsAt + sizeof(float) * slice;
    return launch_clusters(ctx, sample_kernel<SampleArgs>, a, cluster, bytes);
  }
  constexpr int kWordBytes = 32 * 4 + 4;  // of 32 logits and their bits
  const int words = std::min((room - kLogitsAt) / kWordBytes, kMaxSlice / 32);
  return launch_clusters(ctx, sample_kernel<SampleInPartsArgs>, {a, 32 * words}, cluster,
                         static_cast<std::size_t>(kLogitsAt + kWordBytes * words));
}

}  // namespace detail

/// Draws the tokens that Sampler draws, from the same random numbers. Where a draw or a limit falls
/// within rounding of the border between two tokens, it may take the other one. A row's token does
/// not depend on the other rows: masses are summed as whole numbers. Rows may differ in everything;
/// greedy ones take a short way. Everything that changes from step to step is read from device
/// memory, so that a recorded step can be replayed. Without clusters (before 9.0) a row is one block's
/// work, and is read from memory again and again.
///
/// Shapes:  at most 2^20 tokens.
/// Errors:  cudaErrorInvalidValue for more tokens; the status of the launch.
/// Stream:  one kernel on ctx.stream; every input may come from the kernel before it.
/// Oracle:  sample(Host, ...)
/// Source:  a row in the shared memory of a cluster, and searches by bins of mass in place of
///          sorting, are our own; the pivots of FlashInfer's sampling have the same purpose.
[[nodiscard]] inline cudaError_t sample(Cuda ctx, const SampleArgs& a) {
  if (a.m == 0) return cudaSuccess;
  int room = 0;
  int cluster = 0;
  LMD_CUDA_RETURN_IF_ERROR(shared_bytes_of_block(ctx, &room));
  LMD_CUDA_RETURN_IF_ERROR(detail::choose_cluster(ctx, detail::sample_kernel<SampleArgs>, a.m,
                                                  a.vocab, detail::whole_slice(room), &cluster));
  return detail::sample_with(ctx, a, cluster);
}

}  // namespace lmd::kernels
