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

/// One layer of InternViT-6B.
constexpr bench::LinearShape kVitShapes[] = {
    {"vit/qkv", 9600, 3200},
    {"vit/proj+residual", 3200, 3200, LinearEpilogue::kAdd},
    {"vit/fc1", 12800, 3200},
    {"vit/fc2+residual", 3200, 12800, LinearEpilogue::kAdd},
};

/// Products of many tokens of 16-bit weights, which cuBLASLt computes: one tile of an image and 13, and
/// prompts of a 7B model.
void add_long_rows(bench::LinearMemory& memory) {
  constexpr int kTiles = 13;
  constexpr int kTileTokens = 1025;
  const bench::LinearWay<Policy<quant::WeightHalf>> dense{"cublaslt/f16", {}, &memory.dense()};
  const auto vit = std::make_shared<bench::LinearLayers<Policy<quant::WeightHalf>>>(
      std::vector(std::begin(kVitShapes), std::end(kVitShapes)), kTiles * kTileTokens);
  for (const int m : {kTileTokens, kTiles * kTileTokens})
    for (int i = 0; i < 4; ++i)
      bench::add_shape_row(dense, vit, i, m, bench::Timing::kBurst);
  constexpr int kLongest = 8192;
  const auto layer = std::make_shared<bench::LinearLayers<Policy<quant::WeightHalf>>>(
      std::vector(std::begin(bench::kLayerShapes), std::end(bench::kLayerShapes)), kLongest);
  for (const int m : {512, 1024, 4096, kLongest})
    for (int i = 0; i < 4; ++i)
      bench::add_shape_row(dense, layer, i, m, bench::Timing::kBurst);
}

}  // namespace

int main(int argc, char** argv) {
  bench::LinearMemory memory(kMaxTokens);
  const auto layers = add_rows<quant::WeightHalf>("f16", memory);
  (void)add_rows<quant::WeightInt8<32>>("w8g32", memory);
  const bench::LinearWay<Policy<quant::WeightHalf>> dense{"cublaslt/f16", {}, &memory.dense()};
  for (const int m : {1, 2, 3, 4, 8, 12, 16, 64, 256, 2048})
    bench::add_linear_rows(dense, layers, m);
  add_long_rows(memory);
  return bench::run(argc, argv);
}
