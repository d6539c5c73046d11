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
  for (const int m : {1, 2, 7, 8, 9}) {
    for (const int n : {1, 15, 16, 17, 64}) {
      for (const int k : {F::kChunkColumns, F::kChunkColumns * 3})
        compare<W, T>({.m = m, .n = n, .k = k}, seed++);
    }
  }
  compare<W, T>({.m = 1, .n = 2304, .k = F::kChunkColumns * 17}, seed++);  // several tiles a block
  compare<W, T>({.m = 3, .n = 2304 * 4, .k = F::kChunkColumns}, seed++);   // several passes
  compare<W, T>({.m = 19, .n = 48, .k = F::kChunkColumns * 2}, seed++);    // two passes over tokens
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

TEST_CASE_TEMPLATE("skinny linear on Cuda is Host's, Half activations", W, LMD_WEIGHTS_OF_HALF) {
  if (!has_gpu()) return;
  compare_all<W, Half>();
}

TEST_CASE_TEMPLATE("skinny linear on Cuda is Host's, BFloat16 activations",
                   W,
                   LMD_WEIGHTS_OF_BFLOAT16) {
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

TEST_CASE_TEMPLATE("skinny linear on Cuda: blocks of a cluster share out k", T, Half, BFloat16) {
  if (!has_gpu()) return;
  using W = quant::WeightInt4<128>;
  unsigned seed = 21;
  for (const int m : {5, 8, 9}) {
    for (const int k : {14336, 18944}) {
      compare<W, T>({.m = m, .n = 1000, .k = k, .epilogue = LinearEpilogue::kAdd}, seed++, Cuda{});
      compare<W, T>({.m = m,
                     .n = 96,
                     .k = k,
                     .epilogue = LinearEpilogue::kSiluMul,
                     .has_norm = true,
                     .has_bias = true},
                    seed++, Cuda{});
    }
  }
  compare<quant::WeightInt4<32>, T>({.m = 8, .n = 80, .k = 17440}, seed++, Cuda{});
  // Several tiles for each cluster, in an odd number of passes.
  compare<W, T>({.m = 8, .n = 16 * 9 * 66, .k = 14336}, seed++, Cuda{});
}

TEST_CASE_TEMPLATE("skinny linear normalises rows of any size", T, Half, BFloat16) {
  if (!has_gpu()) return;
  using W = quant::WeightInt4<128>;
  unsigned seed = 1;
  // Halves below 6e-8 are zero, above 65504 infinite; an epsilon below the mean square keeps the
  // outputs' size.
  for (const float size : {1e-6f, 1e-3f, 1.0f, 1e3f, 1e4f}) {
    for (const int m : {1, 4, 8}) {
      CAPTURE(size);
      compare<W, T>({.m = m,
                     .n = 96,
                     .k = 4096,
                     .has_norm = true,
                     .x_size = size,
                     .norm_eps = 0.01f * size * size},
                    seed++);
      compare<W, T>({.m = m,
                     .n = 96,
                     .k = 4096,
                     .has_norm = true,
                     .x_size = size,
                     .outlier = std::min(60000.0f, 3e4f * size),
                     .norm_eps = 1e-5f},
                    seed++);
    }
  }
  compare<W, T>({.m = 1, .n = 32, .k = 4096, .has_norm = true, .x_size = 0.0f}, seed++);
  // Slices of more columns than are read at once.
  for (const float size : {1e-6f, 1e3f}) {
    compare<W, T>({.m = 1,
                   .n = 32,
                   .k = 12288,
                   .has_norm = true,
                   .x_size = size,
                   .norm_eps = 0.01f * size * size},
                  seed++);
  }
}

TEST_CASE("skinny linear keeps what is not a number") {
  if (!has_gpu()) return;
  using W = quant::WeightInt4<128>;
  for (const float outlier : {INFINITY, NAN}) {
    LinearOperands<W, Half> operands(
        {.m = 3, .n = 32, .k = 1024, .has_norm = true, .outlier = outlier}, 1);
    const std::vector<Half> found = operands.run([&](const BasicLinearArgs<Half>& a) {
      return skinny_linear<FragmentPolicy<W, Half>>(least_device(), a);
    });
    for (int i = 0; i < 3; ++i)
      CHECK(std::isnan(to_float(found[static_cast<std::size_t>(i) * 35])));
  }
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
  CHECK(skinny_linear<P>(Cuda{}, {.m = -1, .n = 16, .k = 128}) == cudaErrorInvalidValue);
  CHECK(skinny_linear<P>(Cuda{}, {.m = 0, .n = 16, .k = 100}) == cudaErrorInvalidValue);
}

TEST_CASE("skinny linear of no tokens asks no device") {
  using P = FragmentPolicy<quant::WeightInt4<128>, Half>;
  CHECK(skinny_linear<P>(Cuda{}, {.m = 0, .n = 16, .k = 128}) == cudaSuccess);
}

TEST_CASE_TEMPLATE("small: skinny linear on Cuda is Host's", W, LMD_WEIGHTS_OF_HALF) {
  if (!has_gpu()) return;
  for (const int m : {1, 2, 5, 8}) {
    compare<W, Half>({.m = m, .n = 48, .k = 1024, .has_norm = true, .has_bias = true}, 31);
    compare<W, Half>({.m = m, .n = 64, .k = 1024, .epilogue = LinearEpilogue::kSiluMul}, 32);
  }
}
