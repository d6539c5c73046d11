/// \file  The best token of each row, Cuda backend: what a batch of greedy requests needs.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/core/launch.cuh>
#include <lmd/kernels/sample/argmax.hpp>
#include <lmd/kernels/sample/row_slice.cuh>

namespace lmd::kernels {

namespace detail {

/// A cluster for each row. A template, as kernels cannot be inline.
template <class Args>
__global__ void __launch_bounds__(kSampleThreads) argmax_kernel(Args a) {
  __shared__ ClusterReduction room;
  cluster_arrive();
  const RowSlice slice(a.vocab);
  const int i = static_cast<int>(blockIdx.x) / slice.size;
  const float* logits = a.logits + i * a.stride + slice.first;
  wait_for_previous_kernel();
  BestLogit best;
  for_each_logit<kLogitLoads>(logits, slice.n, reinterpret_cast<std::uint64_t>(logits) % 16 == 0,
                              [&](int j, float x) { best.see(j, x); });
  // Not earlier: waiting blocks of the next kernel would crowd some multiprocessors.
  allow_next_kernel();
  cluster_wait();
  const std::uint64_t key = cluster_reduce<Smaller>(best.key(slice.first), room);
  if (slice.rank == 0 && threadIdx.x == 0) a.ids[i] = best_token(key);
}

/// Sets the number of blocks for each row, whose slices have at most `most` logits where the device has
/// clusters; see best_cluster.
template <class Args>
[[nodiscard]] cudaError_t choose_cluster(
    Cuda ctx, void (*kernel)(Args), int m, int vocab, int most, int* cluster) {
  PreparedKernel prepared;
  int n = 0;
  LMD_CUDA_RETURN_IF_ERROR(prepare(ctx, kernel, &prepared));
  LMD_CUDA_RETURN_IF_ERROR(multiprocessors(ctx, &n));
  *cluster = prepared.arch.has_clusters() ? best_cluster(m, vocab, most, n) : 1;
  return cudaSuccess;
}

/// As launch, for kernels with a cluster for each of m rows.
template <class Args>
[[nodiscard]] cudaError_t launch_clusters(
    Cuda ctx, void (*kernel)(Args), const Args& args, int cluster, std::size_t shared_bytes) {
  constexpr int kPortableCluster = 8;
  if (cluster > kPortableCluster) {
    LMD_CUDA_RETURN_IF_ERROR(
        cudaFuncSetAttribute(kernel, cudaFuncAttributeNonPortableClusterSizeAllowed, 1));
  }
  const LaunchShape shape{.grid = dim3(static_cast<unsigned>(args.m * cluster)),
                          .block = dim3(kSampleThreads),
                          .shared_bytes = shared_bytes,
                          .cluster = cluster};
  return launch(ctx, shape, kernel, args);
}

}  // namespace detail

/// The very ids of the definition.
///
/// Errors:  cudaErrorInvalidValue for more than 2^20 tokens; the status of the launch.
/// Stream:  one kernel on ctx.stream.
/// Oracle:  argmax(Host, ...)
[[nodiscard]] inline cudaError_t argmax(Cuda ctx, const ArgmaxArgs& a) {
  constexpr int kMostLogits = 48 * 1024;
  if (a.m == 0) return cudaSuccess;
  if (a.vocab < 1 || a.vocab > kMaxVocab) return cudaErrorInvalidValue;
  int cluster = 0;
  LMD_CUDA_RETURN_IF_ERROR(detail::choose_cluster(ctx, detail::argmax_kernel<ArgmaxArgs>, a.m,
                                                  a.vocab, kMostLogits, &cluster));
  return detail::launch_clusters(ctx, detail::argmax_kernel<ArgmaxArgs>, a, cluster, 0);
}

}  // namespace lmd::kernels
