/// \file  Linear layers that keep the best of each 16 outputs, and the token that follows from them: on Cuda
///        the very keys of the logits that the same kernel stores.
// SPDX-License-Identifier: Apache-2.0
#include <lmd/kernels/linear/linear_cuda.cuh>
#include <lmd/kernels/sample/argmax.hpp>
#include <lmd/kernels/sample/best_tokens.cuh>

#include "gpu.cuh"
#include "kernels/linear/linear_case.cuh"
#include "oracle/device_guard.cuh"
#include <doctest/doctest.h>

using namespace lmd;
using namespace lmd::kernels;

namespace {

using P4 = FragmentPolicy<quant::WeightInt4<128>, Half>;
using PHalf = FragmentPolicy<quant::WeightHalf, Half>;
using PBFloat16 = FragmentPolicy<quant::WeightBFloat16, BFloat16>;

/// Keys of logits as Host leaves them.
std::vector<std::uint64_t> keys_of(const std::vector<float>& logits, int m, int n) {
  std::vector<std::uint64_t> keys(std::size_t(m) * best_parts(n), kNoKey);
  for (int i = 0; i < m; ++i) {
    for (int j = 0; j < n; ++j) {
      std::uint64_t& best = keys[std::size_t(i) * best_parts(n) + j / kBestFeatures];
      best = std::min(best, checked_rank_key(logits[std::size_t(i) * n + j], j));
    }
  }
  return keys;
}

template <LinearPolicy P>
using Layer = cudaError_t (*)(Cuda,
                              const BasicLinearArgs<typename P::Act>&,
                              const LinearWorkspace&);
template <LinearPolicy P>
using Operands = LinearOperands<typename P::Format, typename P::Act>;

template <LinearPolicy P>
cudaError_t by_skinny(Cuda ctx, const BasicLinearArgs<typename P::Act>& a, const LinearWorkspace&) {
  return skinny_linear<P>(ctx, a);
}

/// Runs `layer` twice, for logits and for keys. Returns the tokens.
template <LinearPolicy P>
std::vector<int> compare(Layer<P> layer, const LinearCase& c, Operands<P>& operands) {
  Cuda ctx = least_device();
  LMD_CUDA_TRY(multiprocessors(ctx, &ctx.multiprocessors));
  DeviceBuffer<float> parts(tile_part_elements(ctx.multiprocessors));
  DeviceBuffer<int> counters(tile_counters(c.n));
  counters.fill_bytes(0);
  DeviceBuffer<std::uint8_t> scratch(
      std::max(warpgroup_scratch_bytes(c.k), linear_scratch_bytes(c.m, c.n, c.k)));
  const LinearWorkspace workspace{.parts = parts.data(),
                                  .counters = counters.data(),
                                  .scratch = scratch.data(),
                                  .scratch_bytes = scratch.size()};
  test::GuardedDevice<float> device_logits(std::int64_t{c.m} * c.n);
  test::GuardedDevice<std::uint64_t> device_keys(std::int64_t{c.m} * best_parts(c.n));
  test::GuardedDevice<int> device_ids(c.m);
  BasicLinearArgs<typename P::Act> a = operands.args();
  a.y = nullptr;
  a.y_stride = c.n;
  a.y_f32 = device_logits.data();
  REQUIRE(layer(ctx, a, workspace) == cudaSuccess);
  a.y_f32 = nullptr;
  a.epilogue = LinearEpilogue::kBest;
  a.best = device_keys.data();
  REQUIRE(layer(ctx, a, workspace) == cudaSuccess);
  REQUIRE(best_tokens(ctx, {.ids = device_ids.data(),
                            .keys = device_keys.data(),
                            .m = c.m,
                            .parts = best_parts(c.n)}) == cudaSuccess);
  const std::vector<float> logits = device_logits.fetch();
  const std::vector<std::uint64_t> keys = device_keys.fetch();
  const std::vector<int> ids = device_ids.fetch();
  CHECK(device_logits.is_intact());
  CHECK(device_keys.is_intact());
  CHECK(device_ids.is_intact());
  CHECK(keys == keys_of(logits, c.m, c.n));
  std::vector<int> expected(std::size_t(c.m));
  argmax(Host{},
         {.ids = expected.data(), .logits = logits.data(), .stride = c.n, .m = c.m, .vocab = c.n});
  CHECK(ids == expected);
  return ids;
}

template <LinearPolicy P>
void compare(Layer<P> layer, const LinearCase& c, unsigned seed) {
  CAPTURE(P::Format::kName);
  CAPTURE(c.name());
  CAPTURE(seed);
  Operands<P> operands(c, seed);
  (void)compare<P>(layer, c, operands);
}

template <LinearPolicy P>
void compare_all(Layer<P> layer, const std::vector<int>& tokens) {
  // Many tiles a block. Random 16-bit weights take longer to make.
  const int many = P::Format::kBits == 16 ? 40'003 : 100'003;
  unsigned seed = 1;
  for (const int m : tokens) {
    for (const int n : {1, 15, 16, 17, 264})
      compare<P>(layer, {.m = m, .n = n, .k = 384}, seed++);
    compare<P>(layer, {.m = m, .n = 4000, .k = 1024, .has_bias = true}, seed++);
    compare<P>(layer, {.m = m, .n = many, .k = 128}, seed++);
  }
}

}  // namespace

