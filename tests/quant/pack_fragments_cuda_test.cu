/// \file  Packing on the device is the definition, byte by byte: formats, orders of rows, padding.
// SPDX-License-Identifier: Apache-2.0
#include <lmd/quant/pack_fragments.cuh>

#include <cmath>
#include <cstring>
#include <string>
#include <vector>

#include "cases/random.hpp"
#include "gpu.cuh"
#include "oracle/device_guard.cuh"
#include <doctest/doctest.h>

using namespace lmd;
using namespace lmd::quant;

namespace {

/// Rows of a matrix as a checkpoint holds them.
template <class W>
struct Rows {
  std::vector<std::uint8_t> codes;
  std::vector<std::uint8_t> params;
  int n;
  int k;

  Rows(int n_rows, int n_columns)
      : codes(static_cast<std::size_t>(RowWeights<W>::row_bytes(n_columns)) * n_rows),
        n(n_rows),
        k(n_columns) {
    if constexpr (W::kGroupSize > 0)
      params.resize(std::size_t(n) * (k / W::kGroupSize) * sizeof(typename W::Params));
  }
  [[nodiscard]] std::size_t row_codes() const { return codes.size() / n; }
  [[nodiscard]] std::size_t row_params() const { return params.size() / n; }
  [[nodiscard]] RowWeights<W> view() const {
    return {codes.data(), reinterpret_cast<const typename W::Params*>(params.data()), k, n};
  }
  /// Row `from` of `source` becomes row j.
  void copy_row(int j, const Rows& source, int from) {
    std::copy_n(source.codes.begin() + from * row_codes(), row_codes(),
                codes.begin() + j * row_codes());
    std::copy_n(source.params.begin() + from * row_params(), row_params(),
                params.begin() + j * row_params());
  }
};

template <class W>
typename W::Params random_params(test::Random& random) {
  typename W::Params p{};
  p.scale = to_half(random.normal());
  if constexpr (requires { p.minimum; }) p.minimum = to_half(random.normal());
  if constexpr (requires { p.zero; }) {
    p.zero = static_cast<std::uint8_t>(random.below(16));
    p.unused = static_cast<std::uint8_t>(random.bits());  // nobody may read it
  }
  return p;
}

/// Every code, and any parameters.
template <class W>
Rows<W> random_rows(int n, int k, std::uint64_t seed) {
  test::Random random(seed);
  Rows<W> rows(n, k);
  for (std::uint8_t& byte : rows.codes)
    byte = static_cast<std::uint8_t>(random.bits());
  if constexpr (W::kGroupSize > 0) {
    for (std::size_t at = 0; at < rows.params.size(); at += sizeof(typename W::Params)) {
      const typename W::Params p = random_params<W>(random);
      std::memcpy(rows.params.data() + at, &p, sizeof p);
    }
  }
  return rows;
}

/// Numbers of format `From` that halves may hold, ends of their range and what lies beyond.
template <class From>
Rows<From> number_rows(int n, int k, const std::vector<float>& special, std::uint64_t seed) {
  test::Random random(seed);
  Rows<From> rows(n, k);
  for (std::size_t i = 0; i < std::size_t(n) * k; ++i) {
    const float x = i < special.size()     ? special[i]
                    : random.below(3) == 0 ? std::ldexp(random.normal(), -random.below(30))
                                           : random.normal();
    if constexpr (From::kBits == 32) {
      std::memcpy(rows.codes.data() + i * 4, &x, 4);
    } else {
      const BFloat16 rounded = to_bfloat16(x);
      std::memcpy(rows.codes.data() + i * 2, &rounded, 2);
    }
  }
  return rows;
}

/// The rows rounded to halves.
template <class From>
Rows<WeightHalf> rounded(const Rows<From>& from) {
  Rows<WeightHalf> rows(from.n, from.k);
  for (int j = 0; j < from.n; ++j) {
    for (int l = 0; l < from.k; ++l) {
      const Half x = to_half(from.view().weight(j, l));
      std::memcpy(rows.codes.data() + (std::size_t(j) * from.k + l) * 2, &x, 2);
    }
  }
  return rows;
}

/// [gate; up] as eight rows of one and eight of the other in turn, written as a loop.
template <class W>
Rows<W> interleaved(const Rows<W>& from) {
  Rows<W> rows = from;
  int j = 0;
  for (int block = 0; block < from.n / 16; ++block) {
    for (const int half : {0, from.n / 2}) {
      for (int i = 0; i < 8; ++i)
        rows.copy_row(j++, from, half + block * 8 + i);
    }
  }
  return rows;
}

/// Packs `from` on the device and compares with the definition's bytes for `expected`.
template <class W, class From>
void compare(const Rows<From>& from, const Rows<W>& expected, RowOrder order, int overflows) {
  CAPTURE(W::kName);
  CAPTURE(From::kName);
  CAPTURE(from.n);
  CAPTURE(from.k);
  CAPTURE(static_cast<int>(order));
  std::vector<std::uint8_t> bytes(FragmentWeights<W>::stream_bytes(from.n, from.k), 0xa5);
  pack_fragments<W>(order == RowOrder::kAsTheyAre ? expected.view() : interleaved(expected).view(),
                    bytes.data());
  test::OnDevice<std::uint8_t> codes(from.codes);
  test::OnDevice<std::uint8_t> params(from.params);
  test::OnDevice<int> overflow(std::vector<int>{0});
  test::GuardedDevice<std::uint8_t> stream(static_cast<std::int64_t>(bytes.size()));
  REQUIRE(pack_fragments<W, From>(Cuda{}, {.stream = stream.data(),
                                           .codes = codes.data(),
                                           .params = params.data(),
                                           .n = from.n,
                                           .k = from.k,
                                           .order = order,
                                           .overflow = overflow.data()}) == cudaSuccess);
  const std::vector<std::uint8_t> found = stream.fetch();
  CHECK(stream.is_intact());
  std::int64_t first = -1;
  std::int64_t wrong = 0;
  for (std::size_t i = 0; i < bytes.size(); ++i) {
    if (found[i] == bytes[i]) continue;
    if (wrong++ == 0) first = static_cast<std::int64_t>(i);
  }
  CAPTURE(first / FragmentWeights<W>::kChunkBytes);  // chunk of the first difference
  CAPTURE(first % FragmentWeights<W>::kChunkBytes);
  CHECK(wrong == 0);
  int flag = -1;
  LMD_CUDA_TRY(cudaMemcpy(&flag, overflow.data(), sizeof flag, cudaMemcpyDefault));
  CHECK(flag == overflows);
}

/// One below, at and one above a tile of rows and a chunk of columns, in steps of whole groups; and
/// one.
template <class W>
std::vector<int> columns() {
  constexpr int kChunk = FragmentWeights<W>::kChunkColumns;
  constexpr int kStep = W::kGroupSize == 0 ? 1 : W::kGroupSize;
  std::vector<int> all{kStep, kChunk, kChunk + kStep, 3 * kChunk};
  if (kChunk > kStep) all.insert(all.end(), {kChunk - kStep, 3 * kChunk - kStep});
  return all;
}

}  // namespace

