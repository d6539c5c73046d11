/// \file  Linear layers for many tokens on the GPU, shapes of InternLM2.5-7B, weights cold.
// SPDX-License-Identifier: Apache-2.0
#include <lmd/kernels/linear/linear_cuda.cuh>

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
};

// One layer as the engine runs it, norms apart.
constexpr Shape kShapes[] = {
    {"wqkv", 6144, 4096, LinearEpilogue::kStore},
    {"wo+residual", 4096, 4096, LinearEpilogue::kAdd},
    {"w1w3+silu", 28672, 4096, LinearEpilogue::kSiluMul},
    {"w2+residual", 4096, 14336, LinearEpilogue::kAdd},
};
constexpr Shape kHead = {"lm_head", 92544, 4096, LinearEpilogue::kStore};

/// What all rows share; sized for the largest of them.
struct Workspace {
  static constexpr std::int64_t kDenseBytes = std::int64_t{32} << 20;
  static constexpr int kMaxTokens = 2048;
  DeviceBuffer<float> parts{tile_part_elements(device_multiprocessors())};
  DeviceBuffer<int> counters{tile_counters(kHead.n)};
  DeviceBuffer<std::uint8_t> scratch{std::max(linear_scratch_bytes(kMaxTokens, 28672, 4096),
                                              linear_scratch_bytes(kMaxTokens, 4096, 14336))};
  DeviceBuffer<std::uint8_t> dense_memory{kDenseBytes};
  DenseGemm dense{dense_memory.data(), kDenseBytes};

  Workspace() { counters.fill_bytes(0); }
  [[nodiscard]] LinearWorkspace view() {
    return {.parts = parts.data(),
            .counters = counters.data(),
            .scratch = scratch.data(),
            .scratch_bytes = scratch.size(),
            .dense = &dense};
  }
  static int device_multiprocessors() {
    int n = 0;
    LMD_CUDA_TRY(multiprocessors(Cuda{}, &n));
    return n;
  }
};

/// Weights of a shape on the device, as many copies as make a cold cycle.
template <class P>
struct Layer {
  using W = typename P::Format;
  using T = typename P::Act;
  DeviceBuffer<std::uint8_t> stream;
  DeviceBuffer<T> x, y;
  std::int64_t pitch;
  int copies;
  Shape shape;

  Layer(const Shape& s, int max_tokens, Workspace& workspace)
      : x(std::int64_t{max_tokens} * s.k),
        y(std::int64_t{max_tokens} * s.n),
        pitch(round_up<std::int64_t>(P::Weights::stream_bytes(s.n, s.k), 256)),
        copies(bench::cold_copies(pitch)),
        shape(s) {
    std::mt19937 rng(1);
    std::normal_distribution<float> normal;
    // Random rows repeated: the time does not depend on which rows are equal, making them does.
    const int distinct = 256;
    const RandomRows<W> weights(distinct, s.k, rng);
    const std::vector<std::uint8_t> some = weights.fragments();
    const std::int64_t bytes = P::Weights::stream_bytes(s.n, s.k);
    const auto some_bytes = static_cast<std::int64_t>(some.size());
    stream = DeviceBuffer<std::uint8_t>(pitch * copies);
    for (int c = 0; c < copies; ++c) {
      for (std::int64_t at = 0; at < bytes; at += some_bytes) {
        LMD_CUDA_TRY(cudaMemcpy(stream.data() + c * pitch + at, some.data(),
                                static_cast<std::size_t>(std::min(some_bytes, bytes - at)),
                                cudaMemcpyHostToDevice));
      }
    }
    std::vector<T> values(x.size());
    for (auto& v : values)
      v = from_float<T>(normal(rng));
    x.copy_from(values);
    y.fill_bytes(0);
    LMD_CUDA_TRY(cudaDeviceSynchronize());
    check(weights, values, workspace);
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
            .epilogue = shape.epilogue};
  }

  /// The plain product of some tokens against f64, some rows.
  void check(const RandomRows<W>& weights, const std::vector<T>& values, Workspace& workspace) {
    constexpr int kTokens = 40;
    BasicLinearArgs<T> a = args(copies - 1, kTokens);
    a.epilogue = LinearEpilogue::kStore;
    LMD_CUDA_TRY(tile_linear<P>(Cuda{}, a, workspace.view()));
    std::vector<T> found(y.size());
    y.copy_to(found);
    double error = 0;
    double size = 0;
    for (int i = 0; i < kTokens; i += 13) {
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
    y.fill_bytes(0);
    LMD_CUDA_TRY(cudaDeviceSynchronize());
  }
};

