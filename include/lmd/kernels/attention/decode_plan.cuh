/// \file  Who reads what in a decode step: made once a step on the device, for all layers.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/core/launch.cuh>
#include <lmd/kernels/attention/decode_task.cuh>

namespace lmd::kernels {

struct DecodePlanArgs {
  std::int32_t* plan = nullptr;           ///< [decode_plan_elements(...)], 16-byte aligned
  const SequenceChunk* chunks = nullptr;  ///< [n_chunks] in device memory, of one token each
  int n_chunks = 0;
  int kv_heads = 0;
};

namespace detail {

/// Blocks of a decode step, and how many of them are a cluster. Lengths are not known to the host:
/// few (sequence, KV head) pairs get clusters, and the plan decides whether they pay.
struct DecodeShape {
  int blocks = 0;
  int cluster = 1;
};

inline constexpr int kMaxDecodeCluster = 8;  // that every device with clusters can hold

LMD_HD constexpr DecodeShape decode_shape(Arch arch, int multiprocessors, int pairs) {
  int cluster = 1;
  if (arch.has_clusters()) {
    while (cluster < kMaxDecodeCluster && pairs * cluster * 2 <= multiprocessors)
      cluster *= 2;
  }
  return {multiprocessors / cluster * cluster, cluster};
}

/// Whole pairs to clusters when that takes at most so many tasks of a warp more than equal shares:
/// what parts of blocks that meet in global memory cost, about 2 us, in tasks of 8 KB.
inline constexpr int kRoundsForPairs = 3;

/// What the kernel that makes the plan is given.
struct DecodePlanWork {
  DecodePlanArgs args;
  DecodeShape shape;
  int parts = 1;  ///< tasks of a sealed page
};

struct DecodeRange {
  int first = 0;
  int n = 0;
};

/// All tasks of a step are numbered sequence by sequence, KV head by KV head, token by token.
struct DecodePlanner {
  const DecodePlanWork& work;
  const int* prefix;  ///< [n_chunks + 1] tasks of the sequences before
  int total;
  bool is_paired;  ///< a cluster has one pair; else blocks have equal shares of all tasks
  int used = min(work.shape.blocks, ceil_div(total, kDecodeWarps));  ///< blocks, by shares

  struct Pair {
    int id, first, tasks;
  };

  /// The largest b with prefix[b] <= u.
  [[nodiscard]] __device__ int sequence_of(int u) const {
    int low = 0;
    int high = work.args.n_chunks;
    while (high - low > 1) {
      const int middle = (low + high) / 2;
      (prefix[middle] <= u ? low : high) = middle;
    }
    return low;
  }
  [[nodiscard]] __device__ Pair pair(int b, int kvh) const {
    const int tasks = (prefix[b + 1] - prefix[b]) / work.args.kv_heads;
    return {b * work.args.kv_heads + kvh, prefix[b] + kvh * tasks, tasks};
  }
  [[nodiscard]] __device__ Pair pair_at(int u) const {
    const int b = sequence_of(u);
    return pair(b, (u - prefix[b]) / pair(b, 0).tasks);
  }

  [[nodiscard]] __device__ int share_first(int block) const {
    return static_cast<int>(std::int64_t{total} * block / used);
  }
  [[nodiscard]] __device__ int share_of(int u) const {
    return static_cast<int>(((std::int64_t{u} + 1) * used - 1) / total);
  }
  [[nodiscard]] __device__ DecodeRange range_of(int block) const {
    if (!is_paired) {
      if (block >= used) return {};
      return {share_first(block), share_first(block + 1) - share_first(block)};
    }
    const int id = block / work.shape.cluster;
    const int rank = block % work.shape.cluster;
    if (id >= work.args.n_chunks * work.args.kv_heads) return {};
    const Pair p = pair(id / work.args.kv_heads, id % work.args.kv_heads);
    const int blocks = min(work.shape.cluster, p.tasks);
    if (rank >= blocks) return {};
    return {p.first + p.tasks * rank / blocks,
            p.tasks * (rank + 1) / blocks - p.tasks * rank / blocks};
  }

  [[nodiscard]] __device__ DecodeBlockShare block_share(int block) const {
    const DecodeRange range = range_of(block);
    DecodeBlockShare share{.tasks = range.n};
    if (range.n == 0) return share;
    const Pair first = pair_at(range.first);
    const Pair last = pair_at(range.first + range.n - 1);
    const auto end_block = [&](const Pair& p) {
      if (!is_paired) return share_of(p.first + p.tasks - 1);
      return p.id * work.shape.cluster + min(work.shape.cluster, p.tasks) - 1;
    };
    share.is_one_pair = first.id == last.id ? 1 : 0;
    share.in_cluster = is_paired && range.n < first.tasks ? 1 : 0;
    if (first.first < range.first) {
      share.came = first.id;
      share.came_from = is_paired ? first.id * work.shape.cluster : share_of(first.first);
      share.came_to = end_block(first);
    }
    if (last.first >= range.first && last.first + last.tasks > range.first + range.n) {
      share.goes = last.id;
      share.goes_to = end_block(last);
    }
    return share;
  }

