/// \file  Linear layers whose blocks hold x against Host on the same stored bytes, by every tuning.
// SPDX-License-Identifier: Apache-2.0
#include <lmd/kernels/linear/resident.cuh>

#include "kernels/linear/tile_case.cuh"
#include "oracle/skip.hpp"
#include <doctest/doctest.h>

using namespace lmd;
using namespace lmd::kernels;

namespace {

/// By clusters of `Cluster` blocks, or as the layer would have it.
template <int Cluster, int BlocksPerSm>
struct Layer {
  static constexpr bool kRoundsWeights = false;
  static std::int64_t scratch_bytes(int) { return 256; }
  template <LinearPolicy P>
  static cudaError_t run(Cuda ctx,
                         const BasicLinearArgs<typename P::Act>& a,
                         const LinearWorkspace&) {
    bool is_launched = false;
    const auto launch = [&]<int TokenGroups>() {
      using S = detail::Resident<P, TokenGroups, 8>;
      return Cluster == 0 ? try_resident_linear<P>(ctx, a, &is_launched)
                          : detail::launch_resident<S>(ctx, a, Cluster, BlocksPerSm, &is_launched);
    };
    const cudaError_t error =
        a.m <= 8 ? launch.template operator()<1>() : launch.template operator()<2>();
    REQUIRE(is_launched);
    return error;
  }
};

bool has_layer() {
  if (!has_gpu()) return false;
  using S = detail::Resident<FragmentPolicy<quant::WeightInt4<128>, Half>, 1, 8>;
  Arch arch;
  LMD_CUDA_TRY(code_arch(&detail::resident_linear_kernel<S, false>, &arch));
  if (!arch.has_clusters()) test::skip("clusters", "built for an older architecture");
  return arch.has_clusters();
}

template <class L, class W, class T>
void compare_resident() {
  constexpr int kChunk = quant::FragmentWeights<W>::kChunkColumns;
  unsigned seed = 1;
  const auto compare = [&](const LinearCase& c) { compare_tiles<L, W, T>(c, seed++); };
  for (const int m : {1, 7, 8, 9, 15, 16})
    compare({.m = m, .n = 264, .k = kChunk * 9});
  for (const int n : {1, 15, 16, 17, 127, 128, 129})
    compare({.m = 9, .n = n, .k = kChunk * 3});
  for (const int m : {3, 16}) {
    compare({.m = m, .n = 96, .k = kChunk, .epilogue = LinearEpilogue::kAdd, .has_bias = true});
    compare({.m = m,
             .n = 272,
             .k = kChunk * 5,
             .epilogue = LinearEpilogue::kSiluMul,
             .has_norm = true,
             .has_bias = true,
             .x_padding = 0});
    compare({.m = m, .n = 17, .k = kChunk * 8, .has_norm = true, .x_padding = 0});
  }
  if (W::kGroupSize == 32) compare({.m = 9, .n = 33, .k = 96});  // a padded chunk
}

}  // namespace

TEST_CASE_TEMPLATE("resident linear on Cuda is Host's, Half activations", W, LMD_WEIGHTS_OF_HALF) {
  if (has_layer()) compare_resident<Layer<0, 0>, W, Half>();
}

TEST_CASE_TEMPLATE("resident linear on Cuda is Host's, BFloat16 activations",
                   W,
                   LMD_WEIGHTS_OF_BFLOAT16) {
  if (has_layer()) compare_resident<Layer<0, 0>, W, BFloat16>();
}

TEST_CASE("resident linear: clusters of any size, one block on a multiprocessor or two") {
  if (!has_layer()) return;
  using W = quant::WeightInt4<128>;
  compare_resident<Layer<1, 1>, W, Half>();
  compare_resident<Layer<2, 2>, W, Half>();
  compare_resident<Layer<4, 1>, W, Half>();
  compare_resident<Layer<8, 2>, W, Half>();
}

TEST_CASE("resident linear: long sums, and many passes") {
  if (!has_layer()) return;
  using W = quant::WeightInt4<128>;
  using L = Layer<0, 0>;
  compare_tiles<L, W, Half>({.m = 16, .n = 512, .k = 14336}, 1);
  compare_tiles<L, W, Half>({.m = 8, .n = 512, .k = 14336, .epilogue = LinearEpilogue::kAdd}, 2);
  compare_tiles<L, W, Half>({.m = 9, .n = 17'400, .k = 384}, 3);
}

TEST_CASE_TEMPLATE("resident linear normalises rows of any size", T, Half, BFloat16) {
  if (!has_layer()) return;
  for (const float size : {1e-3f, 1.0f, 1e3f}) {
    CAPTURE(size);
    for (const int m : {5, 13}) {
      compare_tiles<Layer<0, 0>, quant::WeightInt4<128>, T>({.m = m,
                                                             .n = 48,
                                                             .k = 4096,
                                                             .has_norm = true,
                                                             .x_size = size,
                                                             .norm_eps = 0.01f * size * size,
                                                             .x_padding = 0},
                                                            7);
    }
  }
}

TEST_CASE("resident linear leaves what it has no room for") {
  if (!has_layer()) return;
  using P = FragmentPolicy<quant::WeightInt4<128>, Half>;
  bool is_launched = true;
  CHECK(try_resident_linear<P>(Cuda{}, {.m = 17, .n = 16, .k = 128, .x_stride = 128},
                               &is_launched) == cudaSuccess);
  CHECK(!is_launched);
  is_launched = true;
  CHECK(try_resident_linear<P>(Cuda{}, {.m = 16, .n = 16, .k = 1 << 17, .x_stride = 1 << 17},
                               &is_launched) == cudaSuccess);
  CHECK(!is_launched);
  CHECK(try_resident_linear<P>(Cuda{}, {.m = 9, .n = 16, .k = 12, .x_stride = 12}, &is_launched) ==
        cudaErrorInvalidValue);
}

TEST_CASE_TEMPLATE("small: resident linear on Cuda is Host's", W, LMD_WEIGHTS_OF_HALF) {
  if (!has_layer()) return;
  constexpr int kChunk = quant::FragmentWeights<W>::kChunkColumns;
  compare_tiles<Layer<0, 0>, W, Half>(
      {.m = 5, .n = 48, .k = kChunk * 9, .has_norm = true, .x_padding = 0}, 1);
  compare_tiles<Layer<2, 1>, W, Half>(
      {.m = 16, .n = 33, .k = kChunk * 3, .epilogue = LinearEpilogue::kAdd}, 2);
}
