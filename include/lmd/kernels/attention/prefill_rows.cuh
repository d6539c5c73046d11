/// \file  A warpgroup's 64 rows of prefill against the pages of the ring, by the products of sm_90a.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/kernels/attention/prefill_columns.cuh>
#include <lmd/kernels/attention/prefill_ring.cuh>

namespace lmd::kernels::detail {

inline constexpr int kTokenGroups = cache::kPageTokens / 8;
/// Scores, then weights, of a page.
using PageScores = float[kTokenGroups][4];

/// 16 rows of a warp. Lane 4 g + t holds rows g (j = 0) and g + 8 (j = 1); of a page's 64 tokens in the
/// order of cache::FragmentKeyTile those from 16 t to 16 t + 15, of the head elements 2 t and 2 t + 1 of
/// each eight.
template <AttentionPolicy P, Activation T>
struct RowGroup {
  using Ring = PageRing<P>;
  static constexpr int kDim = P::kHeadDim;
  static constexpr int kSteps = kDim / 16;
  static constexpr float kScale = PrefillTask<P>::kScale;
  /// How far weights may grow beyond 1, as a power of two, before their row's sums are scaled down: rows
  /// of long contexts hardly ever are.
  static constexpr float kMostGrowth = 8.0f;

  std::uint32_t q[kSteps][4];
  std::uint32_t weights[4][4];  ///< of a page, as A fragments of its four token tiles
  float out[kDim / 8][4];
  float max[2];  ///< of the row's scores, up to kMostGrowth
  float sum[2];  ///< of the weights, this lane's
  PrefillRow rows[2];

  /// Takes rows over from shared memory, of `n`. `first` is the warp's first row.
  __device__ __forceinline__ void take(const Ring& ring, int n, int first, int lane) {
#pragma unroll
    for (int j = 0; j < 2; ++j) {
      const int row = first + lane / 4 + 8 * j;
      rows[j] = ring.row(row);
      if (row >= n) rows[j].out = -1;
      max[j] = -1e30f;
      sum[j] = 0.0f;
#pragma unroll
      for (int h = 0; h < kSteps / 2; ++h) {
        const uint4 x = ring.query(row, h * 32 + lane % 4 * 8);
        const std::uint32_t parts[4] = {x.x, x.y, x.z, x.w};
#pragma unroll
        for (int i = 0; i < 4; ++i)
          q[2 * h + i / 2][i % 2 * 2 + j] = parts[i];
      }
    }
  }
  __device__ __forceinline__ void clear_out() {
#pragma unroll
    for (auto& four : out)
#pragma unroll
      for (float& x : four)
        x = 0.0f;
  }

  /// scores = queries . keys.
  __device__ __forceinline__ void multiply_keys(PageScores& scores, std::uint32_t keys) {
    const std::uint64_t b = wgmma_matrices(keys, 128, kDim * 16);
    wgmma_first(scores, q[0], b);
#pragma unroll
    for (int s = 1; s < kSteps; ++s)
      wgmma<Half>(scores, q[s], b + s * (256 >> 4));
    wgmma_commit();
  }
  /// out += weights values.
  __device__ __forceinline__ void multiply_values(std::uint32_t values) {
    const std::uint64_t b = wgmma_matrices(values, 128, 256);
#pragma unroll
    for (int i = 0; i < 4; ++i)
      wgmma<Half>(out, weights[i], b + i * (kDim * 32 >> 4));
    wgmma_commit();
  }

  /// Tokens of the own page that come behind a row's have no weight.
  __device__ __forceinline__ void mask(PageScores& scores, int lane) const {
#pragma unroll
    for (int i = 0; i < kTokenGroups; ++i)
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        const int token = lane % 4 * 16 + i / 2 * 4 + j % 2 * 2 + i % 2;
        if (token > rows[j / 2].last) scores[i][j] = -1e30f;
      }
  }

