/// \file  4-bit linear layers for few tokens on the GPU, alone and as one fused layer.
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

}  // namespace

int main(int argc, char** argv) {
  using P = FragmentPolicy<quant::WeightInt4<128>, Half>;
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
  return bench::run(argc, argv);
}
