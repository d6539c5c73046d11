/// \file  One token of each sequence: RoPE, append, attention over pages as they are stored. Cuda.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/core/launch.cuh>
#include <lmd/kernels/attention/decode_merge.cuh>
#include <lmd/kernels/attention/decode_plan.cuh>
#include <lmd/kernels/attention/decode_products.cuh>

namespace lmd::kernels {

namespace detail {

/// Shared memory of a block of `warps`: their rings, whose first slots take their parts in the end; what
/// is known of the parts; and what other blocks of a cluster send.
template <class Task>
struct DecodeShared {
  static constexpr int kRingBytes = Task::kSlots * Task::kSlotBytes;  ///< of a warp
  int warps;
  int group;

  [[nodiscard]] LMD_HD constexpr int barriers_at() const { return warps * kRingBytes; }
  [[nodiscard]] LMD_HD constexpr int inbox_barrier_at() const {
    return barriers_at() + warps * Task::kSlots * 8;
  }
  [[nodiscard]] LMD_HD constexpr int is_last_at() const { return inbox_barrier_at() + 8; }
  [[nodiscard]] LMD_HD constexpr int next_at() const { return is_last_at() + 4; }
  [[nodiscard]] LMD_HD constexpr int stats_at() const { return is_last_at() + 8; }
  [[nodiscard]] LMD_HD constexpr int inbox_at() const {
    return round_up(stats_at() + warps * 2 * group * 4, 16);
  }
  /// Slices are less than twice the records of a part together.
  [[nodiscard]] LMD_HD constexpr int bytes(int cluster) const {
    const int records = group * Task::kDim / 2;
    return inbox_at() + (cluster > 1 ? 2 * records * static_cast<int>(sizeof(PartRecord)) : 0);
  }
  static_assert(Task::kSlotBytes >= kMaxGroup * Task::kDim * 4, "a part fits into a slot");
};

/// One warp of a decode step: every `warps`th task of a job.
template <AttentionPolicy P, Activation T>
struct DecodeWarp {
  using Task = DecodeTask<P>;
  using Shared = DecodeShared<Task>;

  const DecodeStepArgs<T>& args;
  const DecodeJob& job;
  std::uint8_t* ring;  ///< keys and values of a task are two copies, which run up to three ahead
  std::uint32_t barriers;
  const BasicAttentionStepArgs<T>& a = args.step;
  int warp = threadIdx.x / 32;
  int lane = threadIdx.x % 32;
  int warps = blockDim.x / 32;
  int group = a.heads / a.kv_heads;
  int slot = 0;  ///< of the ring, the next one to be read
  std::uint32_t parity = 0;
  TaskSource source;  ///< of this warp's task `lane` of 32
  DecodeState<Task> state;
  DecodeQuery<Task, T> q;
  NewToken<Task, T> newest;

  /// This warp's tasks of the job.
  [[nodiscard]] __device__ __forceinline__ int tasks() const {
    return (job.tasks - warp + warps - 1) / warps;
  }
  /// Tasks of the pair that lie in sealed pages; the last one of all has the new token.
  [[nodiscard]] __device__ __forceinline__ int sealed() const {
    return job.position / cache::kPageTokens * Task::kParts;
  }
  [[nodiscard]] __device__ __forceinline__ int token() const {
    return job.position % cache::kPageTokens;
  }

  __device__ __forceinline__ void init_barriers() const {
    if (lane == 0) {
      for (int i = 0; i < Task::kSlots; ++i)
        init_barrier(barriers + i * 8, kCopyLanes);
      publish_barriers();
    }
    __syncwarp();
  }

  /// Queues copy number `half` of this warp, keys and values in turn, into slot `to`. All lanes call.
  __device__ __forceinline__ void fetch(int half, int to) {
    const int i = half / 2;
    if (i >= tasks()) return;
    if (half % 64 == 0 && i + lane < tasks())
      source = locate<Task>(args, job, job.first + warp + (i + lane) * warps);
    const std::uint32_t at = shared_address(ring + to * Task::kSlotBytes);
    if constexpr (kCopyLanes == 1) {
      if (lane == i % 32) fetch_task<Task>(source, half % 2 != 0, at, barriers + to * 8);
    } else {
      const auto broadcast = [&](const std::uint8_t* pointer) {
        return reinterpret_cast<const std::uint8_t*>(
            __shfl_sync(0xffffffffu, reinterpret_cast<unsigned long long>(pointer), i % 32));
      };
      const TaskSource from{.keys = broadcast(source.keys),
                            .values = broadcast(source.values),
                            .part = __shfl_sync(0xffffffffu, source.part, i % 32)};
      fetch_task<Task>(from, half % 2 != 0, at, barriers + to * 8);
    }
  }