  /// Scores become weights, unnormalised. Returns whether a row of the warp has a new maximum; its sums
  /// have to be multiplied by `shrink`.
  __device__ __forceinline__ bool weigh(PageScores& scores, float (&shrink)[2]) {
    float largest[2] = {max[0], max[1]};
#pragma unroll
    for (int i = 0; i < kTokenGroups; ++i)
#pragma unroll
      for (int j = 0; j < 2; ++j)
        largest[j] = fmaxf(largest[j], fmaxf(scores[i][2 * j], scores[i][2 * j + 1]));
#pragma unroll
    for (int step = 1; step <= 2; step *= 2)
#pragma unroll
      for (int j = 0; j < 2; ++j)
        largest[j] = fmaxf(largest[j], __shfl_xor_sync(0xffffffffu, largest[j], step));
    bool grows = false;
    float offset[2];
#pragma unroll
    for (int j = 0; j < 2; ++j) {
      const bool is_new = (largest[j] - max[j]) * kScale > kMostGrowth;
      shrink[j] = is_new ? exp2_approx((max[j] - largest[j]) * kScale) : 1.0f;
      max[j] = is_new ? largest[j] : max[j];
      grows |= is_new;
      offset[j] = -max[j] * kScale;
    }
    // Rows side by side, and two sums of each: chains of dependent additions would take longer.
    float parts[2][2] = {};
#pragma unroll
    for (int i = 0; i < kTokenGroups; ++i)
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        float& x = scores[i][j];
        x = exp2_approx(fmaf(x, kScale, offset[j / 2]));
        parts[j / 2][j % 2] += x;
      }
#pragma unroll
    for (int j = 0; j < 2; ++j)
      sum[j] = fmaf(sum[j], shrink[j], parts[j][0] + parts[j][1]);
    return __any_sync(0xffffffffu, grows);
  }

  /// Always true, which the compiler does not know: what depends on it is not done before all weights are made.
  [[nodiscard]] __device__ __forceinline__ bool has_weighed() const {
    return !(sum[0] < 0.0f) && !(sum[1] < 0.0f);
  }

  __device__ __forceinline__ void shrink_out(const float (&shrink)[2]) {
#pragma unroll
    for (auto& four : out)
#pragma unroll
      for (int j = 0; j < 4; ++j)
        four[j] *= shrink[j / 2];
  }

  /// The products with the page before have ended.
  __device__ __forceinline__ void round_weights(const PageScores& scores) {
#pragma unroll
    for (int i = 0; i < 4; ++i)
#pragma unroll
      for (int r = 0; r < 4; ++r)
        weights[i][r] =
            pack_pair<Half>(scores[2 * i + r / 2][r % 2 * 2], scores[2 * i + r / 2][r % 2 * 2 + 1]);
  }

  /// What the rows' results need once all weights are known.
  struct Ends {
    float sum[2];
    int out[2];
  };
  [[nodiscard]] __device__ __forceinline__ Ends ends() const {
    return {{sum[0], sum[1]}, {rows[0].out, rows[1].out}};
  }

  /// Rows divided by their sums of weights, rounded -> `to` [rows, heads, head_dim].
  __device__ __forceinline__ void store(T* to, Ends end, int lane) {
#pragma unroll
    for (int j = 0; j < 2; ++j) {
      end.sum[j] += __shfl_xor_sync(0xffffffffu, end.sum[j], 1);
      end.sum[j] += __shfl_xor_sync(0xffffffffu, end.sum[j], 2);
      const float inverse = 1.0f / end.sum[j];
      if (end.out[j] < 0) continue;
      auto* words =
          reinterpret_cast<std::uint32_t*>(to + std::int64_t{end.out[j]} * kDim + lane % 4 * 2);
#pragma unroll
      for (int i = 0; i < kDim / 8; ++i)
        words[i * 4] = pack_pair<T>(out[i][2 * j] * inverse, out[i][2 * j + 1] * inverse);
    }
  }
};

/// A warpgroup that reads the ring, until it tells of no more rows.
template <AttentionPolicy P, Activation T>
struct RingReader {
  using Ring = PageRing<P>;
  using Rows = RowGroup<P, T>;

  T* out;  ///< [rows, heads, head_dim]
  Ring ring;
  int warp;  ///< of the readers
  int lane;
  RingPlace<Ring::kStages> keys;
  RingPlace<Ring::kStages> values;
  std::uint32_t rows_parity = 0;

  __device__ __forceinline__ void read() {
    PrefillRows share = next_rows();
    while (share.n > 0)
      share = has_rows(share) ? attend(share) : pass(share);
  }

