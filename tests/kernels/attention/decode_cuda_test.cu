/// \file  Decode on Cuda against Host on the same stored bytes.
// SPDX-License-Identifier: Apache-2.0
#include <lmd/core/device_buffer.cuh>
#include <lmd/kernels/attention/decode.cuh>
#include <lmd/quant/kv_formats.hpp>

#include <algorithm>
#include <random>
#include <vector>

#include "gpu.cuh"
#include <doctest/doctest.h>

using namespace lmd;
using namespace lmd::kernels;

namespace {

/// A batch of sequences with sealed pages of random keys and values, and one new token each.
template <class P, Activation T>
struct Batch {
  static constexpr int kDim = P::kHeadDim;
  static constexpr int kTile = cache::kPageTokens * kDim;
  int heads, kv_heads;
  std::vector<int> positions;
  std::vector<T> qkv;
  std::vector<float> rotation;
  std::vector<std::uint8_t> pool;
  std::vector<Half> open;  ///< [sequence][keys, values][kv_heads, tile]
  std::vector<std::vector<std::int32_t>> page_ids;
  int pages = 0;

  Batch(int n_heads, int n_kv_heads, std::vector<int> at, unsigned seed)
      : heads(n_heads), kv_heads(n_kv_heads), positions(std::move(at)) {
    std::mt19937 rng(seed);
    std::normal_distribution<float> normal;
    const int n = static_cast<int>(positions.size());
    qkv.resize(std::size_t(n) * (heads + 2 * kv_heads) * kDim);
    for (auto& v : qkv)
      v = from_float<T>(normal(rng));
    for (int b = 0; b < n; ++b) {
      for (int r = 0; r < kDim; ++r) {
        const double angle = positions[b] * std::pow(10000.0, -2.0 * (r % (kDim / 2)) / kDim);
        rotation.push_back(static_cast<float>(r < kDim / 2 ? std::cos(angle) : std::sin(angle)));
      }
    }
    for (const int position : positions) {
      // The page that the query fills is sealed by Host: it has an id too.
      page_ids.emplace_back();
      for (int page = 0; page <= position / cache::kPageTokens; ++page)
        page_ids.back().push_back(pages++);
    }
    std::vector<std::int32_t> shuffled(pages);
    for (int i = 0; i < pages; ++i)
      shuffled[i] = i;
    std::shuffle(shuffled.begin(), shuffled.end(), rng);
    for (auto& ids : page_ids)
      for (auto& id : ids)
        id = shuffled[id];
    pool.assign(std::size_t(pages) * kv_heads * P::Unit::kBytes, 0);
    open.assign(std::size_t(n) * 2 * kv_heads * kTile, Half{});
    std::vector<Half> keys(kTile);
    std::vector<Half> values(kTile);
    for (int b = 0; b < n; ++b) {
      for (int kvh = 0; kvh < kv_heads; ++kvh) {
        for (int page = 0; page <= positions[b] / cache::kPageTokens; ++page) {
          const bool is_open = page == positions[b] / cache::kPageTokens;
          for (int t = 0; t < cache::kPageTokens; ++t) {
            for (int d = 0; d < kDim; ++d) {
              // Channels of different sizes, a constant token and an outlier, as real keys have.
              float k = normal(rng) * (d % 17 == 3 ? 4.0f : 1.0f) + (d % 5 == 0 ? 1.5f : 0.0f);
              float v = normal(rng);
              if (t == 7) v = 0.25f;
              if (t == 9 && d == 5) v = 30.0f;
              keys[P::Open::key_at(t, d, kDim)] = to_half(k);
              values[P::Open::value_at(t, d, kDim)] = to_half(v);
            }
          }
          if (is_open) {
            const int used = positions[b] % cache::kPageTokens;
            for (int t = 0; t < used; ++t) {
              for (int d = 0; d < kDim; ++d) {
                const std::size_t tile = (std::size_t(b) * 2 * kv_heads + kvh) * kTile;
                const int k = P::Open::key_at(t, d, kDim);
                const int v = P::Open::value_at(t, d, kDim);
                open[tile + k] = keys[k];
                open[tile + std::size_t(kv_heads) * kTile + v] = values[v];
              }
            }
          } else {
            seal_unit<typename P::Unit, typename P::Open>(Host{},
                                                          {.unit = unit(pool.data(), b, page, kvh),
                                                           .keys = keys.data(),
                                                           .values = values.data()});
          }
        }
      }
    }
  }