  /// The first copies of the job. Nothing here depends on the kernel before.
  __device__ __forceinline__ void start() {
#pragma unroll 1
    for (int i = 0, to = slot; i < Task::kSlots; ++i, to = to + 1 == Task::kSlots ? 0 : to + 1)
      fetch(i, to);
  }

  /// Keys of task r -> weights of its tokens.
  __device__ __forceinline__ void attend_keys(
      float (&p)[Task::kTiles][4], std::uint8_t* bytes, int r, const float* rotation, float scale) {
    if (r < sealed()) {
      sealed_scores<Task>(p, bytes, q, scale, lane);
    } else {
      const int quarter = r - sealed();
      if (quarter == token() / 16) {
        newest.append_key(a.chunks[job.b].open_keys + open_tile(), rotation, token(), bytes, lane);
        fence_before_copies();  // copies will write this slot again
        __syncwarp();
      }
      open_scores<Task>(p, bytes, q, scale, token() - quarter * 16, lane);
    }
    state.template weigh<Task::kTiles>(p);
  }

  __device__ __forceinline__ void attend_values(const float (&p)[Task::kTiles][4],
                                                std::uint8_t* bytes,
                                                int r) {
    if (r < sealed()) {
      sealed_values<Task>(state, p, bytes, lane);
    } else {
      if (r - sealed() == token() / 16) {
        newest.append_value(a.chunks[job.b].open_values + open_tile(), token(), bytes, lane);
        fence_before_copies();
        __syncwarp();
      }
      open_values<Task>(state, p, bytes, lane);
    }
  }
  [[nodiscard]] __device__ __forceinline__ std::int64_t open_tile() const {
    return args.open_at + std::int64_t{job.kvh} * cache::kPageTokens * Task::kDim;
  }

  /// This warp's tasks -> its part, in the first slot of its ring, and what is known of it.
  __device__ __forceinline__ void attend(float* stats) {
    const int n = tasks();
    if (n <= 0) return;
    const int row = a.chunks[job.b].first_row;
    const float* rotation = a.rotation + std::int64_t{row} * Task::kDim;
    const T* qkv = a.qkv + std::int64_t{row} * (a.heads + 2 * a.kv_heads) * Task::kDim;
    if (job.first + warp + (n - 1) * warps == sealed() + token() / 16) {
      const int key_at = (a.heads + job.kvh) * Task::kDim;
      const int at = NewToken<Task, T>::place(key_at, key_at + a.kv_heads * Task::kDim, lane);
      if (at != 0) newest.load(qkv + at);
    }
    q.load(qkv + job.kvh * group * Task::kDim, rotation, group, lane);
    state.reset();
    const float scale = 1.4426950408889634f * rsqrtf(static_cast<float>(Task::kDim));
    float p[Task::kTiles][4];
    int r = job.first + warp;
#pragma unroll 1
    for (int half = 0; half < 2 * n; ++half) {
      std::uint8_t* bytes = ring + slot * Task::kSlotBytes;
      wait_barrier(barriers + slot * 8, parity);
      if (half % 2 == 0) {
        attend_keys(p, bytes, r, rotation, scale);
      } else {
        attend_values(p, bytes, r);
        r += warps;
      }
      __syncwarp();
      fetch(half + Task::kSlots, slot);
      if (++slot == Task::kSlots) {
        slot = 0;
        parity ^= 1;
      }
    }
    store_part(state, reinterpret_cast<float*>(ring), stats, group, lane);
  }
};

/// Jobs beyond one for each block: who has ended one takes the next.
struct DecodeQueue {
  int* taken;  ///< zero before and after
  int* ended;  ///< blocks that found nothing more; the same
  int jobs;

