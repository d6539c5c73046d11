/// \file  Many tokens of each sequence: RoPE, append, attention over pages as stored, sealing. Cuda.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/kernels/attention/prefill_products.cuh>
#include <lmd/kernels/attention/prefill_share.cuh>
#include <lmd/kernels/attention/prefill_warpgroup.cuh>

namespace lmd::kernels {

namespace detail {

inline constexpr int kPrefillWarps = 8;
inline constexpr int kPrefillThreads = kPrefillWarps * 32;
inline constexpr int kWarpColumns = kColumnGroups * 8;
static_assert(kPrefillWarps * kWarpColumns == kBlockColumns,
              "the warps have all of a block's columns");

/// Counts readers of shared memory in turns of `readers`; true for the last of a turn, who may then
/// let the memory be written again.
__device__ __forceinline__ bool is_last_reader(std::uint32_t counter, int readers) {
  std::uint32_t before;
  asm volatile("atom.acq_rel.cta.shared::cta.inc.u32 %0, [%1], %2;"
               : "=r"(before)
               : "r"(counter), "r"(readers - 1)
               : "memory");
  return before == static_cast<std::uint32_t>(readers - 1);
}

/// Shared memory of a block.
template <class Task>
struct PrefillShared {
  static constexpr int kBarriersAt = Task::kSlots * Task::kSlotBytes;
  static constexpr int kReadersAt = kBarriersAt + Task::kSlots * 8;
  static constexpr int kShareAt = kReadersAt + Task::kSlots * 4;
  static constexpr int kBytes = kShareAt + static_cast<int>(sizeof(PrefillShare));
  static_assert(kShareAt % alignof(PrefillShare) == 0, "it is read as a struct");
};

/// The share lies in shared memory, as the registers are needed for what is done to every page. The
/// warps of a block read the same slots, keys and values in turn. Whoever is the last to read one
/// has it filled again: nobody waits for a slot to become free.
template <AttentionPolicy P, Activation T>
struct PrefillBlock {
  using Task = PrefillTask<P>;
  using Shared = PrefillShared<Task>;

  const PrefillStepArgs<T>& args;
  std::uint8_t* shared;
  const BasicAttentionStepArgs<T>& a = args.step;
  PrefillShare& share = *reinterpret_cast<PrefillShare*>(shared + Shared::kShareAt);
  int lane = threadIdx.x % 32;
  int copy = 0;  ///< that this warp reads next

  [[nodiscard]] __device__ __forceinline__ std::uint8_t* slot_of(int i) const {
    return shared + i % Task::kSlots * Task::kSlotBytes;
  }
  [[nodiscard]] __device__ __forceinline__ std::uint32_t barrier_of(int i) const {
    return shared_address(shared + Shared::kBarriersAt) + i % Task::kSlots * 8;
  }
  [[nodiscard]] __device__ __forceinline__ int warps() const {
    return ceil_div(share.n_columns, kWarpColumns);
  }

  /// Finds the share, makes the barriers and queues the first copies. The first warp's lanes that copy.
  __device__ __forceinline__ void begin() {
    if (threadIdx.x == 0) find_share<Task::kDim>(args, static_cast<int>(blockIdx.x), share);
    sync_copy_lanes();
    if (share.n_columns <= 0) return;
    if (threadIdx.x == 0) {
      for (int i = 0; i < Task::kSlots; ++i) {
        init_barrier(barrier_of(i), kCopyLanes);
        reinterpret_cast<std::uint32_t*>(shared + Shared::kReadersAt)[i] = 0;
      }
      publish_barriers();
    }
    sync_copy_lanes();
    for (int i = 0; i < Task::kSlots; ++i)
      fetch(i);
  }

