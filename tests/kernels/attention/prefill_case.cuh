/// \file  Batches of prefill for tests, and what a step leaves of them on Host and on Cuda.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/core/stream.cuh>
#include <lmd/kernels/attention/prefill_step.cuh>

#include <algorithm>
#include <cmath>
#include <vector>

#include "cases/random.hpp"
#include "gpu.cuh"
#include "oracle/device_guard.cuh"
#include <doctest/doctest.h>

namespace lmd::kernels {

struct PrefillChunk {
  int position = 0;
  int n = 0;
};

enum class Rotation {
  kPowers,  ///< cosines and sines are powers of two: no product is rounded, so that keys are Host's
            ///< bit by bit whether they are made with fma or not, and so are the sealed units
  kAngles,  ///< as rope_rotation makes them: keys may differ by one rounding
};

struct PrefillShape {
  int heads = 0;
  int kv_heads = 0;
  std::vector<PrefillChunk> chunks;
  Rotation rotation = Rotation::kPowers;
};

/// What a step is given: sealed earlier pages, the tokens of the open page, rows of new tokens.
template <class P, Activation T>
struct PrefillBatch {
  using U = typename P::Unit;
  static constexpr int kDim = P::kHeadDim;
  static constexpr int kTile = cache::kPageTokens * kDim;
  static constexpr int kLayer = 1;  // open pages have this layer before the step's
  int heads, kv_heads;
  std::vector<PrefillChunk> shape;
  std::vector<T> qkv;
  std::vector<float> rotation;
  std::vector<std::uint8_t> pool;
  std::vector<Half> open;  ///< [chunk][layer][keys, values][kv_heads, tile]
  std::vector<std::int32_t> ids;
  std::vector<int> ids_at;
  std::vector<PrefillPage> pages;
  int rows = 0;

  PrefillBatch(const PrefillShape& s, std::uint64_t seed)
      : heads(s.heads), kv_heads(s.kv_heads), shape(s.chunks) {
    test::Random random(seed);
    int n_ids = 0;
    for (std::size_t c = 0; c < shape.size(); ++c) {
      const auto [position, n] = shape[c];
      rows += n;
      ids_at.push_back(n_ids);
      n_ids += (position + n) / cache::kPageTokens;
      for (int p = position / cache::kPageTokens; p * cache::kPageTokens < position + n; ++p)
        pages.push_back({static_cast<std::int32_t>(c), p});
    }
    ids.resize(static_cast<std::size_t>(n_ids));
    for (int i = 0; i < n_ids; ++i)  // pages lie backwards
      ids[static_cast<std::size_t>(i)] = n_ids - 1 - i;
    qkv.resize(std::size_t(rows) * qkv_width());
    for (T& x : qkv)
      x = from_float<T>(random.normal());
    make_rotation(s.rotation, random);
    pool.assign(std::size_t(n_ids) * page_bytes(), 0x77);
    open.assign(shape.size() * slot(), Half{});
    for (std::size_t c = 0; c < shape.size(); ++c)
      make_cache(static_cast<int>(c), random);
  }

  [[nodiscard]] int qkv_width() const { return (heads + 2 * kv_heads) * kDim; }
  [[nodiscard]] std::int64_t page_bytes() const { return std::int64_t{kv_heads} * U::kBytes + 256; }
  [[nodiscard]] std::int64_t tiles() const { return std::int64_t{kv_heads} * kTile; }
  [[nodiscard]] std::int64_t slot() const { return (kLayer + 1) * 2 * tiles(); }
  [[nodiscard]] std::int64_t open_at() const { return kLayer * 2 * tiles(); }

  void make_rotation(Rotation kind, test::Random& random) {
    for (const PrefillChunk& chunk : shape) {
      for (int i = 0; i < chunk.n; ++i) {
        for (int r = 0; r < kDim; ++r) {
          const bool is_cosine = r < kDim / 2;
          const double angle =
              (chunk.position + i) * std::pow(10000.0, -2.0 * (r % (kDim / 2)) / kDim);
          const float power = std::ldexp(random.below(2) == 0 ? 1.0f : -1.0f, -random.below(4));
          rotation.push_back(kind == Rotation::kPowers ? power
                             : is_cosine               ? static_cast<float>(std::cos(angle))
                                                       : static_cast<float>(std::sin(angle)));
        }
      }
    }
  }

  void make_cache(int c, test::Random& random) {
    std::vector<Half> keys(kTile);
    std::vector<Half> values(kTile);
    const int position = shape[c].position;
    const int used = position % cache::kPageTokens;
    for (int page = 0; page <= position / cache::kPageTokens; ++page) {
      const bool is_open = page == position / cache::kPageTokens;
      for (int kvh = 0; kvh < kv_heads; ++kvh) {
        for (int i = 0; i < kTile; ++i) {
          const bool is_used = !is_open || i / kDim < used;
          const int k = P::Open::key_at(i / kDim, i % kDim, kDim);
          const int v = P::Open::value_at(i / kDim, i % kDim, kDim);
          keys[k] = is_used ? to_half(random.normal()) : Half{};
          values[v] = is_used ? to_half(random.normal()) : Half{};
        }
        if (is_open) {
          Half* to = open.data() + c * slot() + open_at() + std::int64_t{kvh} * kTile;
          std::copy(keys.begin(), keys.end(), to);
          std::copy(values.begin(), values.end(), to + tiles());
        } else {
          std::uint8_t* unit =
              pool.data() + ids[ids_at[c] + page] * page_bytes() + std::int64_t{kvh} * U::kBytes;
          seal_unit<U, typename P::Open>(
              Host{}, {.unit = unit, .keys = keys.data(), .values = values.data()});
        }
      }
    }
  }

