/// \file  Packing of checkpoint rows into fragment streams on the GPU, each format;
///        w1w3 of InternLM2.5-7B.
// SPDX-License-Identifier: Apache-2.0
#include <lmd/quant/pack_fragments.cuh>

#include <memory>
#include <random>

#include "harness.cuh"
#include "kernels/linear/linear_case.hpp"

using namespace lmd;

namespace {

constexpr int kN = 28672;
constexpr int kK = 4096;

/// As many matrices as make a cold cycle, packed one after another.
template <class W>
class Matrices {
 public:
  using F = quant::FragmentWeights<W>;

  Matrices() {
    std::mt19937 rng(1);
    const kernels::RandomRows<W> some(kDistinctRows, kK, rng);
    const auto spread = [](auto& to, const auto& from) {
      const auto n = static_cast<std::int64_t>(from.size() * sizeof(from[0]));
      for (std::int64_t at = 0; at < to.size(); at += n) {
        LMD_CUDA_TRY(cudaMemcpy(to.data() + at, from.data(),
                                static_cast<std::size_t>(std::min(n, to.size() - at)),
                                cudaMemcpyDefault));
      }
    };
    spread(codes_, some.codes);
    if (kParamsBytes > 0) spread(params_, some.params);
    expected_ = some.fragments();
    pack(Cuda{}, copies() - 1);
    check();
  }

  [[nodiscard]] int copies() const { return copies_; }
  /// Rows read, the stream written.
  [[nodiscard]] static std::int64_t bytes() {
    return kCodesBytes + kParamsBytes + F::stream_bytes(kN, kK);
  }

  void pack(Cuda ctx, int copy) {
    LMD_CUDA_TRY(quant::pack_fragments<W>(ctx, {.stream = stream_.data(),
                                                .codes = codes_.data() + copy * kCodesBytes,
                                                .params = params_.data() + copy * kParamsBytes,
                                                .n = kN,
                                                .k = kK}));
  }

 private:
  static constexpr int kDistinctRows = 256;
  static constexpr std::int64_t kCodesBytes = std::int64_t{kN} * kK * W::kBits / 8;
  static constexpr std::int64_t kParamsBytes = [] {
    if constexpr (W::kGroupSize == 0)
      return std::int64_t{0};
    else
      return std::int64_t{kN} * (kK / W::kGroupSize) * sizeof(typename W::Params);
  }();

  /// The first rows against the definition. \throws Error where a byte differs.
  void check() const {
    LMD_REQUIRE(
        bench::on_host(stream_.data(), static_cast<std::int64_t>(expected_.size())) == expected_,
        ErrorCode::kInternal, std::string("packing ") + W::kName + ": wrong bytes");
  }

  int copies_ = bench::cold_copies(kCodesBytes + kParamsBytes);
  DeviceBuffer<std::uint8_t> codes_{kCodesBytes * copies_};
  DeviceBuffer<std::uint8_t> params_{kParamsBytes * copies_};
  DeviceBuffer<std::uint8_t> stream_{F::stream_bytes(kN, kK)};
  std::vector<std::uint8_t> expected_;
};

template <class W>
void add_rows(const std::string& name) {
  for (const bench::Timing timing : {bench::Timing::kEdges, bench::Timing::kChained}) {
    bench::add_lazy_row("pack/" + name + "/w1w3", timing, [] {
      const auto made = std::make_shared<Matrices<W>>();
      return bench::Row{.bytes = made->bytes(),
                        .copies = std::max(24, made->copies()),
                        .queue = [made](Cuda ctx, int i) { made->pack(ctx, i % made->copies()); }};
    });
  }
}

}  // namespace

int main(int argc, char** argv) {
  add_rows<quant::WeightHalf>("f16");
  add_rows<quant::WeightInt8<32>>("w8g32");
  add_rows<quant::WeightInt4<128>>("w4g128");
  add_rows<quant::WeightAffine4<32>>("affine4g32");
  return bench::run(argc, argv);
}
