/// \file  Sealing on Cuda is Host's, bit by bit: units of one decode step, all layers at once.
// SPDX-License-Identifier: Apache-2.0
#include <lmd/core/stream.cuh>
#include <lmd/kernels/cache/seal.cuh>
#include <lmd/quant/kv_formats.hpp>

#include <cmath>
#include <vector>

#include "cases/random.hpp"
#include "gpu.cuh"
#include "oracle/device_guard.cuh"
#include <doctest/doctest.h>

using namespace lmd;
using namespace lmd::kernels;

namespace {

struct Kind {
  const char* name;
  float (*number)(test::Random&, int);
};

constexpr Kind kKinds[] = {
    {"normal", [](test::Random& r, int) { return r.normal(); }},
    {"ties", [](test::Random& r, int) { return static_cast<float>(r.below(31)) * 0.5f; }},
    {"constant", [](test::Random&, int) { return 3.25f; }},
    {"constant in parts", [](test::Random&, int i) { return i % 128 < 64 ? 3.25f : 0.0f; }},
    {"subnormal", [](test::Random& r, int) { return float(r.below(40) - 20) * 0x1p-24f; }},
    {"large", [](test::Random& r, int) { return r.normal() * 10000.0f; }},
    {"outliers",
     [](test::Random& r, int) { return r.below(50) == 0 ? 500.0f * r.normal() : r.normal(); }},
    {"zeros of both signs", [](test::Random& r, int) { return r.below(2) == 0 ? 0.0f : -0.0f; }},
    {"infinities", [](test::Random& r, int) { return r.below(90) == 0 ? INFINITY : r.normal(); }},
};

/// One step: every chunk has a slot of open pages in all layers and a page of its own in the pool.
template <class P>
void compare(const Kind& kind,
             const std::vector<int>& positions,
             int layers,
             int kv_heads,
             bool overlap,
             std::uint64_t seed) {
  using U = typename P::Unit;
  CAPTURE(kind.name);
  CAPTURE(P::Scheme::kName);
  CAPTURE(P::kHeadDim);
  CAPTURE(positions.size());
  constexpr std::uint8_t kBefore = 0x77;
  const int n = static_cast<int>(positions.size());
  const std::int64_t tiles = std::int64_t{kv_heads} * cache::kPageTokens * P::kHeadDim;
  const std::int64_t slot = 2 * layers * tiles;
  const std::int64_t layer_bytes = std::int64_t{kv_heads} * U::kBytes;
  const std::int64_t page_bytes = layers * layer_bytes + 256;
  test::Random random(seed);
  std::vector<Half> open(static_cast<std::size_t>(n * slot));
  for (std::size_t i = 0; i < open.size(); ++i)
    open[i] = to_half(kind.number(random, static_cast<int>(i)));
  std::vector<std::int32_t> ids;
  std::vector<int> ids_at;
  for (int b = 0; b < n; ++b) {
    ids_at.push_back(static_cast<int>(ids.size()));
    ids.resize(ids.size() + positions[b] / cache::kPageTokens, -1000000);  // never to be read
    ids.push_back(n - 1 - b);
  }
  std::vector<std::uint8_t> expected(static_cast<std::size_t>(n * page_bytes), kBefore);

  const auto chunks_over = [&](Half* slots, const std::int32_t* page_ids) {
    std::vector<SequenceChunk> chunks;
    for (int b = 0; b < n; ++b)
      chunks.push_back({.first_row = b,
                        .n = 1,
                        .position = positions[b],
                        .open_keys = slots + b * slot,
                        .open_values = slots + b * slot + tiles,
                        .page_ids = page_ids + ids_at[b]});
    return chunks;
  };
  test::OnDevice<Half> device_open(open);
  test::OnDevice<std::int32_t> device_ids(ids);
  test::OnDevice<SequenceChunk> chunks(chunks_over(device_open.data(), device_ids.data()));
  test::GuardedDevice<std::uint8_t> pool(n * page_bytes);
  LMD_CUDA_TRY(cudaMemset(pool.data(), kBefore, expected.size()));
  LMD_CUDA_TRY(cudaDeviceSynchronize());
  Stream stream;
  REQUIRE(seal_step<P>(Cuda{.stream = stream.get(), .overlap = overlap},
                       {.chunks = chunks.data(),
                        .n_chunks = n,
                        .layers = layers,
                        .kv_heads = kv_heads,
                        .open_layer_stride = 2 * tiles,
                        .pool = pool.data(),
                        .page_bytes = page_bytes,
                        .layer_bytes = layer_bytes}) == cudaSuccess);
  const std::vector<std::uint8_t> found = pool.fetch();
  CHECK(pool.is_intact());

  const std::vector<SequenceChunk> host = chunks_over(open.data(), ids.data());
  for (int b = 0; b < n; ++b) {
    if (positions[b] % cache::kPageTokens != cache::kPageTokens - 1) continue;
    const int id = host[b].page_ids[positions[b] / cache::kPageTokens];
    for (int layer = 0; layer < layers; ++layer)
      for (int kvh = 0; kvh < kv_heads; ++kvh) {
        const std::int64_t tile = std::int64_t{kvh} * cache::kPageTokens * P::kHeadDim;
        seal_unit<U, typename P::Open>(
            Host{}, {.unit = expected.data() + id * page_bytes + layer * layer_bytes +
                             std::int64_t{kvh} * U::kBytes,
                     .keys = host[b].open_keys + layer * 2 * tiles + tile,
                     .values = host[b].open_values + layer * 2 * tiles + tile});
      }
  }
  std::size_t wrong = 0;
  std::size_t first = 0;
  for (std::size_t i = found.size(); i-- > 0;) {
    if (found[i] == expected[i]) continue;
    ++wrong;
    first = i;
  }
  const auto at = static_cast<std::int64_t>(first);
  CAPTURE(seed);
  CAPTURE(at / page_bytes);                            // page of the first difference
  CAPTURE(at % page_bytes % layer_bytes % U::kBytes);  // byte of the unit
  CHECK(wrong == 0);
}

template <class Tile>
void check_inverse() {
  CAPTURE(Tile::kBits);
  CAPTURE(Tile::kBytes);
  constexpr int kCodes = 128 / Tile::kBits;  // of 16 bytes
  int wrong = 0;
  for (int vector = 0; vector < Tile::kBytes / 16; ++vector) {
    for (int code = 0; code < kCodes; ++code) {
      const kernels::detail::TileElement at =
          kernels::detail::TileOrder<Tile>::element(vector, code);
      wrong += at.t < 0 || at.t >= cache::kPageTokens ||
               Tile::first_bit(at.t, at.d) != (vector * kCodes + code) * Tile::kBits;
    }
  }
  CHECK(wrong == 0);
}

template <int HeadDim>
void check_inverses() {
  check_inverse<cache::FragmentKeyTile<4, HeadDim>>();
  check_inverse<cache::FragmentKeyTile<8, HeadDim>>();
  check_inverse<cache::FragmentKeyTile<16, HeadDim>>();
  check_inverse<cache::FragmentValueTile<4, HeadDim>>();
  check_inverse<cache::FragmentValueTile<8, HeadDim>>();
  check_inverse<cache::FragmentValueTile<16, HeadDim>>();
}

}  // namespace