  /// Chunks over the given memory, `layer_at` elements into each slot.
  std::vector<SequenceChunk> chunks(Half* slots,
                                    std::int64_t layer_at,
                                    const std::int32_t* page_ids) {
    std::vector<SequenceChunk> made;
    int row = 0;
    for (std::size_t c = 0; c < shape.size(); ++c) {
      Half* keys = slots + c * slot() + layer_at;
      made.push_back({.first_row = row,
                      .n = shape[c].n,
                      .position = shape[c].position,
                      .open_keys = keys,
                      .open_values = keys + tiles(),
                      .page_ids = page_ids + ids_at[c]});
      row += shape[c].n;
    }
    return made;
  }
};

/// What a step leaves.
template <class T>
struct PrefillResult {
  std::vector<T> out, qkv;
  std::vector<std::uint8_t> pool;
  std::vector<Half> open;
};

template <class P, Activation T>
PrefillResult<T> run_on_cuda(PrefillBatch<P, T>& batch, bool overlap) {
  const int n = static_cast<int>(batch.shape.size());
  const int n_pages = static_cast<int>(batch.pages.size());
  test::GuardedDevice<T> out(std::int64_t{batch.rows} * batch.heads * P::kHeadDim);
  test::GuardedDevice<T> qkv(static_cast<std::int64_t>(batch.qkv.size()));
  test::GuardedDevice<std::uint8_t> pool(static_cast<std::int64_t>(batch.pool.size()));
  test::GuardedDevice<Half> open(static_cast<std::int64_t>(batch.open.size()));
  // NaN: what is not written before it is read shows.
  test::GuardedDevice<Half> scratch(2 * n_pages * batch.tiles());
  test::OnDevice<float> rotation(batch.rotation);
  test::OnDevice<std::int32_t> ids(batch.ids);
  test::OnDevice<PrefillPage> pages(batch.pages);
  test::OnDevice<SequenceChunk> chunks(batch.chunks(open.data(), 0, ids.data()));
  const auto upload = [](auto* to, const auto& from) {
    LMD_CUDA_TRY(cudaMemcpy(to, from.data(), from.size() * sizeof(from[0]), cudaMemcpyDefault));
  };
  upload(qkv.data(), batch.qkv);
  upload(pool.data(), batch.pool);
  upload(open.data(), batch.open);
  LMD_CUDA_TRY(cudaDeviceSynchronize());
  Stream stream;
  const PrefillStepArgs<T> args{.step = {.out = out.data(),
                                         .qkv = qkv.data(),
                                         .rotation = rotation.data(),
                                         .chunks = chunks.data(),
                                         .pool = pool.data(),
                                         .page_bytes = batch.page_bytes(),
                                         .n_chunks = n,
                                         .heads = batch.heads,
                                         .kv_heads = batch.kv_heads},
                                .open_at = batch.open_at(),
                                .pages = pages.data(),
                                .n_pages = n_pages,
                                .scratch = scratch.data()};
  Cuda ctx = least_device();
  ctx.stream = stream.get();
  ctx.overlap = overlap;
  REQUIRE(prefill_step<P>(ctx, args) == cudaSuccess);
  PrefillResult<T> found{out.fetch(), qkv.fetch(), pool.fetch(), open.fetch()};
  (void)scratch.fetch();
  CHECK(out.is_intact());
  CHECK(qkv.is_intact());
  CHECK(pool.is_intact());
  CHECK(open.is_intact());
  CHECK(scratch.is_intact());
  return found;
}

template <class P, Activation T>
PrefillResult<T> run_on_host(PrefillBatch<P, T>& batch) {
  PrefillResult<T> left{std::vector<T>(std::size_t(batch.rows) * batch.heads * P::kHeadDim),
                        batch.qkv, batch.pool, batch.open};
  const auto chunks = batch.chunks(left.open.data(), batch.open_at(), batch.ids.data());
  attention_step<P, T>(Host{}, {.out = left.out.data(),
                                .qkv = left.qkv.data(),
                                .rotation = batch.rotation.data(),
                                .chunks = chunks.data(),
                                .pool = left.pool.data(),
                                .page_bytes = batch.page_bytes(),
                                .n_chunks = static_cast<int>(chunks.size()),
                                .heads = batch.heads,
                                .kv_heads = batch.kv_heads});
  return left;
}

}  // namespace lmd::kernels
