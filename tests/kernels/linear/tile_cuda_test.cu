/// \file  Linear layers for many tokens on Cuda against Host on the same stored bytes.
// SPDX-License-Identifier: Apache-2.0
#include <lmd/core/device_buffer.cuh>
#include <lmd/kernels/linear/tile.cuh>
#include <lmd/kernels/linear/warpgroup.cuh>

#include <cstring>

#include "gpu.cuh"
#include "kernels/linear/linear_case.hpp"
#include "oracle/skip.hpp"
#include <doctest/doctest.h>

using namespace lmd;
using namespace lmd::kernels;

namespace {

/// The two ways to multiply some tokens by weights that are read once.
struct TileLayer {
  static constexpr bool kRoundsWeights = false;
  template <LinearPolicy P>
  static cudaError_t run(Cuda ctx,
                         const BasicLinearArgs<typename P::Act>& a,
                         const LinearWorkspace& workspace) {
    return tile_linear<P>(ctx, a, workspace);
  }
};
struct WarpgroupLayer {
  static constexpr bool kRoundsWeights = true;
  template <LinearPolicy P>
  static cudaError_t run(Cuda ctx,
                         const BasicLinearArgs<typename P::Act>& a,
                         const LinearWorkspace& workspace) {
    return warpgroup_linear<P>(ctx, a, workspace);
  }
};

/// Whether the layer can run here; says so where it cannot.
template <class Layer>
bool has_layer() {
  if (!has_gpu()) return false;
  using P = FragmentPolicy<quant::WeightInt4<128>, Half>;
  const bool is_there = !Layer::kRoundsWeights || has_warpgroup_linear<P>();
  if (!is_there) test::skip("products of warp groups", "built for another architecture");
  return is_there;
}

struct Case {
  int m, n, k;
  LinearEpilogue epilogue = LinearEpilogue::kStore;
  bool has_bias = false;
};

/// Compares every output; what lies between rows must be untouched.
template <class Layer, class W, class T>
void count_wrong(const Case& c,
                 const RandomRows<W>& weights,
                 const BasicLinearArgs<T>& a,
                 const std::vector<T>& before,
                 const std::vector<T>& expected,
                 const std::vector<T>& found) {
  const bool is_gated = c.epilogue == LinearEpilogue::kSiluMul;
  const int n_out = is_gated ? c.n / 2 : c.n;
  const auto y_stride = static_cast<int>(a.y_stride);
  int wrong = 0;
  for (int i = 0; i < c.m; ++i) {
    const std::vector<float> row = kernels::detail::linear_input(a, i);
    for (int j = 0; j < y_stride; ++j) {
      const std::size_t at = std::size_t(i) * y_stride + j;
      if (j >= n_out) {
        wrong += found[at].bits != before[at].bits;
        continue;
      }
      const double e = to_float(expected[at]);
      const double f = to_float(found[at]);
      const double small = kUlp<T> * std::abs(e) + 1e-6;
      if (std::abs(f - e) <= small) continue;  // most: the magnitude is slow to compute
      double size = 0;
      if (is_gated) {
        // |d(silu(g) u)| <= 1.1 |u| |dg| + (|g| + 1) |du|, with |g|, |u| below their magnitudes
        const double g = magnitude<W>(weights.rows(), gate_row(j), row);
        const double u = magnitude<W>(weights.rows(), up_row(j), row);
        size = 4 * (g + 1) * (u + 1);
      } else {
        size = magnitude<W>(weights.rows(), j, row);
      }
      const double rounding = Layer::kRoundsWeights && W::kGroupSize > 0 ? kUlp<T> : 0.0;
      const double bound = small + size * (sum_error(c.k) + rounding);
      if (!(std::abs(f - e) <= bound)) {
        if (++wrong <= 3) MESSAGE("row ", i, " feature ", j, ": ", f, " for ", e, " +- ", bound);
      }
    }
  }
  CHECK(wrong == 0);
}

/// The workspace, between guards that no launch may touch.
struct Workspace {
  static constexpr std::int64_t kGuard = 256;
  std::int64_t n_parts;
  std::int64_t n_counters;
  DeviceBuffer<float> parts;
  DeviceBuffer<int> counters;
  DeviceBuffer<std::uint8_t> scratch;  // exactly what arranged activations take