TEST_CASE_TEMPLATE("packing on the device gives the bytes of the definition",
                   W,
                   WeightHalf,
                   WeightBFloat16,
                   WeightInt4<32>,
                   WeightInt4<64>,
                   WeightInt4<128>,
                   WeightAffine4<32>,
                   WeightInt8<32>) {
  if (!has_gpu()) return;
  std::uint64_t seed = 1;
  for (const int k : columns<W>()) {
    for (const int n : {1, 15, 16, 17, 41}) {
      const Rows<W> rows = random_rows<W>(n, k, seed++);
      compare<W, W>(rows, rows, RowOrder::kAsTheyAre, 0);
    }
    for (const int n : {16, 32, 48}) {
      const Rows<W> rows = random_rows<W>(n, k, seed++);
      compare<W, W>(rows, rows, RowOrder::kGateUpBlocks, 0);
    }
  }
  const Rows<W> many = random_rows<W>(1040, 5 * FragmentWeights<W>::kChunkColumns, seed);
  compare<W, W>(many, many, RowOrder::kAsTheyAre, 0);
  compare<W, W>(many, many, RowOrder::kGateUpBlocks, 0);
}

TEST_CASE_TEMPLATE("numbers become halves as they are packed", From, WeightFloat, WeightBFloat16) {
  if (!has_gpu()) return;
  // The largest half, halves below the normal ones, a tie; infinities are no overflow.
  const std::vector<float> fit{65504.0f,    -65504.0f, 0x1p-24f, -0x1p-25f, 0x1.8p-24f,
                               1.00048828f, 0.0f,      -0.0f,    INFINITY,  -INFINITY};
  std::uint64_t seed = 100;
  for (const int k : {1, 63, 64, 65, 200}) {
    for (const int n : {1, 15, 16, 17, 32}) {
      const Rows<From> rows = number_rows<From>(n, k, {}, seed++);
      compare<WeightHalf, From>(rows, rounded(rows), RowOrder::kAsTheyAre, 0);
      if (n % 16 == 0) compare<WeightHalf, From>(rows, rounded(rows), RowOrder::kGateUpBlocks, 0);
    }
  }
  if constexpr (std::is_same_v<From, WeightFloat>) {
    const Rows<From> rows = number_rows<From>(16, 64, fit, seed++);
    compare<WeightHalf, From>(rows, rounded(rows), RowOrder::kAsTheyAre, 0);
  }
}