TEST_CASE("the order in which tiles are sealed is the inverse of where their codes lie") {
  check_inverses<64>();
  check_inverses<96>();
  check_inverses<128>();
}

TEST_CASE_TEMPLATE("sealing on Cuda is Host's, bit by bit",
                   S,
                   quant::Kv16,
                   quant::Kv8,
                   quant::Kv4,
                   quant::Kv8V4,
                   quant::Kv4c) {
  if (!has_gpu()) return;
  std::uint64_t seed = 1;
  for (const Kind& kind : kKinds) {
    compare<FragmentKvPolicy<S, 128>>(kind, {63, 5, 191, 64}, 2, 2, false, seed++);
    compare<FragmentKvPolicy<S, 64>>(kind, {127}, 1, 3, true, seed++);
    compare<FragmentKvPolicy<S, 96>>(kind, {0, 63}, 3, 1, true, seed++);
  }
}

TEST_CASE("a decode step seals the pages that it fills, and no others") {
  if (!has_gpu()) return;
  using P = FragmentKvPolicy<quant::Kv4, 64>;
  const Kind& kind = kKinds[0];
  compare<P>(kind, {0}, 2, 2, false, 100);
  compare<P>(kind, {62, 64, 126, 1}, 2, 2, false, 101);
  compare<P>(kind, {63}, 30, 8, true, 102);  // more units than half the blocks
  std::vector<int> positions(300, 10);
  for (const int b : {0, 31, 32, 63, 64, 255, 256, 299})
    positions[b] = 63 + 64 * (b % 5);
  compare<P>(kind, positions, 2, 1, false, 103);
  positions.assign(1024, 64);
  positions[1023] = 127;
  positions[511] = 63;
  compare<P>(kind, positions, 1, 1, true, 104);
  compare<P>(kind, std::vector<int>(1024, 63), 1, 1, true, 105);
}

TEST_CASE("seal_step refuses more chunks than it can list") {
  using P = FragmentKvPolicy<quant::Kv4, 64>;
  const SealStepArgs args{.n_chunks = 1025, .layers = 1, .kv_heads = 1};
  CHECK(seal_step<P>(Cuda{}, args) == cudaErrorInvalidValue);
  CHECK(seal_step<P>(Cuda{}, {.n_chunks = 0, .layers = 1, .kv_heads = 1}) == cudaSuccess);
}

TEST_CASE_TEMPLATE("small: a step seals the pages that it fills",
                   S,
                   quant::Kv16,
                   quant::Kv8,
                   quant::Kv4,
                   quant::Kv8V4,
                   quant::Kv4c) {
  if (!has_gpu()) return;
  compare<FragmentKvPolicy<S, 128>>(kKinds[0], {63, 5, 191}, 2, 2, false, 200);
  compare<FragmentKvPolicy<S, 64>>(kKinds[0], {127, 0}, 1, 1, true, 201);
}