  [[nodiscard]] __device__ __forceinline__ bool is_needed() const {
    return jobs > static_cast<int>(gridDim.x);
  }
  [[nodiscard]] __device__ __forceinline__ int take() const {
    return static_cast<int>(gridDim.x) + atomicAdd(taken, 1);
  }
  /// The last block leaves the counters as they were found.
  __device__ __forceinline__ void leave() const {
    if (atomicAdd(ended, 1) != static_cast<int>(gridDim.x) - 1) return;
    *taken = 0;
    *ended = 0;
  }
};

/// Blocks take job after job. The warps of a block share one out, and put together what they have; where
/// several blocks have parts of a (sequence, KV head) pair, their cluster does, or the one that
/// ends last, in the order of the parts.
template <AttentionPolicy P, Activation T>
__global__ void __launch_bounds__(kMostDecodeWarps * 32, 2)
    decode_step_kernel(const __grid_constant__ DecodeStepArgs<T> args) {
  using Task = DecodeTask<P>;
  extern __shared__ __align__(128) std::uint8_t shared[];
  const DecodePlanView plan{const_cast<std::int32_t*>(args.workspace.plan)};
  DecodeJob job = plan.job(blockIdx.x);
  if (job.tasks == 0) return;
  const int warp_index = threadIdx.x / 32;
  const int group = args.step.heads / args.step.kv_heads;
  const DecodeShared<Task> layout{static_cast<int>(blockDim.x) / 32, group};
  float* stats = reinterpret_cast<float*>(shared + layout.stats_at());
  DecodeWarp<P, T> warp{
      .args = args,
      .job = job,
      .ring = shared + warp_index * DecodeShared<Task>::kRingBytes,
      .barriers = shared_address(shared + layout.barriers_at()) + warp_index * Task::kSlots * 8};
  const DecodeMerge<Task, T> merge{
      .args = args,
      .job = job,
      .parts = shared,
      .part_stride = DecodeShared<Task>::kRingBytes,
      .stats = stats,
      .inbox = shared + layout.inbox_at(),
      .inbox_barrier = shared_address(shared + layout.inbox_barrier_at()),
      .group = group};
  const int pairs = args.step.n_chunks * args.step.kv_heads;
  const DecodeQueue queue{args.workspace.counters + pairs, args.workspace.counters + pairs + 1,
                          plan.jobs()};
  int& next = *reinterpret_cast<int*>(shared + layout.next_at());
  warp.init_barriers();
#pragma unroll 1
  for (;;) {
    warp.start();
    if (merge.is_in_cluster()) merge.open_inbox();
    wait_for_previous_kernel();
    allow_next_kernel();
    warp.attend(stats + warp_index * 2 * group);
    __syncthreads();
    if (merge.is_in_cluster()) cluster_wait();  // all have opened their inboxes
    const bool takes_next = queue.is_needed() && threadIdx.x == 0;
    const int taken = takes_next ? queue.take() : 0;
    merge.in_block();
    if (takes_next) next = taken;
    if (merge.is_in_cluster()) {
      merge.in_cluster();
    } else if (job.pieces > 1) {
      merge.across_blocks(*reinterpret_cast<bool*>(shared + layout.is_last_at()));
    }
    if (!queue.is_needed()) return;
    fence_before_copies();
    __syncthreads();  // the parts have been read
    if (next >= queue.jobs) break;
    job = plan.job(next);
  }
  if (threadIdx.x == 0) queue.leave();
}

}  // namespace detail

/// Floats of DecodeWorkspace::partial on a device of `multiprocessors`.
template <AttentionPolicy P>
[[nodiscard]] constexpr std::int64_t decode_partial_elements(int multiprocessors) {
  return std::int64_t{detail::most_decode_parts(multiprocessors)} *
         detail::partial_stride<detail::DecodeTask<P>>();
}

/// attention_step for chunks of one token each, without the sealing: keys and values of the new
/// tokens are in the open pages afterwards. Pages that have become full are sealed by seal_step,
/// once for all layers.
///
/// Shapes:  as BasicAttentionStepArgs; at most 1024 chunks, 8 queries for each KV head. The plan is
///          decode_plan's of the same chunks, kv_heads and ctx.multiprocessors.
/// Layout:  FragmentKvPolicy's pages and open order; all rows 16-byte aligned.
/// Errors:  cudaErrorInvalidValue when a shape is not one of these.
/// Stream:  queued on ctx.stream. Lengths are read from device memory, so a graph can be replayed.
///          With ctx.overlap, chunks, page ids, the plan and pages are read while the kernel before
///          runs: what writes them comes before that one. qkv may be the work of the kernel before.
/// Oracle:  attention_step(Host, ...)
/// Source:  split KV with a last block that merges (FlashDecoding, as an idea); queries of one KV
///          head as the columns of a product (TurboMind, as an idea).
template <AttentionPolicy P, Activation T>
[[nodiscard]] cudaError_t decode_step(Cuda ctx, const DecodeStepArgs<T>& args) {
  using Task = detail::DecodeTask<P>;
  const BasicAttentionStepArgs<T>& a = args.step;
  if (!detail::is_decode_batch(a.n_chunks, a.kv_heads) || a.heads % a.kv_heads != 0 ||
      a.heads / a.kv_heads > detail::kMaxGroup) {
    return cudaErrorInvalidValue;
  }
  if (a.n_chunks == 0) return cudaSuccess;
  const auto kernel = &detail::decode_step_kernel<P, T>;
  detail::DecodeShape shape;
  LMD_CUDA_RETURN_IF_ERROR(detail::decode_shape(ctx, a.n_chunks * a.kv_heads, &shape));
  const detail::DecodeShared<Task> layout{shape.warps, a.heads / a.kv_heads};
  return launch(ctx,
                {.grid = static_cast<unsigned>(shape.blocks),
                 .block = static_cast<unsigned>(shape.warps * 32),
                 .shared_bytes = static_cast<std::size_t>(layout.bytes(shape.cluster)),
                 .cluster = shape.cluster},
                kernel, args);
}

}  // namespace lmd::kernels