  /// Warps of a block that has one pair take turns along it; else each has a run.
  [[nodiscard]] __device__ DecodeShare warp_share(int block, int warp) const {
    const DecodeRange range = range_of(block);
    if (warp >= range.n) return {};
    const bool takes_turns = pair_at(range.first).id == pair_at(range.first + range.n - 1).id;
    const int each = range.n / kDecodeWarps;
    const int more = range.n % kDecodeWarps;
    const int first = range.first + (takes_turns ? warp : warp * each + min(warp, more));
    const int b = sequence_of(first);
    return {.b = b,
            .first = first - prefix[b],
            .tasks = each + (warp < more ? 1 : 0),
            .step = takes_turns ? kDecodeWarps : 1};
  }
};

inline constexpr int kPlanThreads = kMaxDecodeBatch;  // one sequence each

/// Counts tasks: prefix [n_chunks + 1], and the most of one pair in all threads.
__device__ __forceinline__ int count_tasks(const DecodePlanWork& work,
                                           int* prefix,
                                           int (*room)[2]) {
  const int i = threadIdx.x;
  const int lane = i % 32;
  const bool is_used = i < work.args.n_chunks;
  const int tasks = is_used ? tasks_at(work.parts, work.args.chunks[i].position) : 0;
  int most = tasks;
  int sum = tasks * work.args.kv_heads;
#pragma unroll
  for (int step = 1; step < 32; step *= 2) {
    const int before = __shfl_up_sync(0xffffffffu, sum, step);
    if (lane >= step) sum += before;
    most = max(most, __shfl_xor_sync(0xffffffffu, most, step));
  }
  if (lane == 31) {
    room[i / 32][0] = sum;
    room[i / 32][1] = most;
  }
  __syncthreads();
  for (int w = 0; w < kPlanThreads / 32; ++w) {
    if (w < i / 32) sum += room[w][0];
    most = max(most, room[w][1]);
  }
  if (i == 0) prefix[0] = 0;
  if (is_used) prefix[i + 1] = sum;
  __syncthreads();
  return most;
}

/// One block. A template, as kernels cannot be inline.
template <class Work>
__global__ void __launch_bounds__(kPlanThreads)
    decode_plan_kernel(const __grid_constant__ Work work) {
  __shared__ int prefix[kMaxDecodeBatch + 1];
  __shared__ int room[kPlanThreads / 32][2];
  wait_for_previous_kernel();
  allow_next_kernel();
  const int most = count_tasks(work, prefix, room);
  const int total = prefix[work.args.n_chunks];
  const DecodeShape shape = work.shape;
  const int pairs = work.args.n_chunks * work.args.kv_heads;
  const int rounds = ceil_div(ceil_div(most, shape.cluster), kDecodeWarps);
  const int equal_rounds = ceil_div(total, shape.blocks * kDecodeWarps);
  const DecodePlanner planner{.work = work,
                              .prefix = prefix,
                              .total = total,
                              .is_paired = pairs * shape.cluster <= shape.blocks &&
                                           rounds <= equal_rounds + kRoundsForPairs};
  const DecodePlanView plan{work.args.plan, shape.blocks};
  for (int block = threadIdx.x; block < shape.blocks; block += kPlanThreads)
    *plan.block(block) = planner.block_share(block);
  for (int i = threadIdx.x; i < shape.blocks * kDecodeWarps; i += kPlanThreads)
    *plan.warp(i / kDecodeWarps, i % kDecodeWarps) =
        planner.warp_share(i / kDecodeWarps, i % kDecodeWarps);
}

/// Whether a batch is one that decode_plan and decode_step take.
constexpr bool is_decode_batch(int n_chunks, int kv_heads) {
  return n_chunks >= 0 && n_chunks <= kMaxDecodeBatch && kv_heads > 0;
}

}  // namespace detail

/// Integers of DecodePlanArgs::plan on a device of `multiprocessors`.
[[nodiscard]] constexpr std::int64_t decode_plan_elements(int multiprocessors) {
  return detail::DecodePlanView::elements(multiprocessors);
}

/// Shares out the work of decode_step among its blocks and warps. Positions are the same in all
/// layers, so once a step does for all of them.
///
/// Shapes:  chunks as decode_step's, at most 1024; the same ctx.multiprocessors, too.
/// Layout:  DecodePlanView's: what blocks have, then what warps have.
/// Errors:  cudaErrorInvalidValue when a shape is not one of these.
/// Stream:  queued on ctx.stream; one kernel at least lies between it and the first decode_step.
///          Positions are read from device memory, so a graph can be replayed.
/// Source:  a list of tasks made on the device (FlashAttention-3's prepare_varlen, as an idea).
template <AttentionPolicy P>
[[nodiscard]] cudaError_t decode_plan(Cuda ctx, const DecodePlanArgs& args) {
  if (!detail::is_decode_batch(args.n_chunks, args.kv_heads)) return cudaErrorInvalidValue;
  if (args.n_chunks == 0) return cudaSuccess;
  int sms = 0;
  LMD_CUDA_RETURN_IF_ERROR(multiprocessors(ctx, &sms));
  const auto kernel = &detail::decode_plan_kernel<detail::DecodePlanWork>;
  return with_tuned_arch(kernel, [&]<int kCc>() {
    const detail::DecodePlanWork work{
        .args = args,
        .shape = detail::decode_shape(Arch{kCc}, sms, args.n_chunks * args.kv_heads),
        .parts = detail::DecodeTask<P>::kParts};
    return launch(ctx, {.grid = 1, .block = detail::kPlanThreads}, kernel, work);
  });
}

}  // namespace lmd::kernels
