/// \file  Prefill on Cuda against Host on the same stored bytes.
// SPDX-License-Identifier: Apache-2.0
#include <lmd/quant/kv_formats.hpp>

#include "kernels/attention/prefill_case.cuh"
#include "oracle/compare.hpp"
#include <doctest/doctest.h>

using namespace lmd;
using namespace lmd::kernels;

namespace {

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
void compare_open(PrefillBatch<P, T>& batch,
                  const PrefillResult<T>& found,
                  const PrefillResult<T>& expected,
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
      const std::int64_t tile =
          slot + batch.open_at() + std::int64_t{kvh} * PrefillBatch<P, T>::kTile;
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
void compare_units(PrefillBatch<P, T>& batch,
                   const PrefillResult<T>& found,
                   const PrefillResult<T>& expected,
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
void compare(const PrefillShape& shape, std::uint64_t seed) {
  CAPTURE(P::Scheme::kName);
  CAPTURE(P::kHeadDim);
  CAPTURE(shape.heads);
  CAPTURE(shape.kv_heads);
  CAPTURE(shape.chunks.size());
  CAPTURE(shape.chunks[0].position);
  CAPTURE(shape.chunks[0].n);
  CAPTURE(seed);
  PrefillBatch<P, T> batch(shape, seed);
  const PrefillResult<T> expected = run_on_host(batch);
  const PrefillResult<T> found = run_on_cuda(batch, false);
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
  const PrefillResult<T> again = run_on_cuda(batch, true);
  const auto is_same = [](auto a, auto b) { return a.bits == b.bits; };
  CHECK(std::equal(again.out.begin(), again.out.end(), found.out.begin(), is_same));
  CHECK(std::equal(again.qkv.begin(), again.qkv.end(), found.qkv.begin(), is_same));
  CHECK(again.pool == found.pool);
}

const std::vector<PrefillChunk> kRagged{{0, 1},  {1, 2},     {63, 63},   {64, 64}, {65, 65},
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

TEST_CASE_TEMPLATE("prefill on Cuda is Host's for every number of queries and every scheme",
                   S,
                   quant::Kv16,
                   quant::Kv8,
                   quant::Kv4,
                   quant::Kv8V4,
                   quant::Kv4c) {
  if (!has_gpu()) return;
  std::uint64_t seed = 150;
  for (const int group : {1, 2, 3, 4, 5, 6, 7, 8})
    compare<FragmentKvPolicy<S, 128>, Half>({group, 1, {{63, 30}, {130, 9}}}, seed++);
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
  compare<FragmentKvPolicy<S, 96>, BFloat16>({4, 2, {{100, 130}, {0, 65}, {63, 2}}}, 203);
  compare<FragmentKvPolicy<S, 128>, BFloat16>({4, 2, {{100, 130}, {0, 65}, {63, 2}}}, 204);
}

TEST_CASE("prefill on Cuda rotates by angles too") {
  if (!has_gpu()) return;
  const PrefillShape shape{4, 2, {{100, 130}, {0, 65}, {64, 64}}, Rotation::kAngles};
  compare<FragmentKvPolicy<quant::Kv16, 128>, Half>(shape, 300);
  compare<FragmentKvPolicy<quant::Kv8, 128>, Half>(shape, 301);
  compare<FragmentKvPolicy<quant::Kv16, 128>, BFloat16>(shape, 302);
}

TEST_CASE("prefill on Cuda: a long sequence, most of it cached") {
  if (!has_gpu()) return;
  compare<FragmentKvPolicy<quant::Kv4, 128>, Half>({4, 1, {{5000, 20}}}, 400);
  compare<FragmentKvPolicy<quant::Kv16, 64>, Half>({2, 2, {{3000, 90}, {0, 1}}}, 401);
}

TEST_CASE_TEMPLATE("prefill on Cuda: the average of a long context keeps its bits",
                   S,
                   quant::Kv8,
                   quant::Kv4) {
  if (!has_gpu()) return;
  using P = FragmentKvPolicy<S, 128>;
  for (const int position : {8192, 32768}) {
    CAPTURE(position);
    PrefillBatch<P, Half> batch({2, 1, {{position, 1}}}, 500);
    std::fill_n(batch.qkv.begin(), 2 * P::kHeadDim, Half{});  // no query prefers a token
    const std::vector<Half> expected = run_on_host(batch).out;
    const std::vector<Half> found = run_on_cuda(batch, false).out;
    // Weights are 1 and codes times scales exact. Tensor cores truncate four sums of a page; what is
    // added in f32, pages and an eighth of the zero points, is rounded. 128 normal numbers range
    // over about 5, which is scale code - zero together; their average is a hundredth.
    const double truncated = 4 * 0x1p-22;
    const double rounded = 4 * std::sqrt(position / 64.0 + position / 8.0) * 0x1p-25;
    test::Comparison out;
    for (std::size_t i = 0; i < expected.size(); ++i) {
      const double e = to_float(expected[i]);
      out.add(0, static_cast<std::int64_t>(i), to_float(found[i]), e,
              0x1p-10 * std::abs(e) + 5 * (truncated + rounded));
    }
    const std::string worst = out.worst();
    CAPTURE(worst);
    CHECK(out.is_within());
  }
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
  args.step.n_chunks = 0;
  CHECK(prefill_step<P>(Cuda{}, args) == cudaSuccess);
  args.n_pages = -1;
  CHECK(prefill_step<P>(Cuda{}, args) == cudaErrorInvalidValue);
}

TEST_CASE_TEMPLATE("small: prefill on Cuda is Host's",
                   S,
                   quant::Kv16,
                   quant::Kv8,
                   quant::Kv4,
                   quant::Kv8V4,
                   quant::Kv4c) {
  if (!has_gpu()) return;
  compare<FragmentKvPolicy<S, 128>, Half>({4, 2, {{63, 66}, {0, 3}}}, 600);
  compare<FragmentKvPolicy<S, 64>, BFloat16>({3, 1, {{65, 2}, {0, 65}}}, 601);
}
