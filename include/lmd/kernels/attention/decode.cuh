/// \file  One token of each sequence: RoPE, append, attention over pages as they are stored. Cuda.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/core/launch.cuh>
#include <lmd/kernels/attention/decode_products.cuh>

namespace lmd::kernels {

namespace detail {

/// Shared memory of a block. A warp's tasks follow one another, so at most two (sequence, KV head)
/// pairs are not all its own: its first and its last.
template <class Task, int Warps = kDecodeWarps>
struct DecodeShared {
  static constexpr int kEntries = Warps * 2;  // first and last of each warp
  static constexpr int kStagedChunks = 64;    // larger batches read theirs from memory
  static constexpr int kRing = Warps * Task::kSlots * Task::kSlotBytes;
  static constexpr int kBarriersAt = kRing;
  static constexpr int kChunksAt = kBarriersAt + Warps * Task::kSlots * 8;
  static constexpr int kStatsAt =
      kChunksAt + kStagedChunks * static_cast<int>(sizeof(SequenceChunk));
  static constexpr int kWeightsAt = kStatsAt + kEntries * kMaxGroup * 2 * 4;
  static constexpr int kRunsAt = kWeightsAt + kEntries * kMaxGroup * 2 * 4;
  static constexpr int kPartsAt = kRunsAt + kEntries * 4;
  LMD_HD static constexpr int prefix_at(int group) {
    return kPartsAt + kEntries * group * Task::kDim * 4;
  }
  LMD_HD static constexpr int bytes(int group, int batch) {
    return prefix_at(group) + round_up((batch + 1) * 4, 16);
  }
};

/// Floats of a block's part of one (sequence, KV head): sums, then maxima and sums of weights.
template <class Task>
LMD_HD constexpr int partial_stride() {
  return kMaxGroup * Task::kDim + 2 * kMaxGroup;
}

/// This warp's state -> shared memory, in units of the values.
template <class Task>
__device__ __forceinline__ void store_part(
    DecodeState<Task>& state, float* part, float* stats, int group, int lane) {
  using Fragments = quant::KvFragments<Task::Value::kBits>;
  const int g = lane / 4;
  const int t = lane % 4;
#pragma unroll
  for (int j = 0; j < 2; ++j) {
#pragma unroll
    for (int step = 4; step < 32; step *= 2) {
      state.sum[j] += __shfl_xor_sync(0xffffffffu, state.sum[j], step);
      state.zero[j] += __shfl_xor_sync(0xffffffffu, state.zero[j], step);
    }
    const int h = 2 * t + j;
    if (h >= group) continue;
    float* to = part + h * Task::kDim;
#pragma unroll
    for (int d = 0; d < Task::kSteps; ++d) {
      to[d * 16 + g] = fmaf(state.out[d][j], Fragments::kLowerScale, state.zero[j]);
      to[d * 16 + g + 8] = fmaf(state.out[d][j + 2], Fragments::kUpperScale, state.zero[j]);
    }
    if (g == 0) {
      stats[h] = state.max[j];
      stats[kMaxGroup + h] = state.sum[j];
    }
  }
}

/// What the parts of a pair weigh when they are added up. Entries of one pair are neighbours, with
/// empty ones (-1) between; one thread an entry and query.
///
/// Shapes:  stats [entry][maxima, sums of weights][kMaxGroup]; weights [entry][weight, total], where
///          the total is that of the entry's pair, and the largest maximum replaces its own.
template <int Entries>
__device__ __forceinline__ void weigh_parts(const int* runs,
                                            float* stats,
                                            float* weights,
                                            int group) {
  const int j = threadIdx.x / kMaxGroup;
  const int h = threadIdx.x % kMaxGroup;
  float max = -1e30f;
  float total = 0.0f;
  const bool is_used = j < Entries && h < group && runs[j] >= 0;
  if (is_used) {
#pragma unroll
    for (int i = 0; i < Entries; ++i)
      if (runs[i] == runs[j]) max = fmaxf(max, stats[i * 2 * kMaxGroup + h]);
#pragma unroll
    for (int i = 0; i < Entries; ++i) {
      const float* stat = stats + i * 2 * kMaxGroup + h;
      if (runs[i] == runs[j]) total = fmaf(exp2_approx(stat[0] - max), stat[kMaxGroup], total);
    }
    weights[j * 2 * kMaxGroup + h] = exp2_approx(stats[j * 2 * kMaxGroup + h] - max);
    weights[j * 2 * kMaxGroup + kMaxGroup + h] = total;
  }
  __syncthreads();
  if (is_used) stats[j * 2 * kMaxGroup + h] = max;
}

/// A decode step's block. Blocks share out the tasks of all sequences and KV heads in equal runs,
/// and so do the warps of a block. A pair that lies within one warp is finished by it; what is left
/// is put together in the block, and where several blocks have parts, by the one that finishes last,
/// in the order of the tokens.
template <AttentionPolicy P, Activation T>
struct DecodeBlock {
  using Task = DecodeTask<P>;
  using Shared = DecodeShared<Task>;
  static constexpr int kThreads = kDecodeWarps * 32;

