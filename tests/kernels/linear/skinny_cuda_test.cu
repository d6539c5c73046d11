/// \file  Skinny linear layers on Cuda against Host on the same stored bytes.
// SPDX-License-Identifier: Apache-2.0
#include <lmd/kernels/linear/skinny.cuh>

#include "gpu.cuh"
#include "kernels/linear/linear_case.cuh"
#include <doctest/doctest.h>

using namespace lmd;
using namespace lmd::kernels;

namespace {

/// Runs the case on Host and on Cuda, over the same bytes, and compares.
template <class W, class T>
void compare(const LinearCase& c, unsigned seed, Cuda ctx = least_device()) {
  CAPTURE(W::kName);
  CAPTURE(c.name());
  CAPTURE(seed);
  LinearOperands<W, T> operands(c, seed);
  operands.check(operands.run(
      [&](const BasicLinearArgs<T>& a) { return skinny_linear<FragmentPolicy<W, T>>(ctx, a); }));
}

template <class W, class T>
void compare_all() {
  using F = quant::FragmentWeights<W>;
  unsigned seed = 1;
  for (const int m : {1, 2, 7, 8}) {
    for (const int n : {1, 15, 16, 17, 64}) {
      for (const int k : {F::kChunkColumns, F::kChunkColumns * 3})
        compare<W, T>({.m = m, .n = n, .k = k}, seed++);
    }
  }
  compare<W, T>({.m = 1, .n = 2304, .k = F::kChunkColumns * 17}, seed++);  // several tiles a block
  compare<W, T>({.m = 3, .n = 2304 * 4, .k = F::kChunkColumns}, seed++);   // several passes
  compare<W, T>({.m = 11, .n = 48, .k = F::kChunkColumns * 2}, seed++);    // two passes over tokens
  for (const int m : {1, 5}) {
    compare<W, T>({.m = m, .n = 96, .k = 1024, .has_bias = true}, seed++);
    compare<W, T>({.m = m, .n = 96, .k = 1024, .epilogue = LinearEpilogue::kAdd}, seed++);
    compare<W, T>({.m = m, .n = 96, .k = 1024, .has_norm = true}, seed++);
    compare<W, T>(
        {.m = m, .n = 96, .k = 1024, .epilogue = LinearEpilogue::kSiluMul, .has_norm = true},
        seed++);
  }
  if (W::kGroupSize == 32) compare<W, T>({.m = 1, .n = 33, .k = 96}, seed++);  // a padded chunk
}

}  // namespace

TEST_CASE_TEMPLATE("skinny linear on Cuda is Host's, Half activations",
                   W,
                   quant::WeightHalf,
                   quant::WeightInt4<32>,
                   quant::WeightInt4<64>,
                   quant::WeightInt4<128>,
                   quant::WeightAffine4<32>,
                   quant::WeightInt8<32>) {
  if (!has_gpu()) return;
  compare_all<W, Half>();
}

TEST_CASE_TEMPLATE("skinny linear on Cuda is Host's, BFloat16 activations",
                   W,
                   quant::WeightBFloat16,
                   quant::WeightInt4<32>,
                   quant::WeightInt4<128>,
                   quant::WeightAffine4<32>,
                   quant::WeightInt8<32>) {
  if (!has_gpu()) return;
  compare_all<W, BFloat16>();
}

TEST_CASE("skinny linear on Cuda: the shapes of a 7B layer, long sums") {
  if (!has_gpu()) return;
  using W = quant::WeightInt4<128>;
  compare<W, Half>({.m = 1, .n = 256, .k = 14336}, 1);
  compare<W, Half>({.m = 8, .n = 64, .k = 14336}, 2);
  compare<W, Half>({.m = 1, .n = 28672, .k = 256, .epilogue = LinearEpilogue::kSiluMul}, 3);
  compare<W, Half>({.m = 1, .n = 64, .k = 18944}, 4);
  compare<W, Half>({.m = 6, .n = 64, .k = 18944}, 5, Cuda{});
  // Small groups have many sums of x: fewer tokens fit.
  compare<quant::WeightInt4<32>, Half>({.m = 8, .n = 64, .k = 14336}, 6);
  compare<quant::WeightInt4<32>, Half>({.m = 8, .n = 64, .k = 14336}, 7, Cuda{});
  compare<W, Half>({.m = 1, .n = 92544, .k = 256}, 8);  // two passes
}

TEST_CASE("skinny linear refuses an x too long for one token") {
  if (!has_gpu()) return;
  using P = FragmentPolicy<quant::WeightInt4<128>, Half>;
  const Cuda ctx = least_device();
  CHECK(skinny_linear<P>(ctx, {.m = 1, .n = 16, .k = ctx.shared_bytes / 2 / 128 * 128}) ==
        cudaErrorInvalidValue);
}

TEST_CASE("skinny linear refuses shapes it cannot read") {
  using P = FragmentPolicy<quant::WeightInt4<128>, Half>;
  CHECK(skinny_linear<P>(Cuda{}, {.m = 1, .n = 16, .k = 100}) == cudaErrorInvalidValue);
  CHECK(skinny_linear<P>(Cuda{}, {.m = 1, .n = 0, .k = 128}) == cudaErrorInvalidValue);
}
