/// \file  Linear layers by products of warp groups against Host on the same stored bytes.
// SPDX-License-Identifier: Apache-2.0
#include <lmd/kernels/linear/warpgroup.cuh>

#include "kernels/linear/tile_case.cuh"
#include "oracle/skip.hpp"
#include <doctest/doctest.h>

using namespace lmd;
using namespace lmd::kernels;

namespace {

struct Layer {
  static constexpr bool kRoundsWeights = true;
  static std::int64_t scratch_bytes(int k) { return warpgroup_scratch_bytes(k); }
  template <LinearPolicy P>
  static cudaError_t run(Cuda ctx,
                         const BasicLinearArgs<typename P::Act>& a,
                         const LinearWorkspace& workspace) {
    return warpgroup_linear<P>(ctx, a, workspace);
  }
};

/// Whether the layer can run here; says so where it cannot.
bool has_layer() {
  if (!has_gpu()) return false;
  using P = FragmentPolicy<quant::WeightInt4<128>, Half>;
  const bool is_there = has_warpgroup_linear<P>();
  if (!is_there) test::skip("products of warp groups", "built for another architecture");
  return is_there;
}

/// Rows that are normalised while they are arranged. One block has several of them where there are
/// more tokens than blocks.
template <class W, class T>
void compare_normalised() {
  unsigned seed = 1;
  const auto compare = [&](LinearCase c) {
    c.has_norm = true;
    c.x_padding = 0;
    compare_tiles<Layer, W, T>(c, seed++);
  };
  for (const int m : {1, 8, 9, 33, 64, 65}) {
    compare({.m = m, .n = 96, .k = 1024});
    compare({.m = m, .n = 272, .k = 640, .epilogue = LinearEpilogue::kSiluMul, .has_bias = true});
  }
  compare({.m = 17, .n = 96, .k = 1024, .epilogue = LinearEpilogue::kAdd});
  if (W::kGroupSize == 32) compare({.m = 19, .n = 33, .k = 96});  // a padded chunk
}

}  // namespace

TEST_CASE_TEMPLATE("warp group linear on Cuda is Host's, Half activations",
                   W,
                   LMD_WEIGHTS_OF_HALF) {
  if (has_layer()) compare_all_tiles<Layer, W, Half>();
}

TEST_CASE_TEMPLATE("warp group linear on Cuda is Host's, BFloat16 activations",
                   W,
                   LMD_WEIGHTS_OF_BFLOAT16) {
  if (has_layer()) compare_all_tiles<Layer, W, BFloat16>();
}

TEST_CASE_TEMPLATE("warp group linear normalises its input, Half activations",
                   W,
                   LMD_WEIGHTS_OF_HALF) {
  if (has_layer()) compare_normalised<W, Half>();
}

TEST_CASE_TEMPLATE("warp group linear normalises its input, BFloat16 activations",
                   W,
                   LMD_WEIGHTS_OF_BFLOAT16) {
  if (has_layer()) compare_normalised<W, BFloat16>();
}

TEST_CASE_TEMPLATE("warp group linear normalises rows of any size and length", T, Half, BFloat16) {
  if (!has_layer()) return;
  using W = quant::WeightInt4<128>;
  unsigned seed = 1;
  for (const float size : {1e-3f, 1.0f, 1e3f}) {
    CAPTURE(size);
    for (const int k : {4096, 18944}) {  // a thread has one piece of 32 columns of a row, or two
      compare_tiles<Layer, W, T>({.m = 5,
                                  .n = 48,
                                  .k = k,
                                  .has_norm = true,
                                  .x_size = size,
                                  .norm_eps = 0.01f * size * size,
                                  .x_padding = 0},
                                 seed++);
    }
  }
}

TEST_CASE("warp group linear refuses rows to normalise that are apart") {
  using P = FragmentPolicy<quant::WeightInt4<128>, Half>;
  const float norm = 1.0f;
  CHECK(warpgroup_linear<P>(Cuda{},
                            {.m = 9, .n = 16, .k = 128, .x_stride = 136, .norm_weight = &norm},
                            {}) == cudaErrorInvalidValue);
}

TEST_CASE("warp group linear of no tokens asks no device") {
  using P = FragmentPolicy<quant::WeightInt4<128>, Half>;
  CHECK(warpgroup_linear<P>(Cuda{}, {.m = 0, .n = 16, .k = 128}, {}) == cudaSuccess);
}

TEST_CASE("warp group linear: long sums, many blocks for each tile") {
  if (has_layer()) compare_long_sums<Layer>();
}

TEST_CASE("warp group linear: unrounded outputs are those that are rounded elsewhere") {
  if (has_layer()) compare_unrounded<Layer>();
}

TEST_CASE("warp group linear: a token's sums are the same bits in any batch") {
  if (has_layer()) compare_batches<Layer>();
}

TEST_CASE_TEMPLATE("small: warp group linear on Cuda is Host's", W, LMD_WEIGHTS_OF_HALF) {
  if (!has_layer()) return;
  compare_few_tiles<Layer, W, Half>();
  compare_tiles<Layer, W, Half>({.m = 9, .n = 96, .k = 1024, .has_norm = true, .x_padding = 0}, 41);
}