  const DecodeStepArgs<T>& args;
  std::uint8_t* shared;
  const BasicAttentionStepArgs<T>& a = args.step;
  int warp = threadIdx.x / 32;
  int lane = threadIdx.x % 32;
  int group = a.heads / a.kv_heads;
  int run_elements = group * Task::kDim;
  float* stats = reinterpret_cast<float*>(shared + Shared::kStatsAt);
  float* weights = reinterpret_cast<float*>(shared + Shared::kWeightsAt);
  int* runs = reinterpret_cast<int*>(shared + Shared::kRunsAt);
  float* parts = reinterpret_cast<float*>(shared + Shared::kPartsAt);
  int* prefix = reinterpret_cast<int*>(shared + Shared::prefix_at(group));
  const SequenceChunk* chunks = a.chunks;
  int total = 0;   ///< tasks
  int blocks = 0;  ///< that have tasks
  int block_first = 0, block_last = 0;
  int first = 0, last = 0;  ///< this warp's

  // The ring: copies run up to three ahead, keys and values of a task are two.
  std::uint8_t* ring = shared + warp * Task::kSlots * Task::kSlotBytes;
  std::uint32_t barriers = shared_address(shared + Shared::kBarriersAt) + warp * Task::kSlots * 8;
  TaskSource source;  ///< of task `lane` of 32
  int fetched = 0;
  int fetch_slot = 0;
  int slot = 0;
  std::uint32_t parity = 0;

  __device__ __forceinline__ int first_of(int block) const {
    return static_cast<int>(std::int64_t{total} * block / blocks);
  }
  __device__ __forceinline__ int block_of(int u) const {
    return static_cast<int>(((std::int64_t{u} + 1) * blocks - 1) / total);
  }
  __device__ __forceinline__ DecodeRun run_at(int u) const {
    return run_of(prefix, a.n_chunks, a.kv_heads, u);
  }
  __device__ __forceinline__ T* out_of(int b, int kvh) const {
    return a.out + (std::int64_t{chunks[b].first_row} * a.heads + kvh * group) * Task::kDim;
  }
  /// A block's first pair may go on from the block before, its last one in the next.
  __device__ __forceinline__ float* partial_of(int block, bool is_first_pair) const {
    return args.workspace.partial +
           (std::int64_t{block} * 2 + (is_first_pair ? 0 : 1)) * partial_stride<Task>();
  }

  /// Counts the tasks and takes this warp's share. Nothing here depends on the kernel before.
  __device__ __forceinline__ void share_tasks() {
    if (lane == 0) {
      for (int i = 0; i < Task::kSlots; ++i)
        init_barrier(barriers + i * 8, kCopyLanes);
      publish_barriers();
      runs[warp * 2] = runs[warp * 2 + 1] = -1;
    }
    if (a.n_chunks <= Shared::kStagedChunks) {
      const auto* from = reinterpret_cast<const std::uint32_t*>(a.chunks);
      auto* to = reinterpret_cast<std::uint32_t*>(shared + Shared::kChunksAt);
      const int words = a.n_chunks * static_cast<int>(sizeof(SequenceChunk)) / 4;
      for (int i = threadIdx.x; i < words; i += kThreads)
        to[i] = from[i];
      chunks = reinterpret_cast<const SequenceChunk*>(to);
      __syncthreads();
    }
    if (warp == 0) count_tasks<Task>(chunks, a.n_chunks, a.kv_heads, prefix);
    __syncthreads();
    total = prefix[a.n_chunks];
    // Few tasks: fewer blocks, so that most sums are put together inside one.
    blocks = min(static_cast<int>(gridDim.x), ceil_div(total, kDecodeWarps));
    if (static_cast<int>(blockIdx.x) >= blocks) return;
    block_first = first_of(blockIdx.x);
    block_last = first_of(blockIdx.x + 1);
    const int n = block_last - block_first;
    first = block_first + n * warp / kDecodeWarps;
    last = block_first + n * (warp + 1) / kDecodeWarps;
  }

