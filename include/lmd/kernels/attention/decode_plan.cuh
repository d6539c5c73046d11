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

/// How a decode step is launched. Lengths are not known to the host: few (sequence, KV head) pairs get
/// clusters, and the plan decides whether a pair is one cluster's or all blocks share out all pairs.
struct DecodeShape {
  int blocks = 0;
  int warps = 0;  ///< of a block
  int cluster = 1;
};

inline constexpr int kMaxDecodeCluster = 8;  // that every device with clusters can hold

/// Blocks of four warps that a multiprocessor holds side by side: while some begin a job, or end one,
/// the others keep the memory busy.
inline constexpr int kDecodeBlocks = 4;

/// Jobs that pieces of pairs are, at most.
LMD_HD constexpr int most_decode_parts(int multiprocessors) {
  return kDecodeBlocks * multiprocessors;
}

/// A whole pair to each cluster when that takes at most so many tasks of a warp more than equal shares:
/// what parts of blocks that meet in global memory cost, about 2 us, in tasks of 8 KB.
inline constexpr int kRoundsForPairs = 3;

/// What the kernel that makes the plan is given.
struct DecodePlanWork {
  DecodePlanArgs args;
  DecodeShape shape;
  int parts = 1;  ///< tasks of a sealed page
  [[nodiscard]] LMD_HD constexpr int pairs() const { return args.n_chunks * args.kv_heads; }
  /// Jobs that the plan may make: as many as blocks, or where that is less than two for each pair, so many
  /// more than pairs that long ones can be cut.
  [[nodiscard]] LMD_HD constexpr int most_jobs() const {
    return 2 * pairs() <= shape.blocks ? shape.blocks : pairs() + shape.blocks / 2;
  }
};

inline constexpr int kPlanThreads = kMaxDecodeBatch;  // one sequence each
inline constexpr int kPlanWarps = kPlanThreads / 32;

/// The planner's shared memory.
struct DecodePlanRoom {
  int tasks[kMaxDecodeBatch];         ///< of a pair of each sequence
  int jobs[kMaxDecodeBatch + 1];      ///< of the sequences before
  int partials[kMaxDecodeBatch + 1];  ///< of them, jobs that are pieces
  int warp_sums[kPlanWarps][2];
  int per_warp[kPlanWarps];
  int total;
};

/// The sums of the values of the threads before this one. All threads call.
__device__ __forceinline__ int2 prefix_sums(int2 value, DecodePlanRoom& room) {
  const int lane = threadIdx.x % 32;
  const int warp = threadIdx.x / 32;
  int2 sum = value;
#pragma unroll
  for (int step = 1; step < 32; step *= 2) {
    const int x = __shfl_up_sync(0xffffffffu, sum.x, step);
    const int y = __shfl_up_sync(0xffffffffu, sum.y, step);
    if (lane >= step) {
      sum.x += x;
      sum.y += y;
    }
  }
  if (lane == 31) {
    room.warp_sums[warp][0] = sum.x;
    room.warp_sums[warp][1] = sum.y;
  }
  __syncthreads();
  for (int w = 0; w < warp; ++w) {
    sum.x += room.warp_sums[w][0];
    sum.y += room.warp_sums[w][1];
  }
  __syncthreads();
  return {sum.x - value.x, sum.y - value.y};
}

/// The least number of tasks of a job with which there are not too many jobs: each warp tries one of 32
/// numbers, then of those between the two that this has left. All threads call, with the same values.
__device__ __forceinline__ int tasks_of_job(const DecodePlanWork& work,
                                            DecodePlanRoom& room,
                                            int total,
                                            int most) {
  const int lane = threadIdx.x % 32;
  const int warp = threadIdx.x / 32;
  const int jobs = work.most_jobs();
  // Below two for each warp, more jobs would not end earlier.
  int low = min(max(ceil_div(total, jobs), 2 * work.shape.warps), most);
  int high = most;
  for (int round = 0; round < 2; ++round) {
    const int each = low + (high - low) * warp / (kPlanWarps - 1);
    int sum = 0;
    for (int b = lane; b < work.args.n_chunks; b += 32)
      sum += ceil_div(room.tasks[b], each);
    sum = __reduce_add_sync(0xffffffffu, sum);
    if (lane == 0) room.per_warp[warp] = sum * work.args.kv_heads;
    __syncthreads();
    const int first = __ffs(__ballot_sync(0xffffffffu, room.per_warp[lane] <= jobs)) - 1;
    __syncthreads();
    const int width = high - low;
    high = low + width * first / (kPlanWarps - 1);
    if (first > 0) low += width * (first - 1) / (kPlanWarps - 1);
  }
  return high;
}

