/// \file  Linear layers by mma.sync, weights read once for up to 64 tokens, against Host on the same stored bytes.
// SPDX-License-Identifier: Apache-2.0
#include <lmd/kernels/linear/tile.cuh>

#include "kernels/linear/tile_case.cuh"
#include <doctest/doctest.h>

using namespace lmd;
using namespace lmd::kernels;

namespace {

struct Layer {
  static constexpr bool kRoundsWeights = false;
  static std::int64_t scratch_bytes(int) { return 0; }
  template <LinearPolicy P>
  static cudaError_t run(Cuda ctx,
                         const BasicLinearArgs<typename P::Act>& a,
                         const LinearWorkspace& workspace) {
    return tile_linear<P>(ctx, a, workspace);
  }
};

}  // namespace

TEST_CASE_TEMPLATE("tile linear on Cuda is Host's, Half activations", W, LMD_WEIGHTS_OF_HALF) {
  if (has_gpu()) compare_all_tiles<Layer, W, Half>();
}

TEST_CASE_TEMPLATE("tile linear on Cuda is Host's, BFloat16 activations",
                   W,
                   LMD_WEIGHTS_OF_BFLOAT16) {
  if (has_gpu()) compare_all_tiles<Layer, W, BFloat16>();
}

TEST_CASE("tile linear: long sums, many blocks for each tile") {
  if (has_gpu()) compare_long_sums<Layer>();
}

TEST_CASE("tile linear: unrounded outputs are those that are rounded elsewhere") {
  if (has_gpu()) compare_unrounded<Layer>();
}

TEST_CASE("tile linear: a token's sums are the same bits in any batch") {
  if (has_gpu()) compare_batches<Layer>();
}

TEST_CASE("tile linear refuses shapes it cannot read") {
  using P = FragmentPolicy<quant::WeightInt4<128>, Half>;
  const float norm = 1.0f;
  CHECK(tile_linear<P>(Cuda{}, {.m = 9, .n = 16, .k = 100}, {}) == cudaErrorInvalidValue);
  CHECK(tile_linear<P>(Cuda{}, {.m = 9, .n = 0, .k = 128}, {}) == cudaErrorInvalidValue);
  CHECK(tile_linear<P>(Cuda{}, {.m = 9, .n = 16, .k = 128, .norm_weight = &norm}, {}) ==
        cudaErrorInvalidValue);
  CHECK(tile_linear<P>(Cuda{}, {.m = -1, .n = 16, .k = 128}, {}) == cudaErrorInvalidValue);
  CHECK(tile_linear<P>(Cuda{}, {.m = 0, .n = 16, .k = 100}, {}) == cudaErrorInvalidValue);
}

TEST_CASE("tile linear of no tokens asks no device") {
  using P = FragmentPolicy<quant::WeightInt4<128>, Half>;
  CHECK(tile_linear<P>(Cuda{}, {.m = 0, .n = 16, .k = 128}, {}) == cudaSuccess);
}

TEST_CASE_TEMPLATE("small: tile linear on Cuda is Host's", W, LMD_WEIGHTS_OF_HALF) {
  if (has_gpu()) compare_few_tiles<Layer, W, Half>();
}