  /// Queues the next copy, keys and values in turn. All lanes call.
  __device__ __forceinline__ void fetch_next() {
    const int i = fetched / 2;
    if (i >= last - first) return;
    const bool is_values = fetched % 2 != 0;
    if (!is_values && i % 32 == 0 && first + i + lane < last)
      source = locate<Task>(args, chunks, prefix, first + i + lane);
    const auto broadcast = [&](const std::uint8_t* pointer) {
      return reinterpret_cast<const std::uint8_t*>(
          __shfl_sync(0xffffffffu, reinterpret_cast<unsigned long long>(pointer), i % 32));
    };
    const TaskSource from{.keys = broadcast(source.keys),
                          .values = broadcast(source.values),
                          .part = __shfl_sync(0xffffffffu, source.part, i % 32)};
    if (lane < kCopyLanes) {
      fetch_task<Task>(from, is_values, shared_address(ring + fetch_slot * Task::kSlotBytes),
                       barriers + fetch_slot * 8);
    }
    ++fetched;
    if (++fetch_slot == Task::kSlots) fetch_slot = 0;
  }

  /// This warp is done with a slot: it is filled again.
  __device__ __forceinline__ void release_slot() {
    __syncwarp();
    fetch_next();
    if (++slot == Task::kSlots) {
      slot = 0;
      parity ^= 1;
    }
  }

  /// One quarter of an open page; `token` is the query's place in it, that of the newest token.
  __device__ __forceinline__ void attend_open(DecodeState<Task>& state,
                                              const DecodeQuery<Task, T>& q,
                                              const DecodeRun& run,
                                              int quarter,
                                              int token,
                                              float scale) {
    const SequenceChunk& chunk = chunks[run.b];
    const bool is_newest = quarter == token / 16;
    NewToken<Task, T> newest;
    if (is_newest) {
      const T* row =
          a.qkv + std::int64_t{chunk.first_row} * (a.heads + 2 * a.kv_heads) * Task::kDim;
      newest.load(row + (a.heads + run.kvh) * Task::kDim,
                  row + (a.heads + a.kv_heads + run.kvh) * Task::kDim,
                  a.rotation + std::int64_t{chunk.first_row} * Task::kDim, lane);
    }
    const int value_slot = slot + 1 == Task::kSlots ? 0 : slot + 1;
    std::uint8_t* keys = ring + slot * Task::kSlotBytes;
    std::uint8_t* values = ring + value_slot * Task::kSlotBytes;
    wait_barrier(barriers + slot * 8, parity);
    wait_barrier(barriers + value_slot * 8, value_slot == 0 ? parity ^ 1 : parity);
    if (is_newest) {
      const std::int64_t tile =
          args.open_at + std::int64_t{run.kvh} * cache::kPageTokens * Task::kDim;
      newest.append(chunk.open_keys + tile, chunk.open_values + tile, token, keys, values, lane);
      fence_before_copies();  // copies will write these slots again
      __syncwarp();
    }
    float p[1][4];
    open_scores<Task>(p, keys, q, scale, token - quarter * 16, lane);
    release_slot();
    state.template weigh<1>(p);
    open_values<Task>(state, p, values, lane);
    release_slot();
  }

  __device__ __forceinline__ void attend_sealed(DecodeState<Task>& state,
                                                const DecodeQuery<Task, T>& q,
                                                float scale) {
    float p[Task::kTiles][4];
    wait_barrier(barriers + slot * 8, parity);
    sealed_scores<Task>(p, ring + slot * Task::kSlotBytes, q, scale, lane);
    release_slot();
    state.template weigh<Task::kTiles>(p);
    wait_barrier(barriers + slot * 8, parity);
    sealed_values<Task>(state, p, ring + slot * Task::kSlotBytes, lane);
    release_slot();
  }