  std::uint8_t* unit(std::uint8_t* from, int b, int page, int kvh) {
    return from + (std::size_t(page_ids[b][page]) * kv_heads + kvh) * P::Unit::kBytes;
  }
  [[nodiscard]] std::int64_t page_bytes() const { return std::int64_t{kv_heads} * P::Unit::kBytes; }

  /// Chunks over the given memory.
  std::vector<SequenceChunk> chunks(Half* open_at, const std::int32_t* ids) {
    std::vector<SequenceChunk> made;
    std::int64_t id = 0;
    for (std::size_t b = 0; b < positions.size(); ++b) {
      Half* keys = open_at + b * 2 * kv_heads * kTile;
      made.push_back({.first_row = static_cast<int>(b),
                      .n = 1,
                      .position = positions[b],
                      .open_keys = keys,
                      .open_values = keys + std::int64_t{kv_heads} * kTile,
                      .page_ids = ids + id});
      id += static_cast<std::int64_t>(page_ids[b].size());
    }
    return made;
  }
  [[nodiscard]] std::vector<std::int32_t> all_ids() const {
    std::vector<std::int32_t> ids;
    for (const auto& of : page_ids)
      ids.insert(ids.end(), of.begin(), of.end());
    return ids;
  }
};

/// How far an output may be from Host's: weights and their products with scales are rounded to Half
/// (2^-11 each), queries times channel scales too, and sums of codes and zero points are apart.
/// `spread` is the largest |scale code| + |zero| of a value.
template <class P, Activation T>
double bound(double spread, double expected) {
  const double ulp = std::is_same_v<T, Half> ? 0x1p-10 : 0x1p-7;
  const bool per_channel = P::Scheme::Key::kAxis == quant::ParamAxis::kChannel;
  // Channel scales: head_dim products of size about 8 with errors 2^-12, random, / sqrt(head_dim).
  const double score_error = per_channel ? 8 * 0x1p-12 * 6 : 0x1p-14;
  return ulp * std::abs(expected) + spread * (2 * 0x1p-11 + 2 * score_error);
}

/// Outputs of the step on Cuda with `blocks` at most, and its open pages.
template <class P, Activation T>
std::vector<T> run_on_cuda(Batch<P, T>& batch, int blocks, std::vector<Half>& open_found) {
  const int n = static_cast<int>(batch.positions.size());
  const int heads = batch.heads;
  const int kv_heads = batch.kv_heads;
  const std::vector<std::int32_t> ids = batch.all_ids();
  const std::size_t out_size = std::size_t(n) * heads * P::kHeadDim;
  DeviceBuffer<T> qkv(batch.qkv.size());
  DeviceBuffer<T> out(out_size);
  DeviceBuffer<float> rotation(batch.rotation.size());
  DeviceBuffer<std::uint8_t> pool(batch.pool.size());
  DeviceBuffer<Half> open(batch.open.size());
  DeviceBuffer<std::int32_t> device_ids(ids.size());
  DeviceBuffer<SequenceChunk> device_chunks(n);
  Cuda ctx = least_device();
  ctx.multiprocessors = blocks;
  DeviceBuffer<float> partial(decode_partial_elements<P>(blocks));
  DeviceBuffer<std::int32_t> plan(decode_plan_elements(blocks, n * kv_heads));
  DeviceBuffer<int> counters(decode_counters(n * kv_heads));
  qkv.copy_from(batch.qkv);
  rotation.copy_from(batch.rotation);
  pool.copy_from(batch.pool);
  open.copy_from(batch.open);
  device_ids.copy_from(ids);
  device_chunks.copy_from(batch.chunks(open.data(), device_ids.data()));
  counters.fill_bytes(0);
  DecodeStepArgs<T> args{
      .step = {.out = out.data(),
               .qkv = qkv.data(),
               .rotation = rotation.data(),
               .chunks = device_chunks.data(),
               .pool = pool.data(),
               .page_bytes = batch.page_bytes(),
               .n_chunks = n,
               .heads = heads,
               .kv_heads = kv_heads},
      .workspace = {.partial = partial.data(), .counters = counters.data(), .plan = plan.data()}};
  REQUIRE(decode_plan<P>(ctx, {.plan = plan.data(),
                               .chunks = device_chunks.data(),
                               .n_chunks = n,
                               .kv_heads = kv_heads}) == cudaSuccess);
  std::vector<T> found(out_size);
  // Twice: the second run finds the counters as the first left them.
  for (int run = 0; run < 2; ++run) {
    out.fill_bytes(0xff);
    REQUIRE(decode_step<P>(ctx, args) == cudaSuccess);
    std::vector<T> again(out_size);
    out.copy_to(again);
    if (run == 1) {
      for (std::size_t i = 0; i < out_size; ++i)
        REQUIRE(again[i].bits == found[i].bits);
    }
    found = again;
  }
  std::vector<int> counts(counters.size());
  counters.copy_to(counts);
  for (const int count : counts)
    REQUIRE(count == 0);
  open_found.resize(batch.open.size());
  open.copy_to(open_found);
  return found;
}

template <class P, Activation T>
void compare(int heads,
             int kv_heads,
             const std::vector<int>& positions,
             unsigned seed,
             int blocks = gpu_multiprocessors()) {
  CAPTURE(P::Scheme::kName);
  CAPTURE(P::kHeadDim);
  CAPTURE(heads);
  CAPTURE(kv_heads);
  CAPTURE(positions.size());
  CAPTURE(positions[0]);
  CAPTURE(blocks);
  Batch<P, T> batch(heads, kv_heads, positions, seed);
  const int n = static_cast<int>(positions.size());
  const std::vector<std::int32_t> ids = batch.all_ids();
  const std::size_t out_size = std::size_t(n) * heads * P::kHeadDim;

  // Cuda first: Host rotates qkv in place.
  std::vector<Half> open_found;
  const std::vector<T> found = run_on_cuda<P>(batch, blocks, open_found);

  std::vector<T> expected(out_size);
  const std::vector<SequenceChunk> chunks = batch.chunks(batch.open.data(), ids.data());
  attention_step<P, T>(Host{}, {.out = expected.data(),
                                .qkv = batch.qkv.data(),
                                .rotation = batch.rotation.data(),
                                .chunks = chunks.data(),
                                .pool = batch.pool.data(),
                                .page_bytes = batch.page_bytes(),
                                .n_chunks = n,
                                .heads = heads,
                                .kv_heads = kv_heads});
  // Rotated keys may differ by a rounding of the rotation (fused multiply-add).
  int wrong = 0;
  for (std::size_t i = 0; i < open_found.size(); ++i) {
    const double e = to_float(batch.open[i]);
    const double step = std::is_same_v<T, Half> ? 0x1p-10 : 0x1p-7;
    wrong += std::abs(to_float(open_found[i]) - e) > step * std::abs(e) + 1e-6;
  }
  CHECK(wrong == 0);
  const double spread = 2 * 30.0;  // the outlier, and the zero point of its token
  double worst = 0;
  for (std::size_t i = 0; i < out_size; ++i) {
    const double e = to_float(expected[i]);
    const double f = to_float(found[i]);
    const double b = bound<P, T>(spread * 0.1, e);
    if (!(std::abs(f - e) <= b)) {
      if (++wrong <= 3) MESSAGE("element ", i, ": ", f, " for ", e, " +- ", b);
    }
    worst = std::max(worst, std::abs(f - e));
  }
  CAPTURE(worst);
  CHECK(wrong == 0);
}

template <class S, int Dim, Activation T>
void compare_all() {
  using P = FragmentKvPolicy<S, Dim>;
  unsigned seed = 1;
  for (const int position : {0, 1, 15, 16, 17, 62, 63, 64, 65, 127, 128, 191, 200})
    compare<P, T>(4, 1, {position}, seed++);
  for (const int group : {1, 2, 3, 4, 5, 6, 7, 8})
    compare<P, T>(group * 2, 2, {130, 5}, seed++);
  compare<P, T>(8, 2, {0, 64, 700, 63, 127, 3, 350}, seed++);  // ragged
  compare<P, T>(4, 1, {6000}, seed++);                         // a run over several blocks
  compare<P, T>(8, 4, {1500, 10, 1023}, seed++);
  compare<P, T>(4, 2, std::vector<int>(70, 37), seed++);  // more sequences than half the blocks
  // Far more pairs than blocks: who has ended one takes the next.
  std::vector<int> many(150);
  for (int i = 0; i < 150; ++i)
    many[i] = i * 37 % 131;
  compare<P, T>(8, 8, many, seed++);
  // A cluster of 2, 4, 8 for each pair; shares of 2 and 7 blocks; a block for each pair.
  for (const int blocks : {2, 4, 8, 15})
    compare<P, T>(6, 1, {1111}, seed++, blocks);
  for (const int blocks : {1, 2, 7})
    compare<P, T>(8, 4, {1500, 10, 1023}, seed++, blocks);
  compare<P, T>(8, 4, {100, 10, 129}, seed++, 13);
}

}  // namespace

