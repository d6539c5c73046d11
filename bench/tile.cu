/// \file  4-bit linear layers on the GPU, 1 to 4096 tokens, by every kernel that could compute them.
// SPDX-License-Identifier: Apache-2.0
#include "linear_rows.cuh"

using namespace lmd;
using namespace lmd::kernels;

namespace {

using P = FragmentPolicy<quant::WeightInt4<128>, Half>;
using Args = BasicLinearArgs<Half>;
using Way = bench::LinearWay<P>;
using Layers = std::shared_ptr<bench::LinearLayers<P>>;

constexpr int kMaxTokens = 4096;

/// Rows to compare line by line: for each shape and number of tokens what `linear` picks, every
/// kernel that it might pick instead, and a dense product of weights that are decoded already.
void add_rows(bench::LinearMemory& memory, const Layers& layers) {
  const Way linear{"linear/w4g128", [&memory](Cuda ctx, const Args& a) {
                     return kernels::linear<P>(ctx, a, memory.view());
                   }};
  const Way tile{"tile/w4g128", [&memory](Cuda ctx, const Args& a) {
                   return tile_linear<P>(ctx, a, memory.view());
                 }};
  const Way resident{"resident/w4g128", [](Cuda ctx, const Args& a) {
                       bool is_launched = false;
                       return try_resident_linear<P>(ctx, a, &is_launched);
                     }};
  const Way panel{"panel/w4g128", [&memory](Cuda ctx, const Args& a) {
                    bool is_launched = false;
                    return try_panel_linear<P>(ctx, a, memory.view(), &is_launched);
                  }};
  const Way warpgroup{"warpgroup/w4g128", [&memory](Cuda ctx, const Args& a) {
                        return warpgroup_linear<P>(ctx, a, memory.view());
                      }};
  const Way wide{"wide/w4g128", [&memory](Cuda ctx, const Args& a) {
                   return wide_linear<P>(ctx, a, memory.view());
                 }};
  const Way skinny{"skinny/w4g128",
                   [](Cuda ctx, const Args& a) { return skinny_linear<P>(ctx, a); }};
  const Way dense{"cublaslt/f16", {}, &memory.dense()};
  for (const int m : {1, 2, 4, 8, 16, 32, 64, 96, 128, 256, 384, 512, 1024, 2048, 4096}) {
    bench::add_linear_rows(linear, layers, m);
    if (m >= 2 && m <= 16) bench::add_linear_rows(skinny, layers, m);
    if (m <= 16) bench::add_linear_rows(resident, layers, m);
    if (m >= 64 && m <= 512) bench::add_linear_rows(panel, layers, m);
    if (m <= 256) bench::add_linear_rows(tile, layers, m);
    if (m >= 8 && m <= 512) bench::add_linear_rows(warpgroup, layers, m);
    if (m >= 64 && m <= 512) bench::add_linear_rows(wide, layers, m);
    bench::add_linear_rows(dense, layers, m);
  }
}

/// Decoding alone, as `wide` begins.
void add_unpack_row(bench::LinearMemory& memory, const Layers& layers) {
  bench::add_lazy_row("unpack/w4g128/w1w3", bench::Timing::kChained, [&memory, layers] {
    bench::LinearLayer<P>& layer = layers->at(2);
    const bench::LinearShape& s = layer.shape();
    return bench::Row{
        .bytes = layer.stream_bytes() + std::int64_t{2} * s.n * s.k,
        .copies = 24,
        .queue = [&memory, &layer, &s](Cuda ctx, int i) {
          LMD_CUDA_TRY(unpack_rows<P>(ctx, layer.args(i, 1).codes, s.n, s.k,
                                      reinterpret_cast<Half*>(memory.view().scratch)));
        }};
  });
}

}  // namespace

int main(int argc, char** argv) {
  bench::LinearMemory memory(kMaxTokens);
  const auto layers = std::make_shared<bench::LinearLayers<P>>(
      std::vector(std::begin(bench::kLayerShapes), std::end(bench::kLayerShapes)), kMaxTokens);
  add_rows(memory, layers);
  add_unpack_row(memory, layers);
  return bench::run(argc, argv);
}
