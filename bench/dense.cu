/// \file  Linear layers with 16- and 8-bit weights on the GPU, a layer's four matrices and lm_head, the
///        first beside cuBLASLt.
// SPDX-License-Identifier: Apache-2.0
#include "linear_rows.cuh"

using namespace lmd;
using namespace lmd::kernels;

namespace {

constexpr int kMaxTokens = 2048;

template <class W>
using Policy = FragmentPolicy<W, Half>;

/// What `linear` picks and, for a few tokens, skinny_linear too.
template <class W>
std::shared_ptr<bench::LinearLayers<Policy<W>>> add_rows(const std::string& format,
                                                         bench::LinearMemory& memory) {
  using P = Policy<W>;
  std::vector shapes(std::begin(bench::kLayerShapes), std::end(bench::kLayerShapes));
  shapes.push_back(bench::kHeadShape);
  const auto layers = std::make_shared<bench::LinearLayers<P>>(shapes, kMaxTokens);
  const bench::LinearWay<P> linear{"linear/" + format,
                                   [&memory](Cuda ctx, const BasicLinearArgs<Half>& a) {
                                     return kernels::linear<P>(ctx, a, memory.view());
                                   }};
  const bench::LinearWay<P> skinny{
      "skinny/" + format,
      [](Cuda ctx, const BasicLinearArgs<Half>& a) { return skinny_linear<P>(ctx, a); }};
  for (const int m : {1, 2, 3, 4, 8, 12, 16, 64, 256, 2048}) {
    bench::add_linear_rows(linear, layers, m);
    if (m > 1 && m <= 16) bench::add_linear_rows(skinny, layers, m);
  }
  return layers;
}

}  // namespace

int main(int argc, char** argv) {
  bench::LinearMemory memory(kMaxTokens);
  const auto layers = add_rows<quant::WeightHalf>("f16", memory);
  (void)add_rows<quant::WeightInt8<32>>("w8g32", memory);
  const bench::LinearWay<Policy<quant::WeightHalf>> dense{"cublaslt/f16", {}, &memory.dense()};
  for (const int m : {1, 2, 3, 4, 8, 12, 16, 64, 256, 2048})
    bench::add_linear_rows(dense, layers, m);
  return bench::run(argc, argv);
}
