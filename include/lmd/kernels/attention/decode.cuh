/// \file  One token of each sequence: RoPE, append, attention over pages as they are stored. Cuda.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/core/launch.cuh>
#include <lmd/kernels/attention/decode_merge.cuh>
#include <lmd/kernels/attention/decode_plan.cuh>
#include <lmd/kernels/attention/decode_products.cuh>

namespace lmd::kernels {

namespace detail {

/// Shared memory of a block. A warp's tasks follow one another, so at most two (sequence, KV head)
/// pairs are not all its own: its first and its last. The part of the last one takes a slot of the
/// ring, which is empty by then; that of the first has a place, which blocks of a cluster do not need
/// (they have one pair) and use for each other's parts.
template <class Task, int Warps = kDecodeWarps>
struct DecodeShared {
  static constexpr int kRing = Warps * Task::kSlots * Task::kSlotBytes;
  static constexpr int kEntriesAt = kRing;
  static constexpr int kBarriersAt = kEntriesAt + Warps * 2 * static_cast<int>(sizeof(PartEntry));
  static constexpr int kInboxBarrierAt = kBarriersAt + Warps * Task::kSlots * 8;
  static constexpr int kIsLastAt = kInboxBarrierAt + 8;
  static constexpr int kWorkAt = round_up(kIsLastAt + 2, 16);
  static constexpr int kStatsAt = kWorkAt + static_cast<int>(sizeof(DecodeBlockShare));
  LMD_HD static constexpr int part_bytes(int group) { return group * Task::kDim * 4; }
  LMD_HD static constexpr int firsts_at(int group) { return kStatsAt + Warps * 4 * group * 4; }
  LMD_HD static constexpr int bytes(int group) {
    return firsts_at(group) + Warps * part_bytes(group);
  }
  /// Blocks that registers leave room for on a multiprocessor: two, so that the next kernel's start
  /// beside these, where shared memory does for four queries of a KV head and nothing is spilled.
  static constexpr int kStateRegisters = 4 * Task::kSteps + 4 * Task::kTiles;
  static constexpr int kBlocks =
      2 * (bytes(4) + 1024) <= 228 * 1024 && kStateRegisters <= 36 ? 2 : 1;
  static_assert(Task::kSlotBytes >= kMaxGroup * Task::kDim * 4, "a part fits into a slot");
};

/// A (sequence, KV head) pair, as far as one warp has it.
struct DecodePair {
  int b, kvh;
  int row;     ///< of the new token
  int token;   ///< its place in its page
  int tasks;   ///< of the pair
  int sealed;  ///< of them, in sealed pages
  int task;    ///< the next one
  int left;    ///< tasks of this warp
  bool is_whole;

  template <class Task>
  __device__ __forceinline__ void open_sequence(const SequenceChunk& chunk) {
    row = chunk.first_row;
    token = chunk.position % cache::kPageTokens;
    sealed = chunk.position / cache::kPageTokens * Task::kParts;
    tasks = tasks_at(Task::kParts, chunk.position);
  }
  /// Takes as many of the tasks from `task` on as the warp has.
  __device__ __forceinline__ void take(int tasks_of_warp, int step) {
    left = step > 1 ? tasks_of_warp : min(tasks_of_warp, tasks - task);
    is_whole = left == tasks;
  }
};

/// One warp of a decode step: its tasks, pair after pair.
template <AttentionPolicy P, Activation T>
struct DecodeWarp {
  using Task = DecodeTask<P>;
  using Shared = DecodeShared<Task>;

  const DecodeStepArgs<T>& args;
  std::uint8_t* shared;
  DecodeShare share;
  const BasicAttentionStepArgs<T>& a = args.step;
  int warp = threadIdx.x / 32;
  int lane = threadIdx.x % 32;
  int group = a.heads / a.kv_heads;