  /// Queues copy i: keys (even) or values of an earlier page, or of a quarter of the block's own. The
  /// lanes of a warp that copy.
  __device__ __forceinline__ void fetch(int i) const {
    const PageSpan& span = share.span;
    const int page = i / 2;
    const int quarter = page - span.page;
    if (quarter >= share.quarters) return;
    TaskSource from;
    if (quarter < 0) {
      const std::uint8_t* unit = a.pool + span.chunk.page_ids[page] * a.page_bytes +
                                 std::int64_t{share.kvh} * Task::Unit::kBytes;
      from = {.keys = unit, .values = unit + Task::Unit::kValuesAt, .part = 0};
    } else {
      const std::int64_t at = std::int64_t{share.kvh} * cache::kPageTokens * Task::kDim +
                              std::int64_t{quarter} * 16 * Task::kDim;
      from = {.keys = reinterpret_cast<const std::uint8_t*>(span.keys + at),
              .values = reinterpret_cast<const std::uint8_t*>(span.values + at),
              .part = -1};
    }
    fetch_task<Task>(from, i % 2 != 0, shared_address(slot_of(i)), barrier_of(i));
  }

  /// The next slot, once its bytes are there.
  [[nodiscard]] const __device__ __forceinline__ std::uint8_t* wait() const {
    wait_barrier(barrier_of(copy), copy / Task::kSlots % 2);
    return slot_of(copy);
  }
  /// This warp has read the slot.
  __device__ __forceinline__ void release() {
    __syncwarp();
    if (lane < kCopyLanes) {
      const std::uint32_t readers = shared_address(shared + Shared::kReadersAt);
      const bool is_last = lane == 0 && is_last_reader(readers + copy % Task::kSlots * 4, warps());
      if (of_first_copy_lane(is_last)) fetch(copy + Task::kSlots);
    }
    __syncwarp();
    ++copy;
  }

  __device__ __forceinline__ void attend_sealed(ColumnStates<Task>& states,
                                                const ColumnQueries<Task>& queries) {
    ColumnScores<Task::kTiles> p;
    sealed_column_scores<Task>(p, wait(), queries, lane);
    release();
#pragma unroll
    for (int n = 0; n < kColumnGroups; ++n)
      states[n].template weigh<Task::kTiles>(p[n]);
    sealed_column_values<Task>(states, p, wait(), lane);
    release();
  }

  __device__ __forceinline__ void attend_open(ColumnStates<Task>& states,
                                              const ColumnQueries<Task>& queries,
                                              const int (&last)[kColumnGroups][2]) {
    ColumnScores<1> p;
    open_column_scores<Task>(p, wait(), queries, last, lane);
    release();
#pragma unroll
    for (int n = 0; n < kColumnGroups; ++n)
      states[n].template weigh<1>(p[n]);
    open_column_values<Task>(states, p, wait(), lane);
    release();
  }

