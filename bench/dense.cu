/// \file  Linear layers with 16-bit weights on the GPU, a layer's four matrices and lm_head, beside
///        cuBLASLt.
// SPDX-License-Identifier: Apache-2.0
#include "linear_rows.cuh"

using namespace lmd;
using namespace lmd::kernels;

namespace {

constexpr int kMaxTokens = 2048;

}  // namespace

int main(int argc, char** argv) {
  using P = FragmentPolicy<quant::WeightHalf, Half>;
  bench::LinearMemory memory(kMaxTokens);
  std::vector shapes(std::begin(bench::kLayerShapes), std::end(bench::kLayerShapes));
  shapes.push_back(bench::kHeadShape);
  const auto layers = std::make_shared<bench::LinearLayers<P>>(shapes, kMaxTokens);
  const bench::LinearWay<P> linear{"linear/f16",
                                   [&memory](Cuda ctx, const BasicLinearArgs<Half>& a) {
                                     return kernels::linear<P>(ctx, a, memory.view());
                                   }};
  const bench::LinearWay<P> dense{"cublaslt/f16", {}, &memory.dense()};
  for (const int m : {1, 2, 4, 8, 16, 64, 256, 2048}) {
    bench::add_linear_rows(linear, layers, m);
    bench::add_linear_rows(dense, layers, m);
  }
  return bench::run(argc, argv);
}
