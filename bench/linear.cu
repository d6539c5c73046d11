/// \file  4-bit linear layers for few tokens on the GPU, alone and as one fused layer; InternLM2-20B's, too.
// SPDX-License-Identifier: Apache-2.0
#include "linear_rows.cuh"

using namespace lmd;
using namespace lmd::kernels;

namespace {

// One layer as the engine runs it, then the same products alone.
constexpr bench::LinearShape kShapes[] = {
    {"wqkv+norm", 6144, 4096, LinearEpilogue::kStore, true},
    {"wo+residual", 4096, 4096, LinearEpilogue::kAdd},
    {"w1w3+norm+silu", 28672, 4096, LinearEpilogue::kSiluMul, true},
    {"w2+residual", 4096, 14336, LinearEpilogue::kAdd},
    {"wqkv", 6144, 4096},
    {"wo", 4096, 4096},
    {"w1w3", 28672, 4096},
    {"w2", 4096, 14336},
    bench::kHeadShape,
};

using P = FragmentPolicy<quant::WeightInt4<128>, Half>;

/// What `linear` picks for a layer of InternLM2-20B.
void add_rows_of_20b(bench::LinearMemory& memory, int max_tokens) {
  const auto layers = std::make_shared<bench::LinearLayers<P>>(
      std::vector(std::begin(bench::kLayerShapes20b), std::end(bench::kLayerShapes20b)),
      max_tokens);
  const bench::LinearWay<P> linear{"20b/linear/w4g128",
                                   [&memory](Cuda ctx, const BasicLinearArgs<Half>& a) {
                                     return kernels::linear<P>(ctx, a, memory.view());
                                   }};
  for (const int m : {1, 2, 4, 8, 16, 32, 64}) {
    for (int i = 0; i < 4; ++i)
      bench::add_shape_row(linear, layers, i, m, bench::Timing::kChained);
    bench::add_layer_row(linear, layers, m, bench::Timing::kChained);
  }
}

}  // namespace

int main(int argc, char** argv) {
  constexpr int kTokens[] = {1, 2, 4, 8};
  const auto layers = std::make_shared<bench::LinearLayers<P>>(
      std::vector(std::begin(kShapes), std::end(kShapes)), kTokens[3]);
  const bench::LinearWay<P> skinny{"skinny/w4g128", [](Cuda ctx, const BasicLinearArgs<Half>& a) {
                                     return skinny_linear<P>(ctx, a);
                                   }};
  constexpr bench::Timing kTimings[] = {bench::Timing::kEdges, bench::Timing::kChained};
  for (const int m : kTokens) {
    for (int i = 0; i < static_cast<int>(layers->shapes().size()); ++i)
      for (const bench::Timing timing : kTimings)
        bench::add_shape_row(skinny, layers, i, m, timing);
    for (const bench::Timing timing : kTimings)
      bench::add_layer_row(skinny, layers, m, timing);
  }
  constexpr int kMaxTokens = 64;
  bench::LinearMemory memory(kMaxTokens, bench::kLayerShapes20b);
  add_rows_of_20b(memory, kMaxTokens);
  return bench::run(argc, argv);
}