/// The largest b with prefix[b] <= i.
__device__ __forceinline__ int sequence_of(const int* prefix, int n_chunks, int i) {
  int low = 0;
  int high = n_chunks;
  while (high - low > 1) {
    const int middle = (low + high) / 2;
    (prefix[middle] <= i ? low : high) = middle;
  }
  return low;
}

/// One block. A template, as kernels cannot be inline.
template <class Work>
__global__ void __launch_bounds__(kPlanThreads)
    decode_plan_kernel(const __grid_constant__ Work work) {
  __shared__ DecodePlanRoom room;
  wait_for_previous_kernel();
  allow_next_kernel();
  const DecodePlanArgs& args = work.args;
  const DecodeShape& shape = work.shape;
  const int thread = threadIdx.x;
  const int tasks = thread < args.n_chunks ? tasks_at(work.parts, args.chunks[thread].position) : 0;
  room.tasks[thread] = tasks;
  const int before = prefix_sums({tasks * args.kv_heads, 0}, room).x;
  if (thread == kPlanThreads - 1) room.total = before + tasks * args.kv_heads;
  const int warp_most = __reduce_max_sync(0xffffffffu, tasks);
  if (thread % 32 == 0) room.per_warp[thread / 32] = warp_most;
  __syncthreads();
  const int total = room.total;
  const int most = __reduce_max_sync(0xffffffffu, room.per_warp[thread % 32]);
  __syncthreads();

  const int rounds = ceil_div(ceil_div(most, shape.cluster), shape.warps);
  const int equal_rounds = ceil_div(total, shape.blocks * shape.warps);
  const bool has_clusters = shape.cluster > 1 && rounds <= equal_rounds + kRoundsForPairs;
  const int each = has_clusters ? 1 : tasks_of_job(work, room, total, most);
  const int pieces = has_clusters ? min(shape.cluster, tasks) : ceil_div(tasks, each);
  const int jobs = (has_clusters && tasks > 0 ? shape.cluster : pieces) * args.kv_heads;
  const int partials = has_clusters || pieces < 2 ? 0 : pieces * args.kv_heads;
  const int2 sums = prefix_sums({jobs, partials}, room);
  room.jobs[thread] = sums.x;
  room.partials[thread] = sums.y;
  if (thread == kPlanThreads - 1) room.jobs[kMaxDecodeBatch] = sums.x + jobs;
  __syncthreads();

  const DecodePlanView plan{args.plan};
  const int n_jobs = room.jobs[kMaxDecodeBatch];
  if (thread == 0) plan.jobs() = n_jobs;
  for (int i = thread; i < max(n_jobs, shape.blocks); i += kPlanThreads) {
    DecodeJob job;
    if (i < n_jobs) {
      const int b = sequence_of(room.jobs, args.n_chunks, i);
      const int of_pair = (room.jobs[b + 1] - room.jobs[b]) / args.kv_heads;
      const int n = has_clusters ? min(of_pair, room.tasks[b]) : of_pair;
      const int at = i - room.jobs[b];
      const int piece = at % of_pair;
      job = {.page_ids = args.chunks[b].page_ids,
             .position = args.chunks[b].position,
             .b = b,
             .kvh = at / of_pair,
             .first = room.tasks[b] * piece / n,
             .pieces = n,
             .piece = piece,
             .partial = has_clusters ? -1 : room.partials[b] + at - piece};
      job.tasks = piece < n ? room.tasks[b] * (piece + 1) / n - job.first : 0;
    }
    plan.job(i) = job;
  }
}

