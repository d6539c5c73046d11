/// \file  Prefill on Cuda against Host on the same stored bytes.
// SPDX-License-Identifier: Apache-2.0
#include <lmd/core/stream.cuh>
#include <lmd/kernels/attention/prefill_step.cuh>
#include <lmd/quant/kv_formats.hpp>

#include <algorithm>
#include <cmath>
#include <vector>

#include "cases/random.hpp"
#include "gpu.cuh"
#include "oracle/compare.hpp"
#include "oracle/device_guard.cuh"
#include <doctest/doctest.h>

using namespace lmd;
using namespace lmd::kernels;

namespace {

struct Chunk {
  int position = 0;
  int n = 0;
};

enum class Rotation {
  kPowers,  ///< cosines and sines are powers of two: no product is rounded, so that keys are Host's
            ///< bit by bit whether they are made with fma or not, and so are the sealed units
  kAngles,  ///< as rope_rotation makes them: keys may differ by one rounding
};

struct Shape {
  int heads = 0;
  int kv_heads = 0;
  std::vector<Chunk> chunks;
  Rotation rotation = Rotation::kPowers;
};

/// What a step is given: sealed earlier pages, the tokens of the open page, rows of new tokens.
template <class P, Activation T>
struct Batch {
  using U = typename P::Unit;
  static constexpr int kDim = P::kHeadDim;
  static constexpr int kTile = cache::kPageTokens * kDim;
  static constexpr int kLayer = 1;  // open pages have this layer before the step's
  int heads, kv_heads;
  std::vector<Chunk> shape;
  std::vector<T> qkv;
  std::vector<float> rotation;
  std::vector<std::uint8_t> pool;
  std::vector<Half> open;  ///< [chunk][layer][keys, values][kv_heads, tile]
  std::vector<std::int32_t> ids;
  std::vector<int> ids_at;
  std::vector<PrefillPage> pages;
  int rows = 0;