  Workspace(int sms, int n, int k)
      : n_parts(tile_part_elements(sms)),
        n_counters(tile_counters(n)),
        parts(n_parts + kGuard),
        counters(n_counters + kGuard),
        scratch(warpgroup_scratch_bytes(k)) {
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
void compare(const Case& c, unsigned seed) {
  CAPTURE(W::kName);
  CAPTURE(c.m);
  CAPTURE(c.n);
  CAPTURE(c.k);
  CAPTURE(static_cast<int>(c.epilogue));
  CAPTURE(seed);
  using P = FragmentPolicy<W, T>;
  std::mt19937 rng(seed);
  std::normal_distribution<float> normal;
  const RandomRows<W> weights(c.n, c.k, rng);
  const std::vector<std::uint8_t> stream = weights.fragments();
  const int n_out = c.epilogue == LinearEpilogue::kSiluMul ? c.n / 2 : c.n;
  const int y_stride = n_out + 3;
  const int x_stride = c.k + 8;
  std::vector<T> x(std::size_t(c.m) * x_stride);
  for (auto& v : x)
    v = from_float<T>(normal(rng));
  std::vector<T> y(std::size_t(c.m) * y_stride);
  for (auto& v : y)
    v = from_float<T>(normal(rng));
  std::vector<float> bias(c.n);
  for (auto& v : bias)
    v = normal(rng);

  BasicLinearArgs<T> a{.x = x.data(),
                       .codes = stream.data(),
                       .bias = c.has_bias ? bias.data() : nullptr,
                       .m = c.m,
                       .n = c.n,
                       .k = c.k,
                       .x_stride = x_stride,
                       .y_stride = y_stride,
                       .epilogue = c.epilogue};
  std::vector<T> expected = y;
  a.y = expected.data();
  linear<P>(Host{}, a);

  DeviceBuffer<T> device_x(x.size());
  DeviceBuffer<T> device_y(y.size());
  DeviceBuffer<std::uint8_t> device_stream(stream.size());
  DeviceBuffer<float> device_bias(bias.size());
  device_x.copy_from(x);
  device_stream.copy_from(stream);
  device_bias.copy_from(bias);
  Cuda ctx = least_device();
  LMD_CUDA_TRY(multiprocessors(ctx, &ctx.multiprocessors));
  Workspace workspace(ctx.multiprocessors, c.n, c.k);
  BasicLinearArgs<T> d = a;
  d.y = device_y.data();
  d.x = device_x.data();
  d.codes = device_stream.data();
  if (c.has_bias) d.bias = device_bias.data();
  std::vector<T> found[2] = {std::vector<T>(y.size()), std::vector<T>(y.size())};
  for (auto& out : found) {
    device_y.copy_from(y);
    REQUIRE(Layer::template run<P>(ctx, d, workspace.view()) == cudaSuccess);
    device_y.copy_to(out);
  }
  CHECK(std::memcmp(found[0].data(), found[1].data(), y.size() * sizeof(T)) == 0);
  workspace.check();
  count_wrong<Layer, W, T>(c, weights, a, y, expected, found[0]);
}

template <class Layer, class W, class T>
void compare_all() {
  constexpr int kChunk = quant::FragmentWeights<W>::kChunkColumns;
  unsigned seed = 1;
  for (const int m : {1, 8, 9, 15, 16, 17, 31, 32, 33, 63, 64, 65, 100})
    compare<Layer, W, T>({.m = m, .n = 264, .k = kChunk * 3}, seed++);
  for (const int n : {1, 15, 16, 17, 255, 256, 257})
    compare<Layer, W, T>({.m = 17, .n = n, .k = kChunk}, seed++);
  for (const int chunks : {3, 9, 17, 33})  // several blocks share a tile
    compare<Layer, W, T>({.m = 33, .n = 300, .k = kChunk * chunks}, seed++);
  compare<Layer, W, T>({.m = 9, .n = 40 * 256 + 16, .k = kChunk * 15},
                       seed++);  // whole tiles in a run
  compare<Layer, W, T>({.m = 8, .n = 17'400, .k = kChunk * 5},
                       seed++);  // more tiles of 128 than blocks
  for (const int m : {5, 20, 64}) {
    compare<Layer, W, T>({.m = m, .n = 96, .k = 1024, .has_bias = true}, seed++);
    compare<Layer, W, T>({.m = m, .n = 96, .k = 1024, .epilogue = LinearEpilogue::kAdd}, seed++);
    compare<Layer, W, T>(
        {.m = m, .n = 272, .k = 1024, .epilogue = LinearEpilogue::kSiluMul, .has_bias = true},
        seed++);
    compare<Layer, W, T>({.m = m, .n = 528, .k = kChunk, .epilogue = LinearEpilogue::kSiluMul},
                         seed++);
  }
  if (W::kGroupSize == 32)
    compare<Layer, W, T>({.m = 19, .n = 33, .k = 96}, seed++);  // a padded chunk
  if (W::kGroupSize == 0) compare<Layer, W, T>({.m = 19, .n = 33, .k = 1032}, seed++);
}

}  // namespace

TEST_CASE_TEMPLATE("tile linear on Cuda is Host's, Half activations",
                   W,
                   quant::WeightHalf,
                   quant::WeightInt4<32>,
                   quant::WeightInt4<64>,
                   quant::WeightInt4<128>,
                   quant::WeightAffine4<32>,
                   quant::WeightInt8<32>) {
  if (has_layer<TileLayer>()) compare_all<TileLayer, W, Half>();
}

TEST_CASE_TEMPLATE("warp group linear on Cuda is Host's, Half activations",
                   W,
                   quant::WeightHalf,
                   quant::WeightInt4<32>,
                   quant::WeightInt4<64>,
                   quant::WeightInt4<128>,
                   quant::WeightAffine4<32>,
                   quant::WeightInt8<32>) {
  if (has_layer<WarpgroupLayer>()) compare_all<WarpgroupLayer, W, Half>();
}

TEST_CASE_TEMPLATE("warp group linear on Cuda is Host's, BFloat16 activations",
                   W,
                   quant::WeightBFloat16,
                   quant::WeightInt4<128>,
                   quant::WeightAffine4<32>,
                   quant::WeightInt8<32>) {
  if (has_layer<WarpgroupLayer>()) compare_all<WarpgroupLayer, W, BFloat16>();
}

TEST_CASE_TEMPLATE("tile linear on Cuda is Host's, BFloat16 activations",
                   W,
                   quant::WeightBFloat16,
                   quant::WeightInt4<32>,
                   quant::WeightInt4<64>,
                   quant::WeightInt4<128>,
                   quant::WeightAffine4<32>,
                   quant::WeightInt8<32>) {
  if (has_layer<TileLayer>()) compare_all<TileLayer, W, BFloat16>();
}

TEST_CASE_TEMPLATE("long sums, many blocks for each tile", Layer, TileLayer, WarpgroupLayer) {
  if (!has_layer<Layer>()) return;
  using W = quant::WeightInt4<128>;
  compare<Layer, W, Half>({.m = 64, .n = 512, .k = 14336}, 1);
  compare<Layer, W, Half>({.m = 16, .n = 4096, .k = 4096, .epilogue = LinearEpilogue::kAdd}, 2);
}

TEST_CASE_TEMPLATE("unrounded outputs are those that are rounded elsewhere",
                   Layer,
                   TileLayer,
                   WarpgroupLayer) {
  if (!has_layer<Layer>()) return;
  using W = quant::WeightInt4<128>;
  constexpr int kM = 70;
  constexpr int kN = 300;
  constexpr int kK = 1280;
  std::mt19937 rng(1);
  std::normal_distribution<float> normal;
  const std::vector<std::uint8_t> stream = RandomRows<W>(kN, kK, rng).fragments();
  std::vector<Half> x(kM * kK);
  for (auto& v : x)
    v = to_half(normal(rng));
  DeviceBuffer<Half> device_x(x.size());
  DeviceBuffer<Half> device_y(kM * kN);
  DeviceBuffer<float> device_y_f32(kM * kN);
  DeviceBuffer<std::uint8_t> device_stream(stream.size());
  device_x.copy_from(x);
  device_stream.copy_from(stream);
  Cuda ctx;
  LMD_CUDA_TRY(multiprocessors(ctx, &ctx.multiprocessors));
  Workspace workspace(ctx.multiprocessors, kN, kK);
  BasicLinearArgs<Half> a{.y = device_y.data(),
                          .x = device_x.data(),
                          .codes = device_stream.data(),
                          .m = kM,
                          .n = kN,
                          .k = kK,
                          .x_stride = kK,
                          .y_stride = kN};
  using P = FragmentPolicy<W, Half>;
  REQUIRE(Layer::template run<P>(ctx, a, workspace.view()) == cudaSuccess);
  a.y = nullptr;
  a.y_f32 = device_y_f32.data();
  REQUIRE(Layer::template run<P>(ctx, a, workspace.view()) == cudaSuccess);
  std::vector<Half> rounded(kM * kN);
  std::vector<float> unrounded(kM * kN);
  device_y.copy_to(rounded);
  device_y_f32.copy_to(unrounded);
  int wrong = 0;
  for (std::size_t i = 0; i < rounded.size(); ++i)
    wrong += to_half(unrounded[i]).bits != rounded[i].bits;
  CHECK(wrong == 0);
}

TEST_CASE_TEMPLATE("a token's sums are the same bits in any batch",
                   Layer,
                   TileLayer,
                   WarpgroupLayer) {
  if (!has_layer<Layer>()) return;
  using W = quant::WeightInt4<128>;
  using P = FragmentPolicy<W, Half>;
  constexpr int kM = 100;
  constexpr int kN = 528;
  constexpr int kK = 2560;
  std::mt19937 rng(3);
  std::normal_distribution<float> normal;
  const std::vector<std::uint8_t> stream = RandomRows<W>(kN, kK, rng).fragments();
  std::vector<Half> x(kM * kK);
  for (auto& v : x)
    v = to_half(normal(rng));
  DeviceBuffer<Half> device_x(x.size());
  DeviceBuffer<float> device_y(kM * kN);
  DeviceBuffer<std::uint8_t> device_stream(stream.size());
  device_x.copy_from(x);
  device_stream.copy_from(stream);
  Cuda ctx;
  LMD_CUDA_TRY(multiprocessors(ctx, &ctx.multiprocessors));
  Workspace workspace(ctx.multiprocessors, kN, kK);
  std::vector<float> all(kM * kN);
  for (const int m : {kM, 64, 33, 17, 9, 8, 1}) {
    CAPTURE(m);
    device_y.fill_bytes(0xff);
    REQUIRE(Layer::template run<P>(ctx,
                                   {.y_f32 = device_y.data(),
                                    .x = device_x.data(),
                                    .codes = device_stream.data(),
                                    .m = m,
                                    .n = kN,
                                    .k = kK,
                                    .x_stride = kK,
                                    .y_stride = kN},
                                   workspace.view()) == cudaSuccess);
    std::vector<float> found(kM * kN);
    device_y.copy_to(found);
    if (m == kM) all = found;
    CHECK(std::memcmp(found.data(), all.data(), std::size_t(m) * kN * sizeof(float)) == 0);
  }
}

TEST_CASE("tile linear refuses shapes it cannot read") {
  using P = FragmentPolicy<quant::WeightInt4<128>, Half>;
  const float norm = 1.0f;
  CHECK(tile_linear<P>(Cuda{}, {.m = 9, .n = 16, .k = 100}, {}) == cudaErrorInvalidValue);
  CHECK(tile_linear<P>(Cuda{}, {.m = 9, .n = 0, .k = 128}, {}) == cudaErrorInvalidValue);
  CHECK(tile_linear<P>(Cuda{}, {.m = 9, .n = 16, .k = 128, .norm_weight = &norm}, {}) ==
        cudaErrorInvalidValue);
}
