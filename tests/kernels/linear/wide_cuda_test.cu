/// \file  Decoded weights, linear layers for hundreds of tokens and the choice of a kernel on Cuda,
///        against Host on the same stored bytes.
// SPDX-License-Identifier: Apache-2.0
#include <lmd/kernels/linear/linear_cuda.cuh>

#include "gpu.cuh"
#include "kernels/linear/linear_case.cuh"
#include <doctest/doctest.h>

using namespace lmd;
using namespace lmd::kernels;

namespace {

constexpr std::int64_t kDenseBytes = std::int64_t{32} << 20;

template <class W, class T>
void unpack_exactly(int n, int k, unsigned seed) {
  CAPTURE(W::kName);
  CAPTURE(n);
  CAPTURE(k);
  std::mt19937 rng(seed);
  const RandomRows<W> weights(n, k, rng);
  const std::vector<std::uint8_t> stream = weights.fragments();
  constexpr int kGuard = 64;
  std::vector<T> expected(std::size_t(n) * k + kGuard, T{0x5a5a});
  for (int j = 0; j < n; ++j) {
    for (int l = 0; l < k; ++l)
      expected[std::size_t(j) * k + l] = from_float<T>(weights.rows().weight(j, l));
  }
  DeviceBuffer<std::uint8_t> device_stream(stream.size());
  DeviceBuffer<T> rows(expected.size());
  device_stream.copy_from(stream);
  rows.fill_bytes(0x5a);
  REQUIRE(unpack_rows<FragmentPolicy<W, T>>(Cuda{}, device_stream.data(), n, k, rows.data()) ==
          cudaSuccess);
  std::vector<T> found(expected.size());
  rows.copy_to(found);
  int wrong = 0;
  for (std::size_t i = 0; i < found.size(); ++i) {
    if (found[i].bits == expected[i].bits) continue;
    if (++wrong <= 3) MESSAGE("at ", i, ": ", to_float(found[i]), " for ", to_float(expected[i]));
  }
  CHECK(wrong == 0);
}

template <Activation T>
using Layer = cudaError_t (*)(Cuda, const BasicLinearArgs<T>&, const LinearWorkspace&);

/// Runs the case by `layer` and compares.
template <class W, class T>
void compare(Layer<T> layer, const LinearCase& c, unsigned seed) {
  CAPTURE(W::kName);
  CAPTURE(c.name());
  CAPTURE(seed);
  LinearCase contiguous = c;
  if (c.has_norm) contiguous.x_padding = 0;
  LinearOperands<W, T> operands(contiguous, seed);
  Cuda ctx = least_device();
  LMD_CUDA_TRY(multiprocessors(ctx, &ctx.multiprocessors));
  DeviceBuffer<float> parts(tile_part_elements(ctx.multiprocessors));
  DeviceBuffer<int> counters(tile_counters(c.n));
  counters.fill_bytes(0);
  DeviceBuffer<std::uint8_t> scratch(
      std::max({linear_scratch_bytes(c.m, c.n, c.k), warpgroup_scratch_bytes(c.k),
                panel_scratch_bytes(c.m, c.k)}));
  DeviceBuffer<std::uint8_t> dense_memory(kDenseBytes);
  LMD_CUDA_TRY(cudaDeviceSynchronize());
  DenseGemm dense(dense_memory.data(), kDenseBytes);
  const LinearWorkspace workspace{.parts = parts.data(),
                                  .counters = counters.data(),
                                  .scratch = scratch.data(),
                                  .scratch_bytes = scratch.size(),
                                  .dense = &dense};
  const std::vector<T> found =
      operands.run([&](const BasicLinearArgs<T>& a) { return layer(ctx, a, workspace); });
  operands.check(found, {.weights = true, .product = true});
}

template <class W, class T>
void compare_all() {
  unsigned seed = 1;
  for (const int m : {70, 130}) {
    for (const LinearEpilogue epilogue :
         {LinearEpilogue::kStore, LinearEpilogue::kAdd, LinearEpilogue::kSiluMul}) {
      for (const bool has_extras : {false, true}) {
        compare<W, T>(&wide_linear<FragmentPolicy<W, T>>,
                      {.m = m,
                       .n = 272,
                       .k = 640,
                       .epilogue = epilogue,
                       .has_norm = has_extras,
                       .has_bias = has_extras},
                      seed++);
      }
    }
  }
}

}  // namespace