  // The ring: keys and values of a task are two copies, which run up to three ahead.
  std::uint8_t* ring = shared + warp * Task::kSlots * Task::kSlotBytes;
  std::uint32_t barriers = shared_address(shared + Shared::kBarriersAt) + warp * Task::kSlots * 8;
  TaskSource source;  ///< of task `lane` of 32
  DecodePair pair;
  DecodeState<Task> state;
  DecodeQuery<Task, T> q;
  NewToken<Task, T> newest;
  const T* heads_at;  ///< the pair's queries
  int newest_at;      ///< from heads_at to this lane's part of its key or value; 0: not needed

  __device__ __forceinline__ PartEntry* entries() const {
    return reinterpret_cast<PartEntry*>(shared + Shared::kEntriesAt) + warp * 2;
  }
  /// Of the new token.
  __device__ __forceinline__ const float* rotation() const {
    return a.rotation + std::int64_t{pair.row} * Task::kDim;
  }
  __device__ __forceinline__ std::int64_t open_tile() const {
    return args.open_at + std::int64_t{pair.kvh} * cache::kPageTokens * Task::kDim;
  }

  /// Barriers, the first copies, the first pair. Nothing here depends on the kernel before.
  __device__ __forceinline__ void start() {
    if (lane == 0) {
      for (int i = 0; i < Task::kSlots; ++i)
        init_barrier(barriers + i * 8, kCopyLanes);
      publish_barriers();
    }
    if (lane < 2) entries()[lane].pair = -1;
    __syncwarp();
    if (share.tasks == 0) return;
#pragma unroll 1
    for (int i = 0; i < Task::kSlots; ++i)
      fetch(i, i);
    pair.open_sequence<Task>(a.chunks[share.b]);
    pair.b = share.b;
    pair.kvh =
        static_cast<int>(static_cast<unsigned>(share.first) / static_cast<unsigned>(pair.tasks));
    pair.task = share.first - pair.kvh * pair.tasks;
    take(share.tasks);
    if (lane * 32 < Task::kDim)
      asm volatile(
          "prefetch.global.L2 [%0];" ::"l"(__cvta_generic_to_global(rotation() + lane * 32)));
  }

  /// Takes the pair's tasks, and finds out where what begin_pair reads is.
  __device__ __forceinline__ void take(int tasks_of_warp) {
    pair.take(tasks_of_warp, share.step);
    const T* row = a.qkv + std::int64_t{pair.row} * (a.heads + 2 * a.kv_heads) * Task::kDim;
    heads_at = row + pair.kvh * group * Task::kDim;
    const bool has_newest = pair.task + (pair.left - 1) * share.step == pair.tasks - 1;
    const int key_at = (a.heads + pair.kvh * (1 - group)) * Task::kDim;
    newest_at =
        has_newest ? NewToken<Task, T>::place(key_at, key_at + a.kv_heads * Task::kDim, lane) : 0;
  }

  /// Queues copy number `half` of this warp, keys and values in turn. All lanes call.
  __device__ __forceinline__ void fetch(int half, int slot) {
    const int i = half / 2;
    if (i >= share.tasks) return;
    if (half % 64 == 0 && i + lane < share.tasks) source = locate<Task>(args, share, i + lane);
    const std::uint32_t to = shared_address(ring + slot * Task::kSlotBytes);
    if constexpr (kCopyLanes == 1) {
      if (lane == i % 32) fetch_task<Task>(source, half % 2 != 0, to, barriers + slot * 8);
    } else {
      const auto broadcast = [&](const std::uint8_t* pointer) {
        return reinterpret_cast<const std::uint8_t*>(
            __shfl_sync(0xffffffffu, reinterpret_cast<unsigned long long>(pointer), i % 32));
      };
      const TaskSource from{.keys = broadcast(source.keys),
                            .values = broadcast(source.values),
                            .part = __shfl_sync(0xffffffffu, source.part, i % 32)};
      fetch_task<Task>(from, half % 2 != 0, to, barriers + slot * 8);
    }
  }

  /// What a pair needs of the kernel before.
  __device__ __forceinline__ void begin_pair() {
    if (newest_at != 0) newest.load(heads_at + newest_at);
    q.load(heads_at, rotation(), group, lane);
    state.reset();
  }