  /// The columns of this warp, from `first` on.
  __device__ __forceinline__ void attend(int first) {
    const std::int64_t qkv_stride = std::int64_t{a.heads + 2 * a.kv_heads} * Task::kDim;
    ColumnQueries<Task> queries;
    ColumnStates<Task> states;
#pragma unroll
    for (int n = 0; n < kColumnGroups; ++n) {
      const int column = first + n * 8 + lane / 4;
      const bool is_there = column < share.n_columns;
      const std::int64_t row = share.span.row(share.token_of(is_there ? column : 0));
      const T* q = a.qkv + row * qkv_stride + std::int64_t{share.head_of(column)} * Task::kDim;
      queries[n].load(is_there ? q : nullptr, a.rotation + row * Task::kDim, lane);
      states[n].reset();
    }
    for (int page = share.span.page; page > 0; --page)
      attend_sealed(states, queries);
    for (int quarter = 0; quarter < share.quarters; ++quarter) {
      int last[kColumnGroups][2];  // token of the quarter up to which columns 2 t and 2 t + 1 see
#pragma unroll
      for (int n = 0; n < kColumnGroups; ++n)
#pragma unroll
        for (int j = 0; j < 2; ++j)
          last[n][j] = share.token_of(first + n * 8 + lane % 4 * 2 + j) - quarter * 16;
      attend_open(states, queries, last);
    }
#pragma unroll
    for (int n = 0; n < kColumnGroups; ++n) {
      const int column = first + n * 8 + lane / 4;
      T* out = nullptr;
      if (column < share.n_columns) {
        const std::int64_t row = share.span.row(share.token_of(column));
        out = a.out + (row * a.heads + share.head_of(column)) * Task::kDim;
      }
      store_columns<Task>(states[n], out, lane);
    }
  }
};

template <AttentionPolicy P, Activation T>
__global__ void __launch_bounds__(kPrefillThreads, 1)
    prefill_attend_kernel(const __grid_constant__ PrefillStepArgs<T> args) {
  extern __shared__ __align__(128) std::uint8_t shared[];
  PrefillBlock<P, T> block{.args = args, .shared = shared};
  wait_for_previous_kernel();
  allow_next_kernel();
  if (threadIdx.x < kCopyLanes) block.begin();
  __syncthreads();
  const int first = static_cast<int>(threadIdx.x) / 32 * kWarpColumns;
  if (first < block.share.n_columns) block.attend(first);
}

/// The attention of a step whose pages have been sealed.
template <AttentionPolicy P, Activation T>
[[nodiscard]] cudaError_t attend_prefill(Cuda ctx, const PrefillStepArgs<T>& args) {
  const BasicAttentionStepArgs<T>& a = args.step;
  const unsigned shares =
      static_cast<unsigned>(args.n_pages) * a.kv_heads * blocks_of_page(a.heads / a.kv_heads);
  const auto by_warpgroups = &prefill_warpgroup_kernel<P, T>;
  PreparedKernel prepared;
  LMD_CUDA_RETURN_IF_ERROR(prepare(ctx, by_warpgroups, &prepared));
  if (prepared.max_threads >= kRingThreads) {
    int sms = 0;
    LMD_CUDA_RETURN_IF_ERROR(multiprocessors(ctx, &sms));
    return launch(ctx,
                  {.grid = std::min(shares, static_cast<unsigned>(sms)),
                   .block = static_cast<unsigned>(kRingThreads),
                   .shared_bytes = PageRing<P>::kBytes},
                  by_warpgroups, args);
  }
  const auto attend = &prefill_attend_kernel<P, T>;
  return with_tuned_arch(ctx, attend, [&]<int kCc>() {
    using Shared = PrefillShared<PrefillTask<P, kCc>>;
    static_assert(Shared::kBytes <= Arch{kCc}.shared_bytes(), "the slots fit into shared memory");
    return launch(ctx,
                  {.grid = shares,
                   .block = static_cast<unsigned>(kPrefillThreads),
                   .shared_bytes = Shared::kBytes},
                  attend, args);
  });
}

}  // namespace detail

/// attention_step for chunks of any number of tokens. Afterwards out, the units of pages that have
/// become full and the open pages are as Host leaves them; qkv is not written. What a slot's open page
/// holds beyond its last token is a number, of no meaning.
///
/// Shapes:  as BasicAttentionStepArgs; at most 8 queries for each KV head; `pages` lists every page
///          that tokens of a chunk lie in, chunk after chunk, in order.
/// Layout:  FragmentKvPolicy's pages and open order; all rows, pages and scratch 16-byte aligned.
/// Errors:  cudaErrorInvalidValue when a shape is not one of these.
/// Stream:  two kernels queued on ctx.stream; scratch belongs to the step until they have ended.
/// Oracle:  attention_step(Host, ...)
/// Source:  running softmax by tiles (FlashAttention, as an idea); (token, head) pairs of one KV head
///          as the columns of a product, so that each key is decoded once for them (own).
template <AttentionPolicy P, Activation T>
[[nodiscard]] cudaError_t prefill_step(Cuda ctx, const PrefillStepArgs<T>& args) {
  static_assert(std::is_same_v<typename P::Open, cache::FragmentOpenOrder>,
                "open pages are read as fragments of this order");
  const BasicAttentionStepArgs<T>& a = args.step;
  if (args.n_pages < 0 || a.n_chunks < 0 || a.kv_heads <= 0 || a.kv_heads > 65535 ||
      a.heads % a.kv_heads != 0 || a.heads / a.kv_heads > detail::kMaxGroup) {
    return cudaErrorInvalidValue;
  }
  if (args.n_pages == 0) return cudaSuccess;
  LMD_CUDA_RETURN_IF_ERROR(
      launch(ctx,
             {.grid = static_cast<unsigned>(args.n_pages) * static_cast<unsigned>(a.kv_heads),
              .block = static_cast<unsigned>(detail::kAppendThreads)},
             &detail::prefill_append_kernel<P, T>, args));
  return detail::attend_prefill<P, T>(ctx, args);
}

}  // namespace lmd::kernels
