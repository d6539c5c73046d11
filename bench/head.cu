/// \file  The last layer and the greedy choice of a token on the GPU: by logits and argmax, and without
///        logits.
// SPDX-License-Identifier: Apache-2.0
#include <lmd/kernels/sample/argmax.cuh>
#include <lmd/kernels/sample/best_tokens.cuh>

#include "linear_layer.cuh"

using namespace lmd;
using namespace lmd::kernels;

namespace {

constexpr int kMaxTokens = 64;
constexpr int kVocab = bench::kHeadShape.n;

/// lm_head over the normalised rows of the last layer.
template <class P>
class Head {
 public:
  void choose_by_logits(Cuda ctx, int call, int m) {
    BasicLinearArgs<Half> a = args(call, m);
    a.y_f32 = logits_.data();
    LMD_CUDA_TRY(linear<P>(ctx, a, memory_.view()));
    LMD_CUDA_TRY(argmax(
        ctx,
        {.ids = ids_.data(), .logits = logits_.data(), .stride = kVocab, .m = m, .vocab = kVocab}));
  }
  void choose_by_keys(Cuda ctx, int call, int m) {
    BasicLinearArgs<Half> a = args(call, m);
    a.epilogue = LinearEpilogue::kBest;
    a.best = keys_.data();
    LMD_CUDA_TRY(linear<P>(ctx, a, memory_.view()));
    LMD_CUDA_TRY(best_tokens(
        ctx, {.ids = ids_.data(), .keys = keys_.data(), .m = m, .parts = best_parts(kVocab)}));
  }

  /// \throws Error where the two ways choose different tokens.
  void check(int m) {
    choose_by_logits(Cuda{}, 0, m);
    const std::vector<int> expected = bench::on_host(ids_.data(), m);
    ids_.fill_bytes(0xff);
    choose_by_keys(Cuda{}, 0, m);
    LMD_REQUIRE(bench::on_host(ids_.data(), m) == expected, ErrorCode::kInternal,
                "two ways to choose one of " + std::to_string(m) + " tokens differ");
  }

  [[nodiscard]] int copies() const { return std::max(24, layer_.copies()); }
  [[nodiscard]] std::int64_t bytes(int m) const {
    return layer_.stream_bytes() + std::int64_t{2} * m * bench::kHeadShape.k;
  }
  [[nodiscard]] double flops(int m) const { return layer_.flops(m); }

 private:
  [[nodiscard]] BasicLinearArgs<Half> args(int call, int m) {
    BasicLinearArgs<Half> a = layer_.args(call, m);
    a.y = nullptr;
    return a;
  }

  static constexpr bench::LinearShape kShape = {"lm_head", bench::kHeadShape.n, bench::kHeadShape.k,
                                                LinearEpilogue::kStore, true};
  bench::LinearLayer<P> layer_{kShape, kMaxTokens};
  bench::LinearMemory memory_{kMaxTokens};
  DeviceBuffer<float> logits_{std::int64_t{kMaxTokens} * kVocab};
  DeviceBuffer<std::uint64_t> keys_{std::int64_t{kMaxTokens} * best_parts(kVocab)};
  DeviceBuffer<int> ids_{kMaxTokens};
};

template <class W>
void add_rows(const std::string& name) {
  using P = FragmentPolicy<W, Half>;
  const auto head = std::make_shared<std::unique_ptr<Head<P>>>();  // exists from its first use on
  for (const int m : {1, 2, 4, 8, 16, 64}) {
    for (const bool by_keys : {false, true}) {
      const std::string row =
          std::string(by_keys ? "best" : "logits+argmax") + "/" + name + "/m:" + std::to_string(m);
      for (const bench::Timing timing : {bench::Timing::kEdges, bench::Timing::kChained}) {
        bench::add_lazy_row(row, timing, [=] {
          if (*head == nullptr) *head = std::make_unique<Head<P>>();
          Head<P>& h = **head;
          h.check(m);
          return bench::Row{.bytes = h.bytes(m),
                            .copies = h.copies(),
                            .queue =
                                [&h, m, by_keys](Cuda ctx, int i) {
                                  by_keys ? h.choose_by_keys(ctx, i, m)
                                          : h.choose_by_logits(ctx, i, m);
                                },
                            .flops = h.flops(m)};
        });
      }
    }
  }
}

}  // namespace

int main(int argc, char** argv) {
  add_rows<quant::WeightHalf>("f16");
  add_rows<quant::WeightInt8<32>>("w8g32");
  add_rows<quant::WeightInt4<128>>("w4g128");
  return bench::run(argc, argv);
}