 private:
  [[nodiscard]] __device__ __forceinline__ PrefillRows next_rows() {
    wait_barrier(ring.rows_filled(), rows_parity);
    rows_parity ^= 1;
    return ring.rows();
  }
  [[nodiscard]] __device__ __forceinline__ bool has_rows(const PrefillRows& share) const {
    return warp / kGroupWarps * 64 < share.n;
  }
  [[nodiscard]] __device__ __forceinline__ std::uint32_t at(int stage, int which) const {
    return shared_address(ring.shared) + (stage * 2 + which) * Ring::kTileBytes;
  }
  __device__ __forceinline__ void release_rows() const {
    __syncwarp();
    if (lane == 0) arrive_at(ring.rows_read());
  }
  __device__ __forceinline__ void release_keys(bool is_done = true) {
    if (lane == 0 && is_done) arrive_at(ring.read(keys.stage, 0));
    keys.advance();
  }
  __device__ __forceinline__ void release_values() {
    if (lane == 0) arrive_at(ring.read(values.stage, 1));
    values.advance();
  }
  /// Products come behind what has been waited for: what warps have written to the ring, too.
  __device__ __forceinline__ void fence() const {
    if constexpr (!Ring::kIsStored) fence_before_copies();
    wgmma_fence();
  }

  /// The rows of this share and of those behind it, as long as this warpgroup has some; returns the first
  /// in which it has none. Scores of a page are made while the values of the page before are added, which
  /// may be the last of the share before. That case has code of its own: with both in one loop the compiler
  /// lets each product wait for the one before (C7511).
  [[nodiscard]] __device__ __forceinline__ PrefillRows attend(PrefillRows share) {
    Rows rows;
    PageScores scores;
    float shrink[2];
    rows.take(ring, share.n, warp * 16, lane);
    release_rows();
    rows.clear_out();
    wait_barrier(ring.filled(keys.stage, 0), keys.parity);
    fence();
    rows.multiply_keys(scores, at(keys.stage, 0));
    wgmma_wait<0>();
    release_keys();
    rows.mask(scores, lane);
    rows.weigh(scores, shrink);
    rows.round_weights(scores);
    for (;;) {
#pragma unroll 1
      for (int left = share.pages; left > 0; --left) {
        wait_barrier(ring.filled(values.stage, 1), values.parity);
        wait_barrier(ring.filled(keys.stage, 0), keys.parity);
        fence();
        rows.multiply_keys(scores, at(keys.stage, 0));
        rows.multiply_values(at(values.stage, 1));
        wgmma_wait<1>();
        const bool grows = rows.weigh(scores, shrink);
        release_keys(rows.has_weighed());
        wgmma_wait<0>();
        release_values();
        if (grows) rows.shrink_out(shrink);
        rows.round_weights(scores);
      }
      share = next_rows();
      if (!has_rows(share)) break;
      const typename Rows::Ends ends = rows.ends();
      rows.take(ring, share.n, warp * 16, lane);
      release_rows();
      wait_barrier(ring.filled(values.stage, 1), values.parity);
      wait_barrier(ring.filled(keys.stage, 0), keys.parity);
      fence();
      rows.multiply_keys(scores, at(keys.stage, 0));
      rows.multiply_values(at(values.stage, 1));
      wgmma_wait<1>();
      rows.mask(scores, lane);
      rows.weigh(scores, shrink);
      release_keys(rows.has_weighed());
      wgmma_wait<0>();
      release_values();
      rows.store(out, ends, lane);
      rows.clear_out();
      rows.round_weights(scores);
    }
    wait_barrier(ring.filled(values.stage, 1), values.parity);
    fence();
    rows.multiply_values(at(values.stage, 1));
    wgmma_wait<0>();
    release_values();
    rows.store(out, rows.ends(), lane);
    return share;
  }

  /// Reads nothing of a share.
  [[nodiscard]] __device__ __forceinline__ PrefillRows pass(const PrefillRows& share) {
    release_rows();
#pragma unroll 1
    for (int i = 0; i <= share.pages; ++i) {
      wait_barrier(ring.filled(keys.stage, 0), keys.parity);
      __syncwarp();
      release_keys();
      wait_barrier(ring.filled(values.stage, 1), values.parity);
      __syncwarp();
      release_values();
    }
    return next_rows();
  }
};

}  // namespace lmd::kernels::detail