  Batch(const Shape& s, std::uint64_t seed)
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
    for (const Chunk& chunk : shape) {
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
struct Result {
  std::vector<T> out, qkv;
  std::vector<std::uint8_t> pool;
  std::vector<Half> open;
};

template <class P, Activation T>
Result<T> run_on_cuda(Batch<P, T>& batch, bool overlap) {
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
  Result<T> found{out.fetch(), qkv.fetch(), pool.fetch(), open.fetch()};
  (void)scratch.fetch();
  CHECK(out.is_intact());
  CHECK(qkv.is_intact());
  CHECK(pool.is_intact());
  CHECK(open.is_intact());
  CHECK(scratch.is_intact());
  return found;
}

template <class P, Activation T>
Result<T> run_on_host(Batch<P, T>& batch) {
  Result<T> left{std::vector<T>(std::size_t(batch.rows) * batch.heads * P::kHeadDim), batch.qkv,
                 batch.pool, batch.open};
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

/// How far an output may be from Host's: weights and their products with scales are rounded to Half
/// (2^-11 each), and a score's error changes a weight by as much. `spread` is the largest
/// |scale code| + |zero| of a value.
template <class P, Activation T>
double bound(Rotation rotation, double expected) {
  const double ulp = std::is_same_v<T, Half> ? 0x1p-10 : 0x1p-7;
  const double spread = 3 * 6.0;  // test::Random's normal numbers lie within +-6
  const bool per_channel = P::Scheme::Key::kAxis == quant::ParamAxis::kChannel;
  double score_error = 0x1p-14;
  // Queries times channel scales: head_dim products of size about 8 with errors 2^-12, random, over
  // sqrt(head_dim).
  if (per_channel) score_error += 8 * 0x1p-12 * 6;
  // Keys that differ by a rounding: the same with products of size about 1 and errors of T.
  if (rotation == Rotation::kAngles) score_error += 6 * ulp;
  return ulp * std::abs(expected) + spread * (2 * 0x1p-11 + 2 * score_error);
}

/// Keys of the new tokens in the open pages and all of their values; older tokens stay.
template <class P, Activation T>
void compare_open(Batch<P, T>& batch,
                  const Result<T>& found,
                  const Result<T>& expected,
                  Rotation rotation) {
  constexpr int kDim = P::kHeadDim;
  const double step = rotation == Rotation::kPowers ? 0.0
                      : std::is_same_v<T, Half>     ? 0x1p-10
                                                    : 0x1p-7;
  test::Comparison keys;
  test::Comparison values;
  for (std::size_t c = 0; c < batch.shape.size(); ++c) {
    const int used = (batch.shape[c].position + batch.shape[c].n) % cache::kPageTokens;
    const std::int64_t slot = static_cast<std::int64_t>(c) * batch.slot();
    for (std::int64_t i = slot; i < slot + batch.open_at(); ++i)  // the other layer
      keys.add(static_cast<std::int64_t>(c), i, to_float(found.open[i]), 0.0, 0.0);
    keys.add(-1, -1, 0.0, 0.0, 0.0);
    values.add(-1, -1, 0.0, 0.0, 0.0);
    for (int kvh = 0; kvh < batch.kv_heads; ++kvh) {
      const std::int64_t tile = slot + batch.open_at() + std::int64_t{kvh} * Batch<P, T>::kTile;
      for (int i = 0; i < used * kDim; ++i) {
        const std::int64_t k = tile + P::Open::key_at(i / kDim, i % kDim, kDim);
        const std::int64_t v = tile + batch.tiles() + P::Open::value_at(i / kDim, i % kDim, kDim);
        const double e = to_float(expected.open[k]);
        keys.add(static_cast<std::int64_t>(c), k, to_float(found.open[k]), e,
                 step * std::abs(e) + (step > 0.0 ? 1e-6 : 0.0));
        values.add(static_cast<std::int64_t>(c), v, to_float(found.open[v]),
                   to_float(expected.open[v]), 0.0);
      }
    }
  }
  const std::string worst_key = keys.worst();
  const std::string worst_value = values.worst();
  CAPTURE(worst_key);
  CAPTURE(worst_value);
  CHECK(keys.is_within());
  CHECK(values.is_within());
  // Whatever is left beyond the last token will be multiplied by zero.
  CHECK(std::all_of(found.open.begin(), found.open.end(),
                    [](Half x) { return std::isfinite(to_float(x)); }));
}

/// Units that the step has sealed. From equal keys they are equal bit by bit, like all bytes around
/// them; else the code of a number near the middle between two may be its neighbour.
template <class P, Activation T>
void compare_units(Batch<P, T>& batch,
                   const Result<T>& found,
                   const Result<T>& expected,
                   Rotation rotation) {
  if (rotation == Rotation::kPowers) {
    CHECK(found.pool == expected.pool);
    return;
  }
  using U = typename P::Unit;
  test::Comparison numbers;
  for (std::size_t id = 0; id < batch.ids.size(); ++id) {
    for (int kvh = 0; kvh < batch.kv_heads; ++kvh) {
      const std::int64_t at =
          static_cast<std::int64_t>(id) * batch.page_bytes() + std::int64_t{kvh} * U::kBytes;
      for (int t = 0; t < cache::kPageTokens; ++t) {
        for (int d = 0; d < P::kHeadDim; ++d) {
          // Half a step twice: numbers lie within +-12 after rotation.
          const int bits = P::Scheme::Key::kBits;
          const double e = U::key(expected.pool.data() + at, t, d);
          const double step = bits == 16 ? 0x1p-10 * std::abs(e) + 1e-6 : 24.0 / ((1 << bits) - 1);
          numbers.add(at, t * P::kHeadDim + d, U::key(found.pool.data() + at, t, d), e,
                      std::is_same_v<T, Half> ? step : 8 * step);
          numbers.add(at, t * P::kHeadDim + d, U::value(found.pool.data() + at, t, d),
                      U::value(expected.pool.data() + at, t, d), 0.0);
        }
      }
    }
  }
  const std::string worst = numbers.worst();
  CAPTURE(worst);
  CHECK(numbers.is_within());
}

template <class P, Activation T>
void compare(const Shape& shape, std::uint64_t seed) {
  CAPTURE(P::Scheme::kName);
  CAPTURE(P::kHeadDim);
  CAPTURE(shape.heads);
  CAPTURE(shape.kv_heads);
  CAPTURE(shape.chunks.size());
  CAPTURE(shape.chunks[0].position);
  CAPTURE(shape.chunks[0].n);
  CAPTURE(seed);
  Batch<P, T> batch(shape, seed);
  const Result<T> expected = run_on_host(batch);
  const Result<T> found = run_on_cuda(batch, false);
  test::Comparison out;
  const int width = shape.heads * P::kHeadDim;
  for (std::size_t i = 0; i < expected.out.size(); ++i) {
    const double e = to_float(expected.out[i]);
    out.add(static_cast<std::int64_t>(i) / width, static_cast<std::int64_t>(i) % width,
            to_float(found.out[i]), e, bound<P, T>(shape.rotation, e));
  }
  const std::string worst = out.worst();
  CAPTURE(worst);
  CHECK(out.is_within());
  compare_units(batch, found, expected, shape.rotation);
  compare_open(batch, found, expected, shape.rotation);
  // Kernels that begin early change nothing.
  const Result<T> again = run_on_cuda(batch, true);
  const auto is_same = [](auto a, auto b) { return a.bits == b.bits; };
  CHECK(std::equal(again.out.begin(), again.out.end(), found.out.begin(), is_same));
  CHECK(std::equal(again.qkv.begin(), again.qkv.end(), found.qkv.begin(), is_same));
  CHECK(again.pool == found.pool);
}

const std::vector<Chunk> kRagged{{0, 1},  {1, 2},     {63, 63},   {64, 64}, {65, 65},
                                 {0, 64}, {100, 130}, {200, 300}, {63, 1},  {0, 63}};

}  // namespace

TEST_CASE_TEMPLATE("prefill on Cuda is Host's, head_dim 128",
                   S,
                   quant::Kv16,
                   quant::Kv8,
                   quant::Kv4,
                   quant::Kv8V4,
                   quant::Kv4c) {
  if (!has_gpu()) return;
  using P = FragmentKvPolicy<S, 128>;
  std::uint64_t seed = 1;
  for (const int position : {0, 1, 63, 64, 65, 100, 200})
    for (const int n : {1, 2, 63, 64, 65})
      compare<P, Half>({2, 1, {{position, n}}}, seed++);
  compare<P, Half>({4, 2, kRagged}, seed++);
  compare<P, Half>({2, 1, {{1, 300}, {65, 130}, {64, 1}}}, seed++);
}

TEST_CASE_TEMPLATE("prefill on Cuda is Host's for every number of queries of a KV head",
                   S,
                   quant::Kv16,
                   quant::Kv4) {
  if (!has_gpu()) return;
  std::uint64_t seed = 100;
  for (const int group : {1, 2, 3, 4, 5, 6, 7, 8})
    compare<FragmentKvPolicy<S, 128>, Half>({group * 2, 2, {{63, 66}, {130, 40}, {0, 3}}}, seed++);
}

TEST_CASE_TEMPLATE("prefill on Cuda is Host's, head_dim 64 and 96, BFloat16 too",
                   S,
                   quant::Kv16,
                   quant::Kv8,
                   quant::Kv4,
                   quant::Kv8V4,
                   quant::Kv4c) {
  if (!has_gpu()) return;
  compare<FragmentKvPolicy<S, 64>, Half>({9, 3, {{100, 130}, {0, 65}, {63, 2}}}, 200);
  compare<FragmentKvPolicy<S, 96>, Half>({4, 2, {{100, 130}, {0, 65}, {63, 2}}}, 201);
  compare<FragmentKvPolicy<S, 64>, BFloat16>({9, 3, {{100, 130}, {0, 65}, {63, 2}}}, 202);
}

TEST_CASE("prefill on Cuda rotates by angles too") {
  if (!has_gpu()) return;
  const Shape shape{4, 2, {{100, 130}, {0, 65}, {64, 64}}, Rotation::kAngles};
  compare<FragmentKvPolicy<quant::Kv16, 128>, Half>(shape, 300);
  compare<FragmentKvPolicy<quant::Kv8, 128>, Half>(shape, 301);
  compare<FragmentKvPolicy<quant::Kv16, 128>, BFloat16>(shape, 302);
}

TEST_CASE("prefill on Cuda: a long sequence, most of it cached") {
  if (!has_gpu()) return;
  compare<FragmentKvPolicy<quant::Kv4, 128>, Half>({4, 1, {{5000, 20}}}, 400);
  compare<FragmentKvPolicy<quant::Kv16, 64>, Half>({2, 2, {{3000, 90}, {0, 1}}}, 401);
}

TEST_CASE("prefill_step refuses shapes that it does not have") {
  using P = FragmentKvPolicy<quant::Kv4, 128>;
  PrefillStepArgs<Half> args;
  args.n_pages = 1;
  args.step = {.n_chunks = 1, .heads = 9, .kv_heads = 1};
  CHECK(prefill_step<P>(Cuda{}, args) == cudaErrorInvalidValue);
  args.step.heads = 3;
  args.step.kv_heads = 2;
  CHECK(prefill_step<P>(Cuda{}, args) == cudaErrorInvalidValue);
  args.step.kv_heads = 1;
  args.n_pages = 0;
  CHECK(prefill_step<P>(Cuda{}, args) == cudaSuccess);
}
