/// \file  How the work of a decode step is cut into tasks, and how a task's bytes are fetched.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/kernels/attention/step.hpp>
#include <lmd/kernels/primitive/async_copy.cuh>

#include <algorithm>

namespace lmd::kernels {

/// Device memory that the blocks of a decode step share. One step at a time may use it.
struct DecodeWorkspace {
  float* partial = nullptr;  ///< [decode_partial_elements(...)], 16-byte aligned
  int* counters = nullptr;   ///< [decode_counters(...)], zero before the first step and after each
  const std::int32_t* plan = nullptr;  ///< [decode_plan_elements(...)] made by decode_plan
};

template <Activation T>
struct DecodeStepArgs {
  /// chunks [n_chunks] lie in device memory, each of one token; open pages start as zeros.
  BasicAttentionStepArgs<T> step;
  std::int64_t open_at = 0;  ///< elements from a chunk's open keys and values to this layer's
  DecodeWorkspace workspace;
};

namespace detail {

inline constexpr int kMostDecodeWarps = 8;  // of a block
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

/// Tasks of one KV head of a sequence whose query is at `position`; a sealed page is `parts`.
LMD_HD constexpr int tasks_at(int parts, int position) {
  return position / cache::kPageTokens * parts + position % cache::kPageTokens / 16 + 1;
}

/// A block's work at a time: tasks of one (sequence, KV head) pair, or all. Its warps take turns along
/// them.
struct alignas(16) DecodeJob {
  const std::int32_t* page_ids = nullptr;  ///< of the sequence
  int position = 0;                        ///< of the new token
  int b = 0;
  int kvh = 0;
  int first = 0;    ///< task of the pair
  int tasks = 0;    ///< 0: nothing to do
  int pieces = 1;   ///< jobs that share out the pair
  int piece = 0;    ///< which of them this is
  int partial = 0;  ///< place of piece 0 in DecodeWorkspace::partial; below 0: pieces are a cluster
};

/// The jobs of a step, in device memory: their number, then each.
struct DecodePlanView {
  std::int32_t* words;

  static constexpr std::int64_t kHeadWords = 4;
  static constexpr std::int64_t kJobWords = sizeof(DecodeJob) / sizeof(std::int32_t);
  [[nodiscard]] LMD_HD std::int32_t& jobs() const { return words[0]; }
  [[nodiscard]] LMD_HD DecodeJob& job(int i) const {
    return reinterpret_cast<DecodeJob*>(words + kHeadWords)[i];
  }
};

/// Where the bytes of task r of the job's pair are.
template <class Task, Activation T>
__device__ __forceinline__ TaskSource locate(const DecodeStepArgs<T>& args,
                                             const DecodeJob& job,
                                             int r) {
  using Unit = typename Task::Unit;
  const BasicAttentionStepArgs<T>& a = args.step;
  const int sealed = job.position / cache::kPageTokens * Task::kParts;
  TaskSource from;
  if (r < sealed) {
    const std::uint8_t* unit = a.pool + job.page_ids[r / Task::kParts] * a.page_bytes +
                               std::int64_t{job.kvh} * Unit::kBytes;
    from.keys = unit;
    from.values = unit + Unit::kValuesAt;
    from.part = r % Task::kParts;
  } else {
    const SequenceChunk& chunk = a.chunks[job.b];
    const std::int64_t at = args.open_at + std::int64_t{job.kvh} * cache::kPageTokens * Task::kDim +
                            std::int64_t{r - sealed} * 16 * Task::kDim;
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
  using Unit = typename Task::Unit;
  const bool is_open = from.part < 0;
  const int part = is_open ? 0 : from.part;
  const int code_bytes = is_open     ? Task::kOpenBytes
                         : is_values ? Task::kValueBytes
                                     : Task::kKeyBytes;
  const int param_bytes = is_open ? 0 : is_values ? Task::kValueParamBytes : Task::kKeyParamBytes;
  const std::uint8_t* unit = is_values ? from.values : from.keys;
  expect_bytes(barrier, code_bytes + param_bytes);
  bulk_copy(slot, unit + part * code_bytes, code_bytes, barrier);
  if (param_bytes > 0) {
    const bool per_token =
        is_values || Task::Key::kAxis == quant::ParamAxis::kToken;  // else one set for the page
    const int params_at = is_values ? Unit::kValueParamsAt - Unit::kValuesAt : Unit::kKeyParamsAt;
    bulk_copy(slot + code_bytes, unit + params_at + (per_token ? part * param_bytes : 0),
              param_bytes, barrier);
  }
  end_copies(barrier);
}

}  // namespace detail

}  // namespace lmd::kernels