TEST_CASE_TEMPLATE("a number too large for a half is reported", From, WeightFloat, WeightBFloat16) {
  if (!has_gpu()) return;
  for (const float large : {65536.0f, -65536.0f, 3e38f}) {
    const Rows<From> rows = number_rows<From>(3, 70, {1.0f, large}, 200);
    compare<WeightHalf, From>(rows, rounded(rows), RowOrder::kAsTheyAre, 1);
    // In the last place of the second half of the rows, too.
    Rows<From> last = number_rows<From>(16, 70, {}, 201);
    last.copy_row(15, number_rows<From>(1, 70, std::vector<float>(70, large), 202), 0);
    compare<WeightHalf, From>(last, rounded(last), RowOrder::kGateUpBlocks, 1);
  }
  // The smallest float that rounds to infinity, and the one before it.
  if constexpr (std::is_same_v<From, WeightFloat>) {
    const Rows<From> over = number_rows<From>(1, 64, {65520.0f}, 203);
    compare<WeightHalf, From>(over, rounded(over), RowOrder::kAsTheyAre, 1);
    const Rows<From> below = number_rows<From>(1, 64, {std::nextafter(65520.0f, 0.0f)}, 204);
    compare<WeightHalf, From>(below, rounded(below), RowOrder::kAsTheyAre, 0);
  }
}

TEST_CASE_TEMPLATE("small: packing on the device",
                   W,
                   WeightHalf,
                   WeightInt4<128>,
                   WeightAffine4<32>,
                   WeightInt8<32>) {
  if (!has_gpu()) return;
  const Rows<W> rows = random_rows<W>(48, 3 * FragmentWeights<W>::kChunkColumns, 300);
  compare<W, W>(rows, rows, RowOrder::kAsTheyAre, 0);
  compare<W, W>(rows, rows, RowOrder::kGateUpBlocks, 0);
}

TEST_CASE("[gate; up] in blocks: rows by hand") {
  // 32 rows: gates 0 .. 15, values 16 .. 31.
  const int expected[32] = {0, 1, 2,  3,  4,  5,  6,  7,  16, 17, 18, 19, 20, 21, 22, 23,
                            8, 9, 10, 11, 12, 13, 14, 15, 24, 25, 26, 27, 28, 29, 30, 31};
  for (int j = 0; j < 32; ++j) {
    CHECK(source_row(RowOrder::kGateUpBlocks, j, 32) == expected[j]);
    CHECK(source_row(RowOrder::kAsTheyAre, j, 32) == j);
  }
}

TEST_CASE("packing on the device refuses more chunks than a grid has blocks") {
  CHECK(pack_fragments<WeightHalf>(Cuda{}, PackArgs{.n = 1 << 24, .k = 1 << 17}) ==
        cudaErrorInvalidValue);
  CHECK(pack_fragments<WeightHalf>(Cuda{}, PackArgs{.n = 0, .k = 64}) == cudaSuccess);
  CHECK(pack_fragments<WeightHalf>(Cuda{}, PackArgs{.n = 16, .k = 0}) == cudaSuccess);
}