TEST_CASE_TEMPLATE("decode on Cuda is Host's, head_dim 128",
                   S,
                   quant::Kv16,
                   quant::Kv8,
                   quant::Kv4,
                   quant::Kv8V4,
                   quant::Kv4c) {
  if (!has_gpu()) return;
  compare_all<S, 128, Half>();
}

TEST_CASE_TEMPLATE("decode on Cuda is Host's, head_dim 64 and 96, BFloat16 too",
                   S,
                   quant::Kv16,
                   quant::Kv8,
                   quant::Kv4,
                   quant::Kv8V4,
                   quant::Kv4c) {
  if (!has_gpu()) return;
  compare<FragmentKvPolicy<S, 64>, Half>(9, 3, {150, 64, 31}, 11);
  compare<FragmentKvPolicy<S, 96>, Half>(4, 2, {150, 64, 31, 0}, 12);
  compare<FragmentKvPolicy<S, 64>, BFloat16>(9, 3, {150, 64, 31}, 13);
  compare<FragmentKvPolicy<S, 128>, BFloat16>(8, 2, {200, 15, 700}, 14);
  compare<FragmentKvPolicy<S, 96>, BFloat16>(4, 2, {150, 64, 31, 0}, 15);
}

TEST_CASE_TEMPLATE("small: decode on Cuda is Host's",
                   S,
                   quant::Kv16,
                   quant::Kv8,
                   quant::Kv4,
                   quant::Kv8V4,
                   quant::Kv4c) {
  if (!has_gpu()) return;
  compare<FragmentKvPolicy<S, 128>, Half>(8, 2, {130, 5, 63}, 21);
  compare<FragmentKvPolicy<S, 128>, Half>(6, 1, {700}, 22, 4);           // a cluster
  compare<FragmentKvPolicy<S, 128>, Half>(8, 4, {300, 10, 129}, 23, 7);  // jobs in parts
  compare<FragmentKvPolicy<S, 64>, BFloat16>(3, 1, {70, 1}, 24);
}