  /// This warp's tasks, pair after pair.
  __device__ __forceinline__ void attend() {
    const float scale = 1.4426950408889634f * rsqrtf(static_cast<float>(Task::kDim));
    DecodeState<Task> state;
    for (int u = first; u < last;) {
      const DecodeRun run = run_at(u);
      const SequenceChunk& chunk = chunks[run.b];
      const int token = chunk.position % cache::kPageTokens;
      const int open_first = run.first + chunk.position / cache::kPageTokens * Task::kParts;
      const bool is_first = u == first;
      const bool is_whole = u == run.first && run.last <= last;
      DecodeQuery<Task, T> q;
      const T* row =
          a.qkv + std::int64_t{chunk.first_row} * (a.heads + 2 * a.kv_heads) * Task::kDim;
      q.load(row + run.kvh * run_elements, a.rotation + std::int64_t{chunk.first_row} * Task::kDim,
             group, lane);
      state.reset();
      for (const int end = min(run.last, last); u < end; ++u) {
        if (u < open_first) {
          attend_sealed(state, q, scale);
        } else {
          attend_open(state, q, run, u - open_first, token, scale);
        }
      }
      // A whole pair passes through the place of the last one, which is written after it.
      const int entry = warp * 2 + (is_first && !is_whole ? 0 : 1);
      store_part(state, parts + entry * run_elements, stats + entry * 2 * kMaxGroup, group, lane);
      if (is_whole) {
        store_whole(entry, out_of(run.b, run.kvh));
      } else if (lane == 0) {
        runs[entry] = run.b * a.kv_heads + run.kvh;
      }
    }
  }

  __device__ __forceinline__ void store_whole(int entry, T* out) const {
    __syncwarp();
    const float* part = parts + entry * run_elements;
    const float* sums = stats + entry * 2 * kMaxGroup + kMaxGroup;
    for (int x = lane * 2; x < run_elements; x += 64) {
      const float inverse = 1.0f / sums[x / Task::kDim];
      const float2 v = *reinterpret_cast<const float2*>(part + x);
      *reinterpret_cast<std::uint32_t*>(out + x) = pack_pair<T>(v.x * inverse, v.y * inverse);
    }
    __syncwarp();
  }

  /// Adds up what the warps have of each pair: -> out, or this block's part of a shared pair.
  __device__ __forceinline__ void merge_in_block() const {
    weigh_parts<Shared::kEntries>(runs, stats, weights, group);
    __syncthreads();
    for (int i = 0; i < Shared::kEntries; ++i) {
      const int id = runs[i];
      if (id < 0 || (i > 0 && runs[i - 1] == id) || (i > 1 && runs[i - 2] == id)) continue;
      const int b = id / a.kv_heads;
      const int kvh = id - b * a.kv_heads;
      const int tasks = (prefix[b + 1] - prefix[b]) / a.kv_heads;
      const int run_first = prefix[b] + kvh * tasks;
      const bool is_inside = run_first >= block_first && run_first + tasks <= block_last;
      T* out = out_of(b, kvh);
      float* partial = partial_of(blockIdx.x, run_first <= block_first);
      for (int x = threadIdx.x; x < run_elements; x += kThreads) {
        const int h = x / Task::kDim;
        float value = 0.0f;
#pragma unroll
        for (int j = 0; j < Shared::kEntries; ++j)
          if (runs[j] == id)
            value = fmaf(weights[j * 2 * kMaxGroup + h], parts[j * run_elements + x], value);
        const float sum = weights[i * 2 * kMaxGroup + kMaxGroup + h];
        if (is_inside) {
          out[x] = from_float<T>(value / sum);
          continue;
        }
        partial[x] = value;
        if (x % Task::kDim == 0) {
          partial[kMaxGroup * Task::kDim + h] = stats[i * 2 * kMaxGroup + h];
          partial[kMaxGroup * Task::kDim + kMaxGroup + h] = sum;
        }
      }
    }
  }

  /// Pairs that several blocks have parts of: this block's first one and its last one.
  __device__ __forceinline__ void merge_across_blocks(bool (&is_last)[2]) const {
    const DecodeRun pairs[2] = {run_at(block_first), run_at(block_last - 1)};
    const bool is_shared[2] = {pairs[0].first < block_first || pairs[0].last > block_last,
                               pairs[1].first != pairs[0].first && pairs[1].last > block_last};
    if (!is_shared[0] && !is_shared[1]) return;
    __threadfence();
    __syncthreads();
    if (threadIdx.x == 0) {
#pragma unroll
      for (int k = 0; k < 2; ++k) {
        is_last[k] = false;
        if (!is_shared[k]) continue;
        int* counter = args.workspace.counters + pairs[k].b * a.kv_heads + pairs[k].kvh;
        const int others = block_of(pairs[k].last - 1) - block_of(pairs[k].first);
        is_last[k] = atomicAdd(counter, 1) == others;
        if (is_last[k]) *counter = 0;
      }
    }
    __syncthreads();
    __threadfence();
#pragma unroll
    for (int k = 0; k < 2; ++k)
      if (is_last[k]) merge_partials(pairs[k]);
  }

