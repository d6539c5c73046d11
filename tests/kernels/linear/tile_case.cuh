/// \file  What tile_linear and warpgroup_linear are both tested by. A `Layer` is one of them.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/kernels/linear/tile.cuh>

#include <cstring>

#include "gpu.cuh"
#include "kernels/linear/linear_case.cuh"

namespace lmd::kernels {

/// The workspace, between guards that no launch may touch.
struct TileWorkspace {
  static constexpr std::int64_t kGuard = 256;
  std::int64_t n_parts;
  std::int64_t n_counters;
  DeviceBuffer<float> parts;
  DeviceBuffer<int> counters;
  DeviceBuffer<std::uint8_t> scratch;

  TileWorkspace(int sms, int n, std::int64_t scratch_bytes)
      : n_parts(tile_part_elements(sms)),
        n_counters(tile_counters(n)),
        parts(n_parts + kGuard),
        counters(n_counters + kGuard),
        scratch(scratch_bytes) {
    scratch.fill_bytes(0xff);
    parts.fill_bytes(0xff);  // not a number: a part that is read must have been written
    counters.fill_bytes(0);
  }
  [[nodiscard]] LinearWorkspace view() {
    return {.parts = parts.data(),
            .counters = counters.data(),
            .scratch = scratch.data(),
            .scratch_bytes = scratch.size()};
  }
  void check() const {
    std::vector<int> counts(counters.size());
    counters.copy_to(counts);
    int wrong = 0;
    for (const int count : counts)
      wrong += count != 0;
    CHECK(wrong == 0);
    std::vector<std::uint32_t> guard(kGuard);
    LMD_CUDA_TRY(cudaMemcpy(guard.data(), parts.data() + n_parts, kGuard * 4, cudaMemcpyDefault));
    for (const std::uint32_t word : guard)
      wrong += word != 0xffffffffu;
    CHECK(wrong == 0);
  }
};

/// Runs the case on Host and twice on Cuda, over the same bytes, and compares.
template <class Layer, class W, class T>
void compare_tiles(const LinearCase& c, unsigned seed) {
  CAPTURE(W::kName);
  CAPTURE(c.name());
  CAPTURE(seed);
  using P = FragmentPolicy<W, T>;
  LinearOperands<W, T> operands(c, seed);
  Cuda ctx = least_device();
  LMD_CUDA_TRY(multiprocessors(ctx, &ctx.multiprocessors));
  TileWorkspace workspace(ctx.multiprocessors, c.n, Layer::scratch_bytes(c.k));
  const auto launch = [&](const BasicLinearArgs<T>& a) {
    return Layer::template run<P>(ctx, a, workspace.view());
  };
  const std::vector<T> found = operands.run(launch);
  const std::vector<T> again = operands.run(launch);
  CHECK(std::memcmp(found.data(), again.data(), found.size() * sizeof(T)) == 0);
  workspace.check();
  operands.check(found, {.weights = Layer::kRoundsWeights});
}

template <class Layer, class W, class T>
void compare_all_tiles() {
  constexpr int kChunk = quant::FragmentWeights<W>::kChunkColumns;
  unsigned seed = 1;
  for (const int m : {1, 8, 9, 15, 16, 17, 31, 32, 33, 63, 64, 65, 100})
    compare_tiles<Layer, W, T>({.m = m, .n = 264, .k = kChunk * 3}, seed++);
  for (const int n : {1, 15, 16, 17, 255, 256, 257})
    compare_tiles<Layer, W, T>({.m = 17, .n = n, .k = kChunk}, seed++);
  for (const int chunks : {3, 9, 17, 33})  // several blocks share a tile
    compare_tiles<Layer, W, T>({.m = 33, .n = 300, .k = kChunk * chunks}, seed++);
  compare_tiles<Layer, W, T>({.m = 9, .n = 40 * 256 + 16, .k = kChunk * 15},
                             seed++);  // whole tiles in a run
  compare_tiles<Layer, W, T>({.m = 8, .n = 17'400, .k = kChunk * 5},
                             seed++);  // more tiles of 128 than blocks
  for (const int m : {5, 20, 64}) {
    compare_tiles<Layer, W, T>({.m = m, .n = 96, .k = 1024, .has_bias = true}, seed++);
    compare_tiles<Layer, W, T>({.m = m, .n = 96, .k = 1024, .epilogue = LinearEpilogue::kAdd},
                               seed++);
    compare_tiles<Layer, W, T>(
        {.m = m, .n = 272, .k = 1024, .epilogue = LinearEpilogue::kSiluMul, .has_bias = true},
        seed++);
    compare_tiles<Layer, W, T>(
        {.m = m, .n = 528, .k = kChunk, .epilogue = LinearEpilogue::kSiluMul}, seed++);
  }
  if (W::kGroupSize == 32)
    compare_tiles<Layer, W, T>({.m = 19, .n = 33, .k = 96}, seed++);  // a padded chunk
  if (W::kGroupSize == 0) compare_tiles<Layer, W, T>({.m = 19, .n = 33, .k = 1032}, seed++);
}

/// The kernel's ways in a few small shapes.
template <class Layer, class W, class T>
void compare_few_tiles() {
  constexpr int kChunk = quant::FragmentWeights<W>::kChunkColumns;
  compare_tiles<Layer, W, T>({.m = 9, .n = 264, .k = kChunk, .has_bias = true}, 51);
  compare_tiles<Layer, W, T>({.m = 65, .n = 96, .k = 1024, .epilogue = LinearEpilogue::kAdd}, 52);
  compare_tiles<Layer, W, T>({.m = 17, .n = 272, .k = 1024, .epilogue = LinearEpilogue::kSiluMul},
                             53);
  compare_tiles<Layer, W, T>({.m = 8, .n = 300, .k = kChunk * 9}, 54);  // blocks share a tile
}

/// Long sums, many blocks for each tile.
template <class Layer>
void compare_long_sums() {
  using W = quant::WeightInt4<128>;
  compare_tiles<Layer, W, Half>({.m = 64, .n = 512, .k = 14336}, 1);
  compare_tiles<Layer, W, Half>({.m = 16, .n = 4096, .k = 4096, .epilogue = LinearEpilogue::kAdd},
                                2);
  compare_tiles<Layer, W, Half>({.m = 9, .n = 48, .k = 18944}, 3);  // slices end behind k
}

/// A layer of random 4-bit rows, and m random activations, on the device.
template <class Layer>
struct DeviceLayer {
  using P = FragmentPolicy<quant::WeightInt4<128>, Half>;
  int m, n, k;
  DeviceBuffer<Half> x;
  DeviceBuffer<std::uint8_t> stream;
  TileWorkspace workspace;

  DeviceLayer(int tokens, int outputs, int inputs, unsigned seed)
      : m(tokens), n(outputs), k(inputs), x(m * k), workspace(sms(), n, Layer::scratch_bytes(k)) {
    std::mt19937 rng(seed);
    std::normal_distribution<float> normal;
    const std::vector<std::uint8_t> rows =
        RandomRows<quant::WeightInt4<128>>(n, k, rng).fragments();
    stream = DeviceBuffer<std::uint8_t>(static_cast<std::int64_t>(rows.size()));
    stream.copy_from(rows);
    std::vector<Half> values(static_cast<std::size_t>(m) * k);
    for (auto& v : values)
      v = to_half(normal(rng));
    x.copy_from(values);
  }
  static int sms() {
    int count = 0;
    LMD_CUDA_TRY(multiprocessors(Cuda{}, &count));
    return count;
  }

  /// The first `tokens` activations -> y, or unrounded.
  void run(int tokens, Half* y, float* y_f32) {
    const Cuda ctx{.multiprocessors = sms()};
    REQUIRE(Layer::template run<P>(ctx,
                                   {.y = y,
                                    .y_f32 = y_f32,
                                    .x = x.data(),
                                    .codes = stream.data(),
                                    .m = tokens,
                                    .n = n,
                                    .k = k,
                                    .x_stride = k,
                                    .y_stride = n},
                                   workspace.view()) == cudaSuccess);
  }
};

/// Unrounded outputs are those that are rounded elsewhere.
template <class Layer>
void compare_unrounded() {
  DeviceLayer<Layer> layer(70, 300, 1280, 1);
  const int n = layer.m * layer.n;
  DeviceBuffer<Half> y(n);
  DeviceBuffer<float> y_f32(n);
  layer.run(layer.m, y.data(), nullptr);
  layer.run(layer.m, nullptr, y_f32.data());
  std::vector<Half> rounded(n);
  std::vector<float> unrounded(n);
  y.copy_to(rounded);
  y_f32.copy_to(unrounded);
  int wrong = 0;
  for (std::size_t i = 0; i < rounded.size(); ++i)
    wrong += to_half(unrounded[i]).bits != rounded[i].bits;
  CHECK(wrong == 0);
}

/// A token's sums are the same bits in any batch.
template <class Layer>
void compare_batches() {
  DeviceLayer<Layer> layer(100, 528, 2560, 3);
  DeviceBuffer<float> y(layer.m * layer.n);
  std::vector<float> all(layer.m * layer.n);
  for (const int m : {100, 64, 33, 17, 9, 8, 1}) {
    CAPTURE(m);
    y.fill_bytes(0xff);
    layer.run(m, nullptr, y.data());
    std::vector<float> found(all.size());
    y.copy_to(found);
    if (m == layer.m) all = found;
    CHECK(std::memcmp(found.data(), all.data(), std::size_t(m) * layer.n * sizeof(float)) == 0);
  }
}

}  // namespace lmd::kernels
