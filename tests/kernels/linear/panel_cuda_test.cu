/// \file  Linear layers by panels of tokens against Host on the same stored bytes, by every tuning.
// SPDX-License-Identifier: Apache-2.0
#include <lmd/kernels/linear/panel.cuh>

#include "kernels/linear/tile_case.cuh"
#include "oracle/skip.hpp"
#include <doctest/doctest.h>

using namespace lmd;
using namespace lmd::kernels;

namespace {

/// By so many slices of k in a block and blocks in a cluster, or as the layer would have it.
template <int Slices, int Cluster>
struct Layer {
  static constexpr bool kRoundsWeights = true;
  static std::int64_t scratch_bytes(int k) { return panel_scratch_bytes(300, k); }
  template <LinearPolicy P>
  static cudaError_t run(Cuda ctx,
                         const BasicLinearArgs<typename P::Act>& a,
                         const LinearWorkspace& workspace) {
    bool is_launched = false;
    cudaError_t error = cudaSuccess;
    if constexpr (Cluster == 0) {
      error = try_panel_linear<P>(ctx, a, workspace, &is_launched);
    } else {
      using S = detail::Panels<P, 16, Slices>;
      error = detail::launch_panels<S>(ctx, a, workspace, Cluster, &is_launched);
    }
    REQUIRE(is_launched);
    return error;
  }
};

bool has_layer() {
  if (!has_gpu()) return false;
  const bool is_there = has_warpgroup_linear<FragmentPolicy<quant::WeightInt4<128>, Half>>();
  if (!is_there) test::skip("products of warp groups", "built for another architecture");
  return is_there;
}

template <class L, class W, class T>
void compare_panels() {
  constexpr int kChunk = quant::FragmentWeights<W>::kChunkColumns;
  unsigned seed = 1;
  const auto compare = [&](const LinearCase& c) { compare_tiles<L, W, T>(c, seed++); };
  for (const int m : {1, 127, 128, 129})
    compare({.m = m, .n = 288, .k = kChunk * 8, .y_padding = 8});
  for (const int n : {32, 224, 256})
    compare({.m = 9, .n = n, .k = kChunk * 8, .y_padding = 0});
  for (const int m : {3, 135}) {
    compare({.m = m,
             .n = 96,
             .k = kChunk * 9,
             .epilogue = LinearEpilogue::kAdd,
             .has_bias = true,
             .y_padding = 16});
    compare({.m = m,
             .n = 160,
             .k = kChunk * 8,
             .epilogue = LinearEpilogue::kSiluMul,
             .has_norm = true,
             .has_bias = true,
             .x_padding = 0,
             .y_padding = 8});
  }
  if (W::kGroupSize == 32) compare({.m = 9, .n = 32, .k = 96, .y_padding = 0});  // a padded chunk
}

}  // namespace

TEST_CASE_TEMPLATE("panel linear on Cuda is Host's, Half activations", W, LMD_WEIGHTS_OF_HALF) {
  if (has_layer()) compare_panels<Layer<0, 0>, W, Half>();
}

TEST_CASE_TEMPLATE("panel linear on Cuda is Host's, BFloat16 activations",
                   W,
                   LMD_WEIGHTS_OF_BFLOAT16) {
  if (has_layer()) compare_panels<Layer<0, 0>, W, BFloat16>();
}

TEST_CASE("panel linear: tiles of any size, k shared out in blocks and clusters") {
  if (!has_layer()) return;
  using W = quant::WeightInt4<128>;
  compare_panels<Layer<1, 1>, W, Half>();
  compare_panels<Layer<1, 4>, W, Half>();
  compare_panels<Layer<2, 1>, W, Half>();
  compare_panels<Layer<2, 3>, W, Half>();
}

TEST_CASE("panel linear: blocks with several pieces of work, and rows of several parts") {
  if (!has_layer()) return;
  using W = quant::WeightInt4<128>;
  compare_tiles<Layer<0, 0>, W, Half>({.m = 129, .n = 20'480, .k = 128, .y_padding = 0}, 1);
  compare_tiles<Layer<0, 0>, W, Half>(
      {.m = 70, .n = 96, .k = 5120, .has_norm = true, .x_padding = 0, .y_padding = 0}, 2);
  compare_tiles<Layer<0, 0>, W, Half>({.m = 130, .n = 128, .k = 14336, .y_padding = 0}, 3);
}

TEST_CASE("panel linear leaves rows that are not whole units, and needs scratch") {
  using P = FragmentPolicy<quant::WeightInt4<128>, Half>;
  if (!has_layer()) return;
  bool is_launched = true;
  CHECK(try_panel_linear<P>(Cuda{}, {.m = 70, .n = 32, .k = 128, .x_stride = 128, .y_stride = 35},
                            {}, &is_launched) == cudaSuccess);
  CHECK(!is_launched);
  is_launched = true;
  CHECK(try_panel_linear<P>(Cuda{}, {.m = 70, .n = 32, .k = 128, .x_stride = 128, .y_stride = 32},
                            {}, &is_launched) == cudaSuccess);
  CHECK(!is_launched);
  CHECK(try_panel_linear<P>(Cuda{}, {.m = 70, .n = 32, .k = 12, .x_stride = 12, .y_stride = 32}, {},
                            &is_launched) == cudaErrorInvalidValue);
}

TEST_CASE_TEMPLATE("small: panel linear on Cuda is Host's", W, LMD_WEIGHTS_OF_HALF) {
  if (!has_layer()) return;
  constexpr int kChunk = quant::FragmentWeights<W>::kChunkColumns;
  compare_tiles<Layer<0, 0>, W, Half>({.m = 130, .n = 96, .k = kChunk * 9, .y_padding = 0}, 1);
  compare_tiles<Layer<2, 2>, W, Half>(
      {.m = 9, .n = 160, .k = kChunk * 8, .epilogue = LinearEpilogue::kAdd, .y_padding = 0}, 2);
}
