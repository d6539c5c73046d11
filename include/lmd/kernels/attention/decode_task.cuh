/// \file  How the work of a decode step is cut into tasks, and how a task's bytes are fetched.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/kernels/attention/step.hpp>
#include <lmd/kernels/primitive/async_copy.cuh>

#include <algorithm>

namespace lmd::kernels {

/// Device memory that the blocks of a decode step share. One step at a time may use it.
struct DecodeWorkspace {
  float* partial = nullptr;  ///< [decode_partial_elements(...)]
  int* counters = nullptr;   ///< [n_chunks * kv_heads], zero before the first step and after each
};

template <Activation T>
struct DecodeStepArgs {
  /// chunks [n_chunks] lie in device memory, each of one token; open pages start as zeros.
  BasicAttentionStepArgs<T> step;
  std::int64_t open_at = 0;  ///< elements from a chunk's open keys and values to this layer's
  DecodeWorkspace workspace;
};

namespace detail {

/// Warps of a block: half as many where it has half the shared memory.
LMD_HD constexpr int decode_warps(Arch arch) {
  return arch.has_large_blocks() ? 8 : 4;
}
inline constexpr int kDecodeWarps = decode_warps(kDeviceArch);  ///< of kernels
inline constexpr int kMaxDecodeBatch = 1024;
inline constexpr int kMaxGroup = 8;  // queries of a KV head: columns of a tensor-core product

/// What one warp does at a time is a task: 16, 32 or 64 tokens of one page, 4 KB of keys and 4 KB
/// of values for head_dim 128 whatever the format.
template <AttentionPolicy P>
struct DecodeTask {
  using Key = typename P::Scheme::Key;
  using Value = typename P::Scheme::Value;
  using Unit = typename P::Unit;
  static constexpr int kDim = P::kHeadDim;
  static constexpr int kSteps = kDim / 16;  // products along a head
  static constexpr int kParts = (Key::kBits > Value::kBits ? Key::kBits : Value::kBits) / 4;
  static constexpr int kTiles = 4 / kParts;  // of 16 tokens
  static constexpr int kKeyBytes = Unit::KeyTile::kBytes / kParts;
  static constexpr int kValueBytes = Unit::ValueTile::kBytes / kParts;
  static constexpr int param_bytes(quant::ParamAxis axis) {
    return axis == quant::ParamAxis::kNone      ? 0
           : axis == quant::ParamAxis::kChannel ? kDim * 4
                                                : kTiles * 16 * 4;
  }
  static constexpr int kKeyParamBytes = param_bytes(Key::kAxis);
  static constexpr int kValueParamBytes = param_bytes(Value::kAxis);
  static constexpr int kOpenBytes = 16 * kDim * 2;  // keys, or values, of a quarter of an open page
  static constexpr int kSlotBytes = round_up(
      std::max({kKeyBytes + kKeyParamBytes, kValueBytes + kValueParamBytes, kOpenBytes}), 128);
  static constexpr int kSlots = 3;  // of keys and values in turn, for each warp
  static_assert(Value::kAxis != quant::ParamAxis::kChannel,
                "weights are multiplied by the scales of their tokens");
};

/// Where a task's bytes come from.
struct TaskSource {
  const std::uint8_t* keys = nullptr;
  const std::uint8_t* values = nullptr;
  int part = -1;  ///< of a sealed page; -1 for a quarter of an open page
};

/// Tasks of one KV head of a sequence whose query is at `position`.
template <class Task>
__device__ __forceinline__ int tasks_of(int position) {
  return position / cache::kPageTokens * Task::kParts + position % cache::kPageTokens / 16 + 1;
}

/// The largest i with prefix[i] <= u.
__device__ __forceinline__ int sequence_of(const int* prefix, int batch, int u) {
  int low = 0;
  int high = batch;
  while (high - low > 1) {
    const int middle = (low + high) / 2;
    (prefix[middle] <= u ? low : high) = middle;
  }
  return low;
}

/// prefix[b] = tasks of the sequences before b. One warp.
template <class Task>
__device__ __forceinline__ void count_tasks(const SequenceChunk* chunks,
                                            int batch,
                                            int kv_heads,
                                            int* prefix) {
  const int lane = threadIdx.x % 32;
  int before = 0;
  for (int b = lane; b - lane < batch; b += 32) {
    int tasks = b < batch ? tasks_of<Task>(chunks[b].position) * kv_heads : 0;
#pragma unroll
    for (int step = 1; step < 32; step *= 2) {
      const int other = __shfl_up_sync(0xffffffffu, tasks, step);
      if (lane >= step) tasks += other;
    }
    if (b < batch) prefix[b + 1] = before + tasks;
    before += __shfl_sync(0xffffffffu, tasks, 31);
  }
  if (lane == 0) prefix[0] = 0;
}

/// A (sequence, KV head) pair and its tasks.
struct DecodeRun {
  int b, kvh, first, last;
};

/// The run that holds task u.
__device__ __forceinline__ DecodeRun run_of(const int* prefix, int batch, int kv_heads, int u) {
  const int b = sequence_of(prefix, batch, u);
  const int tasks = (prefix[b + 1] - prefix[b]) / kv_heads;
  const int kvh = (u - prefix[b]) / tasks;
  const int first = prefix[b] + kvh * tasks;
  return {b, kvh, first, first + tasks};
}

/// Where the bytes of task u are.
template <class Task, Activation T>
__device__ __forceinline__ TaskSource
locate(const DecodeStepArgs<T>& args, const SequenceChunk* chunks, const int* prefix, int u) {
  using Unit = typename Task::Unit;
  const BasicAttentionStepArgs<T>& a = args.step;
  const int b = sequence_of(prefix, a.n_chunks, u);
  const int tasks = (prefix[b + 1] - prefix[b]) / a.kv_heads;
  const int kvh = (u - prefix[b]) / tasks;
  const int r = u - prefix[b] - kvh * tasks;
  const SequenceChunk& chunk = chunks[b];
  const int sealed = chunk.position / cache::kPageTokens * Task::kParts;
  TaskSource from;
  if (r < sealed) {
    const std::uint8_t* unit =
        a.pool + chunk.page_ids[r / Task::kParts] * a.page_bytes + std::int64_t{kvh} * Unit::kBytes;
    from.keys = unit;
    from.values = unit + Unit::kValuesAt;
    from.part = r % Task::kParts;
  } else {
    const int quarter = r - sealed;
    const std::int64_t at = args.open_at + std::int64_t{kvh} * cache::kPageTokens * Task::kDim +
                            std::int64_t{quarter} * 16 * Task::kDim;
    from.keys = reinterpret_cast<const std::uint8_t*>(chunk.open_keys + at);
    from.values = reinterpret_cast<const std::uint8_t*>(chunk.open_values + at);
  }
  return from;
}

/// Queues the copies of a task's keys or values into a slot. The lanes of a warp that copy.
template <class Task>
__device__ __forceinline__ void fetch_task(const TaskSource& from,
                                           bool is_values,
                                           std::uint32_t slot,
                                           std::uint32_t barrier) {
  if (from.part < 0) {
    expect_bytes(barrier, Task::kOpenBytes);
    bulk_copy(slot, is_values ? from.values : from.keys, Task::kOpenBytes, barrier);
    end_copies(barrier);
    return;
  }
  const int code_bytes = is_values ? Task::kValueBytes : Task::kKeyBytes;
  const int param_bytes = is_values ? Task::kValueParamBytes : Task::kKeyParamBytes;
  const std::uint8_t* unit = is_values ? from.values : from.keys;
  const bool per_token =
      is_values || Task::Key::kAxis == quant::ParamAxis::kToken;  // else one set for the page
  using Unit = typename Task::Unit;
  const int params_at = is_values ? Unit::kValueParamsAt - Unit::kValuesAt : Unit::kKeyParamsAt;
  expect_bytes(barrier, code_bytes + param_bytes);
  bulk_copy(slot, unit + from.part * code_bytes, code_bytes, barrier);
  if (param_bytes > 0) {
    bulk_copy(slot + code_bytes, unit + params_at + (per_token ? from.part * param_bytes : 0),
              param_bytes, barrier);
  }
  end_copies(barrier);
}

}  // namespace detail

}  // namespace lmd::kernels