/// Whether a batch is one that decode_plan and decode_step take.
constexpr bool is_decode_batch(int n_chunks, int kv_heads) {
  return n_chunks >= 0 && n_chunks <= kMaxDecodeBatch && kv_heads > 0;
}

/// The shape of a decode step of so many pairs. Blocks of clusters are all on the device at once, one on
/// a multiprocessor: how many clusters that are depends on which multiprocessors a card has.
[[nodiscard]] inline cudaError_t decode_shape(Cuda ctx, int pairs, DecodeShape* shape) {
  constexpr std::size_t kMoreThanHalf = 120 * 1024;  // of a multiprocessor's shared memory
  int sms = 0;
  LMD_CUDA_RETURN_IF_ERROR(multiprocessors(ctx, &sms));
  const auto kernel = &decode_plan_kernel<DecodePlanWork>;
  PreparedKernel prepared;
  LMD_CUDA_RETURN_IF_ERROR(prepare(ctx, kernel, &prepared));
  const bool has_clusters = prepared.arch.has_clusters() && prepared.arch.has_large_blocks();
  for (int cluster = kMaxDecodeCluster; has_clusters && cluster > 1; cluster /= 2) {
    int clusters = 0;
    LMD_CUDA_RETURN_IF_ERROR(max_clusters(ctx,
                                          {.grid = static_cast<unsigned>(cluster),
                                           .block = kMostDecodeWarps * 32,
                                           .shared_bytes = kMoreThanHalf,
                                           .cluster = cluster},
                                          kernel, &clusters));
    clusters = std::min(clusters, sms / cluster);
    if (pairs > clusters) continue;
    *shape = {.blocks = clusters * cluster, .warps = kMostDecodeWarps, .cluster = cluster};
    return cudaSuccess;
  }
  *shape = {.blocks = kDecodeBlocks * sms, .warps = kMostDecodeWarps / 2, .cluster = 1};
  return cudaSuccess;
}

}  // namespace detail

/// Integers of DecodePlanArgs::plan on a device of `multiprocessors`, for up to `pairs` sequences times KV
/// heads.
[[nodiscard]] constexpr std::int64_t decode_plan_elements(int multiprocessors, int pairs) {
  const std::int64_t most =
      std::int64_t{detail::most_decode_parts(multiprocessors)} * 3 / 2 + pairs;
  return detail::DecodePlanView::kHeadWords + most * detail::DecodePlanView::kJobWords;
}

/// Integers of DecodeWorkspace::counters for the same.
[[nodiscard]] constexpr std::int64_t decode_counters(int pairs) {
  return std::int64_t{pairs} + 2;
}

/// Shares out the work of decode_step among its blocks. Positions are the same in all layers, so once a
/// step does for all of them.
///
/// Shapes:  chunks as decode_step's, at most 1024; the same ctx.multiprocessors, too.
/// Layout:  DecodePlanView's.
/// Errors:  cudaErrorInvalidValue when a shape is not one of these.
/// Stream:  queued on ctx.stream; one kernel at least that waits before it lets the next one begin lies between it and
///          the first decode_step.
///          Positions are read from device memory, so a graph can be replayed.
/// Source:  a list of tasks made on the device (FlashAttention-3's prepare_varlen, as an idea).
template <AttentionPolicy P>
[[nodiscard]] cudaError_t decode_plan(Cuda ctx, const DecodePlanArgs& args) {
  if (!detail::is_decode_batch(args.n_chunks, args.kv_heads)) return cudaErrorInvalidValue;
  if (args.n_chunks == 0) return cudaSuccess;
  detail::DecodePlanWork work{.args = args, .shape = {}, .parts = detail::DecodeTask<P>::kParts};
  LMD_CUDA_RETURN_IF_ERROR(detail::decode_shape(ctx, work.pairs(), &work.shape));
  return launch(ctx, {.grid = 1, .block = detail::kPlanThreads},
                &detail::decode_plan_kernel<detail::DecodePlanWork>, work);
}

}  // namespace lmd::kernels