TEST_CASE_TEMPLATE("the best outputs of a skinny linear layer", P, P4, PHalf, PBFloat16) {
  if (!has_gpu()) return;
  compare_all<P>(&by_skinny<P>, {1, 2, 7, 8, 11});
  for (const int m : {1, 3}) {
    compare<P>(&by_skinny<P>, {.m = m, .n = 4000, .k = 1024, .has_norm = true, .x_padding = 0}, 90);
  }
}

TEST_CASE_TEMPLATE("the best outputs of a tile linear layer", P, P4, PHalf, PBFloat16) {
  if (!has_gpu()) return;
  compare_all<P>(&tile_linear<P>, {1, 9, 33, 70});
}

TEST_CASE_TEMPLATE("the best outputs of a warp group linear layer", P, P4, PHalf, PBFloat16) {
  if (!has_gpu() || !has_warpgroup_linear<P>()) return;
  compare_all<P>(&warpgroup_linear<P>, {1, 9, 33, 70});
}

TEST_CASE_TEMPLATE(
    "the best outputs by the kernel that suits the number of tokens", P, P4, PHalf, PBFloat16) {
  if (!has_gpu()) return;
  for (const int m : {1, 4, 5, 64, 200}) {
    const LinearCase c{.m = m, .n = 4000, .k = 256, .has_norm = true, .x_padding = 0};
    compare<P>(&linear<P>, c, 1);
    compare<P>(&batch_invariant_linear<P>, c, 1);
  }
}

TEST_CASE("the lowest of equal outputs is the best, and none where one is not a number") {
  if (!has_gpu()) return;
  for (const int m : {1, 3, 9}) {
    for (const Layer<P4> layer : {&by_skinny<P4>, &linear<P4>}) {
      CAPTURE(m);
      const LinearCase c{.m = m, .n = 3000, .k = 256, .has_bias = true, .x_size = 0.0f};
      Operands<P4> operands(c, 1);
      // x is zero: the outputs are the bias.
      const auto with = [&](std::vector<std::pair<int, float>> changes) {
        std::vector<float> bias(std::size_t(c.n), -2.0f);
        for (const auto& [j, value] : changes)
          bias[std::size_t(j)] = value;
        operands.set_bias(bias);
        return compare<P4>(layer, c, operands);
      };
      const std::vector<int> none(std::size_t(m), -1);
      CHECK(with({}) == std::vector<int>(std::size_t(m), 0));
      CHECK(with({{2999, 0.0f}, {1501, -0.0f}}) == std::vector<int>(std::size_t(m), 1501));
      CHECK(with({{17, 3.0f}, {18, 3.0f}, {33, 3.0f}}) == std::vector<int>(std::size_t(m), 17));
      CHECK(with({{2, 9.0f}, {2998, NAN}}) == none);
      CHECK(with({{2, INFINITY}}) == none);
      CHECK(with({{2, -INFINITY}}) == std::vector<int>(std::size_t(m), 0));
      operands.set_bias(std::vector<float>(std::size_t(c.n), -INFINITY));
      CHECK(compare<P4>(layer, c, operands) == none);
    }
  }
}

TEST_CASE("the best outputs need room for their keys") {
  const BasicLinearArgs<Half> a{.m = 1, .n = 16, .k = 128, .epilogue = LinearEpilogue::kBest};
  CHECK(skinny_linear<P4>(Cuda{}, a) == cudaErrorInvalidValue);
  CHECK(tile_linear<P4>(Cuda{}, a, {}) == cudaErrorInvalidValue);
  CHECK(best_tokens(Cuda{}, {.m = 1, .parts = 0}) == cudaErrorInvalidValue);
}

TEST_CASE_TEMPLATE("small: the best outputs of every kernel", P, P4, PHalf, PBFloat16) {
  if (!has_gpu()) return;
  for (const int m : {1, 9}) {
    const LinearCase c{.m = m, .n = 264, .k = 384};
    if (m == 1) compare<P>(&by_skinny<P>, c, 71);
    compare<P>(&tile_linear<P>, c, 72);
    if (has_warpgroup_linear<P>()) compare<P>(&warpgroup_linear<P>, c, 73);
  }
}