  __device__ __forceinline__ void merge_partials(const DecodeRun& run) const {
    const int from = block_of(run.first);
    const int to = block_of(run.last - 1);
    const bool starts_block = first_of(from) == run.first;
    const auto at = [&](int block) { return partial_of(block, block != from || starts_block); };
    T* out = out_of(run.b, run.kvh);
    for (int x = threadIdx.x; x < run_elements; x += kThreads) {
      const int max_at = kMaxGroup * Task::kDim + x / Task::kDim;
      float max = -1e30f;
#pragma unroll 8
      for (int block = from; block <= to; ++block)
        max = fmaxf(max, __ldcg(at(block) + max_at));
      float sum = 0.0f;
      float value = 0.0f;
#pragma unroll 8
      for (int block = from; block <= to; ++block) {
        const float* partial = at(block);
        const float weight = exp2_approx(__ldcg(partial + max_at) - max);
        sum = fmaf(weight, __ldcg(partial + max_at + kMaxGroup), sum);
        value = fmaf(weight, __ldcg(partial + x), value);
      }
      out[x] = from_float<T>(value / sum);
    }
  }
};

template <AttentionPolicy P, Activation T>
__global__ void __launch_bounds__(kDecodeWarps * 32, 1)
    decode_step_kernel(const __grid_constant__ DecodeStepArgs<T> args) {
  extern __shared__ __align__(128) std::uint8_t shared[];
  __shared__ bool is_last[2];
  DecodeBlock<P, T> block{.args = args, .shared = shared};
  block.share_tasks();
  if (static_cast<int>(blockIdx.x) >= block.blocks) {
    wait_for_previous_kernel();
    allow_next_kernel();
    return;
  }
  for (int i = 0; i < DecodeTask<P>::kSlots; ++i)
    block.fetch_next();
  wait_for_previous_kernel();
  allow_next_kernel();
  block.attend();
  __syncthreads();
  block.merge_in_block();
  block.merge_across_blocks(is_last);
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
/// Shapes:  as BasicAttentionStepArgs; at most 1024 chunks, 8 queries for each KV head.
/// Layout:  FragmentKvPolicy's pages and open order; all rows 16-byte aligned.
/// Errors:  cudaErrorInvalidValue when a shape is not one of these.
/// Stream:  queued on ctx.stream. Lengths are read from device memory, so a graph can be replayed.
/// Oracle:  attention_step(Host, ...)
/// Source:  split KV with a last block that merges (FlashDecoding, as an idea); queries of one KV
///          head as the columns of a product (TurboMind, as an idea).
template <AttentionPolicy P, Activation T>
[[nodiscard]] cudaError_t decode_step(Cuda ctx, const DecodeStepArgs<T>& args) {
  using Task = detail::DecodeTask<P>;
  const BasicAttentionStepArgs<T>& a = args.step;
  if (a.n_chunks < 0 || a.n_chunks > detail::kMaxDecodeBatch || a.kv_heads <= 0 ||
      a.heads % a.kv_heads != 0 || a.heads / a.kv_heads > detail::kMaxGroup) {
    return cudaErrorInvalidValue;
  }
  if (a.n_chunks == 0) return cudaSuccess;
  int sms = 0;
  LMD_CUDA_RETURN_IF_ERROR(multiprocessors(ctx, &sms));
  const auto kernel = &detail::decode_step_kernel<P, T>;
  return with_tuned_arch(kernel, [&]<int kCc>() {
    constexpr int kWarps = detail::decode_warps(Arch{kCc});
    using Shared = detail::DecodeShared<Task, kWarps>;
    static_assert(
        Shared::bytes(detail::kMaxGroup, detail::kMaxDecodeBatch) <= Arch{kCc}.shared_bytes(),
        "every step fits into shared memory");
    return launch(
        ctx,
        {.grid = static_cast<unsigned>(sms),
         .block = kWarps * 32,
         .shared_bytes = static_cast<std::size_t>(Shared::bytes(a.heads / a.kv_heads, a.n_chunks))},
        kernel, args);
  });
}

}  // namespace lmd::kernels
