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

}  // namespace

TEST_CASE_TEMPLATE("warp group linear on Cuda is Host's, Half activations",
                   W,
                   quant::WeightHalf,
                   quant::WeightInt4<32>,
                   quant::WeightInt4<64>,
                   quant::WeightInt4<128>,
                   quant::WeightAffine4<32>,
                   quant::WeightInt8<32>) {
  if (has_layer()) compare_all_tiles<Layer, W, Half>();
}

TEST_CASE_TEMPLATE("warp group linear on Cuda is Host's, BFloat16 activations",
                   W,
                   quant::WeightBFloat16,
                   quant::WeightInt4<128>,
                   quant::WeightAffine4<32>,
                   quant::WeightInt8<32>) {
  if (has_layer()) compare_all_tiles<Layer, W, BFloat16>();
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