/// Times `call` (a linear layer) on a shape; bytes are those of the weights and of x and y.
template <class P, class Call>
void add_row(const std::string& name, const std::shared_ptr<Layer<P>>& layer, int m, Call call) {
  const Shape& s = layer->shape;
  const std::int64_t bytes = P::Weights::stream_bytes(s.n, s.k) + std::int64_t{m} * 2 * (s.k + s.n);
  bench::add_memory_row(name + "/" + s.name + "/m:" + std::to_string(m),
                        {bytes, std::max(24, layer->copies), [layer, m, call](Cuda ctx, int i) {
                           call(ctx, layer->args(i % layer->copies, m));
                         }});
}

/// A whole layer: the four products one after another.
template <class P, class Call>
void add_layer_row(const std::string& name,
                   const std::vector<std::shared_ptr<Layer<P>>>& parts,
                   int m,
                   Call call) {
  std::int64_t bytes = 0;
  for (const auto& part : parts)
    bytes += P::Weights::stream_bytes(part->shape.n, part->shape.k);
  bench::add_memory_row(name + "/layer/m:" + std::to_string(m),
                        {bytes, 24, [parts, m, call](Cuda ctx, int i) {
                           for (const auto& part : parts)
                             call(ctx, part->args(i % part->copies, m));
                         }});
}

void add_rows(Workspace& workspace) {
  using P = FragmentPolicy<quant::WeightInt4<128>, Half>;
  using Args = BasicLinearArgs<Half>;
  const auto tile = [&workspace](Cuda ctx, const Args& a) {
    LMD_CUDA_TRY(tile_linear<P>(ctx, a, workspace.view()));
  };
  const auto wide = [&workspace](Cuda ctx, const Args& a) {
    LMD_CUDA_TRY(wide_linear<P>(ctx, a, workspace.view()));
  };
  std::vector<std::shared_ptr<Layer<P>>> parts;
  for (const Shape& shape : kShapes)
    parts.push_back(std::make_shared<Layer<P>>(shape, Workspace::kMaxTokens, workspace));
  // The first capture may not meet the library's own set-up.
  for (const int m : {64, 128, 256, 512, 2048}) {
    for (const auto& part : parts)
      wide(Cuda{}, part->args(0, m));
  }
  LMD_CUDA_TRY(cudaDeviceSynchronize());
  for (const int m : {8, 16, 32, 64, 128}) {
    for (const auto& part : parts)
      add_row<P>("tile/w4g128", part, m, tile);
    add_layer_row<P>("tile/w4g128", parts, m, tile);
  }
  for (const int m : {64, 128, 256, 512, 2048})
    add_layer_row<P>("wide/w4g128", parts, m, wide);
  const auto& w1w3 = parts[2];
  const std::int64_t unpack_bytes = P::Weights::stream_bytes(w1w3->shape.n, w1w3->shape.k) +
                                    std::int64_t{w1w3->shape.n} * w1w3->shape.k * 2;
  bench::add_memory_row("unpack/w4g128/w1w3",
                        {unpack_bytes, 24, [w1w3, &workspace](Cuda ctx, int i) {
                           LMD_CUDA_TRY(unpack_rows<P>(
                               ctx, w1w3->args(i % w1w3->copies, 1).codes, w1w3->shape.n,
                               w1w3->shape.k, reinterpret_cast<Half*>(workspace.scratch.data())));
                         }});
  using P16 = FragmentPolicy<quant::WeightHalf, Half>;
  const auto head = std::make_shared<Layer<P16>>(kHead, 64, workspace);
  for (const int m : {16, 64}) {
    add_row<P16>("tile/f16", head, m, [&workspace](Cuda ctx, const Args& a) {
      LMD_CUDA_TRY(tile_linear<P16>(ctx, a, workspace.view()));
    });
  }
}

}  // namespace

int main(int argc, char** argv) {
  Workspace workspace;
  add_rows(workspace);
  return bench::run(argc, argv);
}