TEST_CASE_TEMPLATE("unpack_rows is W::decode rounded, Half", W, LMD_WEIGHTS_OF_HALF) {
  if (!has_gpu()) return;
  constexpr int kChunk = quant::FragmentWeights<W>::kChunkColumns;
  for (const int n : {1, 8, 9, 16, 33, 300})
    unpack_exactly<W, Half>(n, kChunk * 3, static_cast<unsigned>(n));
  if (W::kGroupSize == 32) unpack_exactly<W, Half>(17, 96, 7);  // a padded chunk
}

TEST_CASE_TEMPLATE("unpack_rows is W::decode rounded, BFloat16", W, LMD_WEIGHTS_OF_BFLOAT16) {
  if (!has_gpu()) return;
  constexpr int kChunk = quant::FragmentWeights<W>::kChunkColumns;
  for (const int n : {1, 33, 300})
    unpack_exactly<W, BFloat16>(n, kChunk * 3, static_cast<unsigned>(n));
  if (W::kGroupSize == 32) unpack_exactly<W, BFloat16>(17, 96, 7);  // a padded chunk
}

TEST_CASE_TEMPLATE("wide linear on Cuda is Host's, Half activations", W, LMD_WEIGHTS_OF_HALF) {
  if (!has_gpu()) return;
  compare_all<W, Half>();
}

TEST_CASE_TEMPLATE("wide linear on Cuda is Host's, BFloat16 activations",
                   W,
                   LMD_WEIGHTS_OF_BFLOAT16) {
  if (!has_gpu()) return;
  compare_all<W, BFloat16>();
}

TEST_CASE("linear on Cuda, any number of tokens") {
  if (!has_gpu()) return;
  using W = quant::WeightInt4<128>;
  const Layer<Half> layer = &linear<FragmentPolicy<W, Half>>;
  unsigned seed = 1;
  for (const int m : {1, 4, 5, 8, 9, 16, 17, 64, 65, 128, 129, 384, 385}) {
    compare<W, Half>(layer, {.m = m, .n = 272, .k = 640}, seed++);
    compare<W, Half>(layer, {.m = m, .n = 288, .k = 640, .y_padding = 0}, seed++);
    compare<W, Half>(layer,
                     {.m = m,
                      .n = 272,
                      .k = 640,
                      .epilogue = LinearEpilogue::kSiluMul,
                      .has_norm = true,
                      .has_bias = true},
                     seed++);
  }
}

TEST_CASE_TEMPLATE("linear on Cuda of no tokens is nothing to do",
                   P,
                   FragmentPolicy<quant::WeightInt4<128>, Half>,
                   FragmentPolicy<quant::WeightBFloat16, BFloat16>) {
  const float norm = 1.0f;
  for (const float* weight : {static_cast<const float*>(nullptr), &norm}) {
    const BasicLinearArgs<typename P::Act> a{
        .m = 0, .n = 16, .k = 128, .x_stride = 128, .norm_weight = weight};
    CHECK(linear<P>(Cuda{}, a, {}) == cudaSuccess);
    CHECK(batch_invariant_linear<P>(Cuda{}, a, {}) == cudaSuccess);
    if (!has_gpu()) continue;
    DenseGemm dense(nullptr, 0);
    DeviceBuffer<std::uint8_t> scratch(linear_scratch_bytes(a.m, a.n, a.k));
    CHECK(wide_linear<P>(
              Cuda{}, a,
              {.scratch = scratch.data(), .scratch_bytes = scratch.size(), .dense = &dense}) ==
          cudaSuccess);
  }
}

TEST_CASE("wide linear refuses too little scratch") {
  if (!has_gpu()) return;
  using P = FragmentPolicy<quant::WeightInt4<128>, Half>;
  DenseGemm dense(nullptr, 0);
  CHECK(wide_linear<P>(Cuda{}, {.m = 9, .n = 16, .k = 128}, {.dense = &dense}) ==
        cudaErrorInvalidValue);
}

TEST_CASE_TEMPLATE("small: wide linear on Cuda is Host's", W, LMD_WEIGHTS_OF_HALF) {
  if (!has_gpu()) return;
  unpack_exactly<W, Half>(33, quant::FragmentWeights<W>::kChunkColumns * 2, 61);
  compare<W, Half>(&wide_linear<FragmentPolicy<W, Half>>,
                   {.m = 70,
                    .n = 96,
                    .k = 640,
                    .epilogue = LinearEpilogue::kSiluMul,
                    .has_norm = true,
                    .has_bias = true},
                   62);
}