  /// Keys of a task -> weights of its tokens.
  __device__ __forceinline__ void attend_keys(float (&p)[Task::kTiles][4],
                                              std::uint8_t* slot,
                                              float scale) {
    if (pair.task < pair.sealed) {
      sealed_scores<Task>(p, slot, q, scale, lane);
    } else {
      if (pair.task == pair.tasks - 1) {
        newest.append_key(a.chunks[pair.b].open_keys + open_tile(), rotation(), pair.token, slot,
                          lane);
        fence_before_copies();  // copies will write this slot again
        __syncwarp();
      }
      open_scores<Task>(p, slot, q, scale, pair.token - (pair.task - pair.sealed) * 16, lane);
    }
    state.template weigh<Task::kTiles>(p);
  }

  __device__ __forceinline__ void attend_values(const float (&p)[Task::kTiles][4],
                                                std::uint8_t* slot) {
    if (pair.task < pair.sealed) {
      sealed_values<Task>(state, p, slot, lane);
    } else {
      if (pair.task == pair.tasks - 1) {
        newest.append_value(a.chunks[pair.b].open_values + open_tile(), pair.token, slot, lane);
        fence_before_copies();
        __syncwarp();
      }
      open_values<Task>(state, p, slot, lane);
    }
  }

  /// The warp's part of a pair -> out, if that is all, or where it is merged. `slot` is free; it stays
  /// so after the last pair.
  __device__ __forceinline__ void end_pair(std::uint8_t* slot, bool is_first, bool is_last) {
    const int entry = is_first ? 0 : 1;
    float* stats =
        reinterpret_cast<float*>(shared + Shared::kStatsAt) + (warp * 2 + entry) * 2 * group;
    std::uint8_t* part = pair.is_whole || is_last
                             ? slot
                             : shared + Shared::firsts_at(group) + warp * Shared::part_bytes(group);
    __syncwarp();  // all have read the slot
    store_part(state, reinterpret_cast<float*>(part), stats, group, lane);
    if (!pair.is_whole) {
      if (lane == 0) {
        entries()[entry] = {pair.b * a.kv_heads + pair.kvh, static_cast<int>(part - shared),
                            pair.row, pair.kvh};
      }
      return;
    }
    __syncwarp();
    T* out = a.out + (std::int64_t{pair.row} * a.heads + pair.kvh * group) * Task::kDim;
    const auto* sums = reinterpret_cast<const float2*>(part);
#pragma unroll 1
    for (int i = lane; i < group * Task::kDim / 2; i += 32) {
      const float inverse = __fdividef(1.0f, stats[group + i / (Task::kDim / 2)]);
      reinterpret_cast<std::uint32_t*>(out)[i] =
          pack_pair<T>(sums[i].x * inverse, sums[i].y * inverse);
    }
    fence_before_copies();
  }

  __device__ __forceinline__ void next_pair(int tasks_of_warp) {
    if (++pair.kvh == a.kv_heads) {
      pair.kvh = 0;
      pair.open_sequence<Task>(a.chunks[++pair.b]);
    }
    pair.task = 0;
    take(tasks_of_warp);
  }

