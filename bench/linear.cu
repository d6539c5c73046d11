/// \file  Linear layers on the GPU, shapes of InternLM2.5-7B, weights cold.
// SPDX-License-Identifier: Apache-2.0
#include <lmd/kernels/linear/skinny.cuh>

#include <memory>

#include "harness.cuh"
#include "kernels/linear/linear_case.hpp"

using namespace lmd;
using namespace lmd::kernels;

namespace {

struct Shape {
  const char* name;
  int n;
  int k;
  LinearEpilogue epilogue;
  bool has_norm;
};

// One layer as the engine runs it, then the same products alone.
constexpr Shape kShapes[] = {
    {"wqkv+norm", 6144, 4096, LinearEpilogue::kStore, true},
    {"wo+residual", 4096, 4096, LinearEpilogue::kAdd, false},
    {"w1w3+norm+silu", 28672, 4096, LinearEpilogue::kSiluMul, true},
    {"w2+residual", 4096, 14336, LinearEpilogue::kAdd, false},
    {"wqkv", 6144, 4096, LinearEpilogue::kStore, false},
    {"wo", 4096, 4096, LinearEpilogue::kStore, false},
    {"w1w3", 28672, 4096, LinearEpilogue::kStore, false},
    {"w2", 4096, 14336, LinearEpilogue::kStore, false},
    {"lm_head", 92544, 4096, LinearEpilogue::kStore, false},
};

/// Weights of a shape on the device, as many copies as make a cold cycle.
template <class P>
struct Layer {
  using W = typename P::Format;
  using T = typename P::Act;
  static constexpr int kMaxTokens = 64;
  DeviceBuffer<std::uint8_t> stream;
  DeviceBuffer<T> x, y;
  DeviceBuffer<float> norm;
  std::int64_t pitch;
  int copies;
  Shape shape;

  explicit Layer(const Shape& s)
      : x(std::int64_t{kMaxTokens} * s.k),
        y(std::int64_t{kMaxTokens} * s.n),
        norm(s.k),
        pitch(round_up<std::int64_t>(P::Weights::stream_bytes(s.n, s.k), 256)),
        copies(bench::cold_copies(pitch)),
        shape(s) {
    std::mt19937 rng(1);
    std::normal_distribution<float> normal;
    // Random rows repeated: the time does not depend on which rows are equal, making them does.
    const int distinct = 256;
    const RandomRows<W> weights(distinct, s.k, rng);
    const std::vector<std::uint8_t> some = weights.fragments();
    stream = DeviceBuffer<std::uint8_t>(pitch * copies);
    for (int c = 0; c < copies; ++c) {
      for (std::int64_t at = 0; at < P::Weights::stream_bytes(s.n, s.k);
           at += static_cast<std::int64_t>(some.size())) {
        const auto bytes = std::min<std::int64_t>(static_cast<std::int64_t>(some.size()),
                                                  P::Weights::stream_bytes(s.n, s.k) - at);
        LMD_CUDA_TRY(cudaMemcpy(stream.data() + c * pitch + at, some.data(),
                                static_cast<std::size_t>(bytes), cudaMemcpyHostToDevice));
      }
    }
    std::vector<T> values(x.size());
    for (auto& v : values)
      v = from_float<T>(normal(rng));
    x.copy_from(values);
    std::vector<float> weight(s.k, 1.0f);
    norm.copy_from(weight);
    y.fill_bytes(0);
    check(weights, values);
  }

  [[nodiscard]] BasicLinearArgs<T> args(int copy, int m) {
    return {.y = y.data(),
            .x = x.data(),
            .codes = stream.data() + copy * pitch,
            .m = m,
            .n = shape.n,
            .k = shape.k,
            .x_stride = shape.k,
            .y_stride = shape.n,
            .epilogue = shape.epilogue,
            .norm_weight = shape.has_norm ? norm.data() : nullptr,
            .norm_eps = 1e-5f};
  }

  /// The plain product of the last tokens against f64, some rows.
  void check(const RandomRows<W>& weights, const std::vector<T>& values) {
    constexpr int kTokens = 3;
    BasicLinearArgs<T> a = args(copies - 1, kTokens);
    a.epilogue = LinearEpilogue::kStore;
    a.norm_weight = nullptr;
    LMD_CUDA_TRY(skinny_linear<P>(Cuda{}, a));
    std::vector<T> found(y.size());
    y.copy_to(found);
    double error = 0;
    double size = 0;
    for (int i = 0; i < kTokens; ++i) {
      for (int j = i; j < shape.n; j += shape.n / 50) {
        double sum = 0;
        for (int l = 0; l < shape.k; ++l)
          sum += double{to_float(values[std::size_t(i) * shape.k + l])} *
                 weights.rows().weight(j % weights.n, l);
        const double d = to_float(found[std::size_t(i) * shape.n + j]) - sum;
        error += d * d;
        size += sum * sum;
      }
    }
    const double relative = std::sqrt(error / size);
    LMD_REQUIRE(relative < kUlp<T>, ErrorCode::kInternal,
                std::string(shape.name) + ": wrong by " + std::to_string(relative));
  }
};

template <class P>
void add_rows(const std::string& name, std::vector<int> tokens) {
  for (const Shape& shape : kShapes) {
    auto layer = std::make_shared<Layer<P>>(shape);
    for (const int m : tokens) {
      const std::int64_t bytes =
          P::Weights::stream_bytes(shape.n, shape.k) + std::int64_t{m} * 2 * (shape.k + shape.n);
      bench::add_memory_row(
          name + "/" + shape.name + "/m:" + std::to_string(m),
          {bytes, std::max(24, layer->copies), [layer, m](Cuda ctx, int i) {
             LMD_CUDA_TRY(skinny_linear<P>(ctx, layer->args(i % layer->copies, m)));
           }});
    }
  }
  // A whole layer: the four products one after another, as in a decode step.
  std::vector<std::shared_ptr<Layer<P>>> parts;
  std::int64_t bytes = 0;
  for (int i = 0; i < 4; ++i) {
    parts.push_back(std::make_shared<Layer<P>>(kShapes[i]));
    bytes += P::Weights::stream_bytes(kShapes[i].n, kShapes[i].k);
  }
  for (const int m : tokens) {
    bench::add_memory_row(name + "/layer/m:" + std::to_string(m),
                          {bytes, 24, [parts, m](Cuda ctx, int i) {
                             for (const auto& part : parts)
                               LMD_CUDA_TRY(skinny_linear<P>(ctx, part->args(i % part->copies, m)));
                           }});
  }
}

}  // namespace

int main(int argc, char** argv) {
  add_rows<FragmentPolicy<quant::WeightInt4<128>, Half>>("w4g128", {1, 2, 4, 8});
  return bench::run(argc, argv);
}