  __device__ __forceinline__ void attend() {
    const float scale = 1.4426950408889634f * rsqrtf(static_cast<float>(Task::kDim));
    int slot = 0;
    std::uint32_t parity = 0;
    int done = 0;  // copies
    bool is_first = true;
#pragma unroll 1
    while (done < 2 * share.tasks) {
      float p[Task::kTiles][4] = {};
      begin_pair();
#pragma unroll 1
      for (int half = 2 * pair.left - 1; half >= 0; --half) {
        std::uint8_t* bytes = ring + slot * Task::kSlotBytes;
        wait_barrier(barriers + slot * 8, parity);
        if (half % 2 != 0) {
          attend_keys(p, bytes, scale);
        } else {
          attend_values(p, bytes);
          pair.task += share.step;
          if (half == 0) end_pair(bytes, is_first, done + 1 == 2 * share.tasks);
        }
        __syncwarp();
        fetch(done + Task::kSlots, slot);
        ++done;
        if (++slot == Task::kSlots) {
          slot = 0;
          parity ^= 1;
        }
      }
      is_first = false;
      if (done < 2 * share.tasks) next_pair(share.tasks - done / 2);
    }
  }
};

/// Each warp attends to its share. A pair that lies within one warp is finished by it; what is left is
/// put together in the block, and where several blocks have parts, by their cluster or by the one
/// that ends last, in the order of the blocks.
template <AttentionPolicy P, Activation T>
__global__ void __launch_bounds__(kDecodeWarps * 32, DecodeShared<DecodeTask<P>>::kBlocks)
    decode_step_kernel(const __grid_constant__ DecodeStepArgs<T> args) {
  using Task = DecodeTask<P>;
  using Shared = DecodeShared<Task>;
  extern __shared__ __align__(128) std::uint8_t shared[];
  const DecodePlanView plan{const_cast<std::int32_t*>(args.workspace.plan),
                            static_cast<int>(gridDim.x)};
  const DecodeBlockShare block = *plan.block(blockIdx.x);
  DecodeWarp<P, T> warp{
      .args = args, .shared = shared, .share = *plan.warp(blockIdx.x, threadIdx.x / 32)};
  if (block.tasks == 0) return;
  // Kept there until it is needed again, at the end.
  auto& work = *reinterpret_cast<DecodeBlockShare*>(shared + Shared::kWorkAt);
  if (threadIdx.x == 0) work = block;
  const DecodeMerge<Task, T> merge{
      .args = args,
      .a = args.step,
      .work = work,
      .shared = shared,
      .entries = reinterpret_cast<const PartEntry*>(shared + Shared::kEntriesAt),
      .stats = reinterpret_cast<const float*>(shared + Shared::kStatsAt),
      .inbox = shared + Shared::firsts_at(warp.group),
      .inbox_barrier = shared_address(shared + Shared::kInboxBarrierAt),
      .group = warp.group};
  warp.start();
  if (kDeviceArch.has_clusters() && block.in_cluster != 0) merge.open_inbox();
  wait_for_previous_kernel();
  allow_next_kernel();
  warp.attend();
  __syncthreads();
  const bool in_cluster = kDeviceArch.has_clusters() && work.in_cluster != 0;
  if (in_cluster) cluster_wait();  // all have opened their inboxes
  merge.in_block();
  if (in_cluster) {
    merge.in_cluster();
  } else if (work.came >= 0 || work.goes >= 0) {
    merge.across_blocks(reinterpret_cast<bool*>(shared + Shared::kIsLastAt));
  }
}

}  // namespace detail

/// Floats of DecodeWorkspace::partial on a device of `multiprocessors`.
template <AttentionPolicy P>
[[nodiscard]] constexpr std::int64_t decode_partial_elements(int multiprocessors) {
  return std::int64_t{multiprocessors} * 2 * detail::partial_stride<detail::DecodeTask<P>>();
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
  int sms = 0;
  LMD_CUDA_RETURN_IF_ERROR(multiprocessors(ctx, &sms));
  const auto kernel = &detail::decode_step_kernel<P, T>;
  return with_tuned_arch(kernel, [&]<int kCc>() {
    constexpr int kWarps = detail::decode_warps(Arch{kCc});
    using Shared = detail::DecodeShared<Task, kWarps>;
    static_assert(Shared::bytes(detail::kMaxGroup) <= Arch{kCc}.shared_bytes(),
                  "every step fits into shared memory");
    const detail::DecodeShape shape = detail::decode_shape(Arch{kCc}, sms, a.n_chunks * a.kv_heads);
    return launch(ctx,
                  {.grid = static_cast<unsigned>(shape.blocks),
                   .block = kWarps * 32,
                   .shared_bytes = static_cast<std::size_t>(Shared::bytes(a.heads / a.kv_heads)),
                   .cluster = shape.cluster},
                  kernel, args);
  });
}

}  // namespace lmd::kernels
